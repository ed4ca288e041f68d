"""Parses arguments that several commands share, and those that decide the defaults of others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from noiseless.commands.durations import without_shares
from noiseless.commands.flags import read_flags
from noiseless.commands.models import parameters
from noiseless.commands.parsing import given_flags, parse
from noiseless.data.catalogue import ENTRIES, full_name
from noiseless.errors import UnknownNameError, shown
from noiseless.own import PATTERN
from noiseless.recipes.checks import MOST
from noiseless.recipes.config import Config
from noiseless.recipes.flags import with_flags
from noiseless.recipes.implied import USUAL_RATES, implied
from noiseless.recipes.ladder import RECIPES, default_form, row
from noiseless.recipes.recipe import Recipe
from noiseless.trust import permit, permit_functions

if TYPE_CHECKING:
    from noiseless.files.address import StateAddress
    from noiseless.files.directory import RunDirectory

MOST_WORKERS = 1_000_000
"""largest number of workers that can be planned, and of timed rounds"""


@dataclass(frozen=True)
class OneRun:
    """The argument of commands that read one run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """directory of the run, as printed by noiseless train"""


Trust = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="CODE")]
"""type of the flag `--trust`, which may be given several times"""


@dataclass(frozen=True)
class TrustingRun(OneRun):
    """The arguments of commands that build the model of one run."""

    trust: Trust = ()
    """package.module:function of yours that the run names, which may be imported; a run is data and allows nothing"""


@dataclass(frozen=True)
class TrustingState:
    """The arguments of commands that build the model of a run at one of its states."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN[@STEP]")]
    """directory of the run; @STEP is the state after that many steps, without it the final state"""
    trust: Trust = ()
    """package.module:function of yours that the run names, which may be imported; a run is data and allows nothing"""


def one_run(arguments: list[str], usage: str, description: str, flags_type: type[OneRun] = TrustingRun) -> RunDirectory:
    """Opens the run that a command names, and permits what its `--trust` names.

    Args:
        arguments: of the command.
        usage: the command with its other flags, for help.
        description: text of the help.
        flags_type: dataclass of its flags.

    Returns:
        The directory of the run.
    """
    args = parse(flags_type, arguments, usage, description)
    permit(*getattr(args, "trust", ()))
    from noiseless.files.directory import RunDirectory

    return RunDirectory.open(Path(args.run))


def one_state(
    arguments: list[str], usage: str, description: str, flags_type: type[OneRun] = TrustingRun
) -> StateAddress:
    """The run, and the state of it, that a command names as `RUN` or `RUN@STEP`; see `one_run`."""
    args = parse(flags_type, arguments, usage, description)
    permit(*getattr(args, "trust", ()))
    from noiseless.files.address import StateAddress

    return StateAddress.read(args.run)


def take_recipe(arguments: list[str], command: str = "train") -> tuple[str, list[str]]:
    """Splits off the name of the recipe, which comes before the flags; the default is `fb-regularized`."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    for before, argument in pairwise(arguments):
        if argument in RECIPES and before != "--name":
            flags = [other for other in arguments if other != argument]
            raise ValueError(f"the recipe must come before the flags: noiseless {command} {argument} {' '.join(flags)}")
    return "fb-regularized", arguments


@dataclass(frozen=True)
class Parsed:
    """A config from the command line, and what it was made from."""

    config: Config
    name: str
    """name of the recipe"""
    form: str
    """form of the recipe: `small` or `paper`"""
    flags: list[str]
    """the remaining arguments, without the recipe's name and `--form`"""
    implied: dict[str, Any]
    """flags that follow from the given ones, and their values"""


def parse_config(arguments: list[str], usage: str, description: str, data: str) -> Parsed:
    """Parses `[RECIPE] [--form FORM] [--FLAG VALUE ...]`: a recipe of the ladder with fields replaced.

    Functions of one's own that the flags name are permitted.

    Args:
        arguments: of the command.
        usage: the command with its own arguments, for help.
        description: text of the help, which is followed by the list of recipes.
        data: data set that decides the form where `--data` is not given.

    Returns:
        The config, not resolved.
    """
    name, arguments = take_recipe(arguments, usage.split()[0])
    form, arguments = take(arguments, "--form")
    data_set, _ = take(list(arguments), "--data")
    data_set = data_set and spelled(data_set, ENTRIES)
    form = form or default_form(data_set or data)
    base = row(name, form, data_set)
    arguments = without_shares(arguments, base.schedule.steps)
    config = read_flags(
        arguments,
        Config(base),
        usage,
        f"{description}\n\nRECIPE is one of {', '.join(RECIPES)}. The defaults below are those of {name}.",
    )
    recipe = _named(config.recipe)
    changes = implied(base, recipe, given_flags(arguments).keys())
    permit_functions(recipe.model.name, recipe.data.name)
    return Parsed(replace(config, recipe=with_flags(recipe, **changes)), name, form, arguments, changes)


def _named(recipe: Recipe) -> Recipe:
    """A copy with the names of data set, model and optimizer in their spelling; raises for unknown ones."""
    data, model, optimizer = recipe.data.name, recipe.model.name, recipe.optimizer.name
    data, model = spelled(data, ENTRIES), spelled(model, models := parameters())
    optimizer = spelled(optimizer, USUAL_RATES)
    full_name(data)
    if ":" not in model and model not in models:
        raise UnknownNameError("model", model, (*models, "torchvision:NAME", "timm:NAME", PATTERN))
    if optimizer not in USUAL_RATES:
        from noiseless.optim.registry import optimizer_entry  # a newer torch may have more

        optimizer = optimizer_entry(optimizer).kind.__name__
    return with_flags(recipe, data=data, model=model, optimizer=optimizer)


def spelled(name: str, known: Iterable[str]) -> str:
    """The known name that differs from a name in upper and lower case only; the name itself if there is none."""
    known = tuple(known)
    same = [other for other in known if other.lower() == name.lower()]
    return same[0] if len(same) == 1 and name not in known else name


def take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Splits off a flag.

    Args:
        arguments: of the command.
        flag: its name.

    Returns:
        Its value, or None if it is not given, and the arguments without it.

    Raises:
        ValueError: if no value follows it.
    """
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 == len(arguments):
            raise ValueError(f"{flag} must be followed by a value, but none is given")
        if argument == flag:
            return arguments[position + 1], arguments[:position] + arguments[position + 2 :]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2], arguments[:position] + arguments[position + 1 :]
    return None, arguments


def whole(flag: str, text: str, most: int = MOST) -> int:
    """Parses a whole number of at least 1.

    Args:
        flag: to which it belongs.
        text: of the number.
        most: its largest value.

    Returns:
        The number.

    Raises:
        ValueError: for any other text.
    """
    if not (text.isascii() and text.isdecimal()) or not text.strip("0"):
        raise ValueError(f"{flag} must be a whole number of at least 1, not {shown(text)!r}")
    if len(text.lstrip("0")) > len(str(most)) or int(text) > most:
        raise ValueError(f"{flag} must be a whole number of at most {most:,}, not {shown(text)}")
    return int(text)


def take_count(arguments: list[str], flag: str) -> tuple[int, list[str]]:
    """Splits off a flag whose value is a whole number.

    Args:
        arguments: of the command.
        flag: its name.

    Returns:
        The number, 1 if the flag is not given, and the arguments without the flag.

    Raises:
        ValueError: if the value is not a whole number of at least 1.
    """
    text, arguments = take(arguments, flag)
    return 1 if text is None else whole(flag, text, MOST_WORKERS), arguments


def take_positive(arguments: list[str], flag: str) -> tuple[float | None, list[str]]:
    """Splits off a flag whose value is a positive number.

    Args:
        arguments: of the command.
        flag: its name.

    Returns:
        The number, None if the flag is not given, and the arguments without the flag.

    Raises:
        ValueError: if the value is missing, or is not a positive, finite number.
    """
    text, arguments = take(arguments, flag)
    if text is None:
        return None, arguments
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{flag} must be a positive number such as 4e14, not {shown(text)!r}")
    return number, arguments
