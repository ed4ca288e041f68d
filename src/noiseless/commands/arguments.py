"""Parses a recipe with its flags, and single flags that decide the defaults of others."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from noiseless.commands.durations import without_shares
from noiseless.commands.flags import read_flags
from noiseless.commands.models import parameters
from noiseless.commands.parsing import given_flags
from noiseless.data.catalogue import ENTRIES, full_name
from noiseless.errors import UnknownNameError, shown, spelled
from noiseless.own import PATTERN
from noiseless.recipes.checks import MOST, known_or_code
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import FLAGS, OWN, code_in, with_flags
from noiseless.recipes.implied import USUAL_RATES, implied
from noiseless.recipes.ladder import RECIPES, default_form, row
from noiseless.recipes.parts.data import POLICIES
from noiseless.recipes.parts.objective import LOSSES
from noiseless.recipes.recipe import Recipe
from noiseless.trust import is_code, permit

MOST_WORKERS = 1_000_000
"""largest number of workers that can be planned, and of timed rounds"""


def take_recipe(arguments: list[str], command: str = "train") -> tuple[str, list[str]]:
    """Splits off the name of the recipe, which comes before the flags; the default is `fb-regularized`."""
    if arguments and not arguments[0].startswith("-"):
        return spelled(arguments[0], RECIPES), arguments[1:]
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

    Raises:
        ValueError: for a mistake, in one sentence.
    """
    name, arguments = take_recipe(arguments, usage.split()[0])
    written = arguments
    form, arguments = take(arguments, "--form")
    file, arguments = take(arguments, "--config")
    trusted, arguments = take_all(arguments, "--trust")
    for text in trusted:
        if re.fullmatch(r"[\d.]+(e-?\d+)?", text):
            raise ValueError(
                f"--trust {text} names no code; the coefficient of --layer-rate is --trust-coefficient {text}"
            )
    permit(*trusted)
    in_file = _in_file(file)
    data_set = take(list(arguments), "--data")[0] or in_file.get("data")
    data_set = data_set and spelled(data_set, ENTRIES)
    form = form or default_form(data_set or data)
    default = _with_values(row(name, form, data_set), in_file)
    base = default.recipe
    arguments = without_shares(arguments, base.schedule.steps)
    config = read_flags(
        arguments,
        default,
        usage,
        f"{description}\n\nRECIPE is one of {', '.join(RECIPES)}. The defaults below are those of {name}.",
    )
    recipe, given = _named(config.recipe), given_flags(arguments)
    changes = implied(base, recipe, given.keys())
    # a name in the file permits nothing: the file may be somebody else's
    permit(*code_in(recipe, [flag for flag in OWN if flag in given]))
    if is_code(recipe.optimizer.name) and "lr" not in {*given, *in_file}:
        raise ValueError(f"no usual learning rate is known for --optimizer {recipe.optimizer.name}: give --lr")
    flags = take(written, "--form")[1]
    return Parsed(replace(config, recipe=with_flags(recipe, **changes)), name, form, flags, changes)


def _in_file(file: str | None) -> dict[str, Any]:
    """The flags that the file of `--config` sets."""
    if file is None:
        return {}
    from noiseless.files import configfile  # imports a reader of YAML

    return configfile.read(Path(file))


def _with_values(recipe: Recipe, values: dict[str, Any]) -> Config:
    """The config of a recipe with the values of a file, and with what follows from them."""
    given = {flag: value for flag, value in values.items() if flag in FLAGS}
    changed = _named(with_flags(recipe, **given)) if given else recipe
    settings = {name: value for name, value in values.items() if name not in FLAGS}
    return Config(with_flags(changed, **implied(recipe, changed, given)), Settings(**settings))


def _named(recipe: Recipe) -> Recipe:
    """A copy with the names of data set, model, loss and the like in their spelling; raises for unknown ones."""
    data, model, optimizer = recipe.data.name, recipe.model.name, recipe.optimizer.name
    loss, policy = spelled(recipe.objective.loss, LOSSES), spelled(recipe.data.policy, POLICIES)
    known_or_code("loss", loss, LOSSES)
    known_or_code("policy", policy, POLICIES)
    for transform in recipe.transforms.transform:
        known_or_code("transform", transform, ())
    data, model = spelled(data, ENTRIES), spelled(model, models := parameters())
    optimizer = spelled(optimizer, USUAL_RATES)
    full_name(data)
    if ":" not in model and model not in models:
        raise UnknownNameError("model", model, (*models, "torchvision:NAME", "timm:NAME", PATTERN))
    if ":" not in optimizer and optimizer not in USUAL_RATES:
        optimizer = spelled(optimizer, names := optimizer_names())
        known_or_code("optimizer", optimizer, names)
    return with_flags(recipe, data=data, model=model, optimizer=optimizer, loss=loss, policy=policy)


def optimizer_names() -> list[str]:
    """The names of all optimizers, without importing torch where nothing has imported it yet."""
    if registry := sys.modules.get("noiseless.optim.registry"):  # a program may have registered its own
        names: list[str] = registry.optimizer_names()
        return names
    spec = importlib.util.find_spec("torch")  # finds it without importing it
    place = Path(spec.origin).parent if spec and spec.origin else None
    source = place and place / "optim" / "__init__.py"
    tree = ast.parse(source.read_text() if source and source.exists() else "")  # a newer torch may have more
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    return sorted({*USUAL_RATES, *(name for name in imported - {"Optimizer"} if name[0].isupper())})


def take_all(arguments: list[str], flag: str) -> tuple[list[str], list[str]]:
    """Splits off a flag that may be given several times.

    Args:
        arguments: of the command.
        flag: its name.

    Returns:
        Its values, and the arguments without it.
    """
    values: list[str] = []
    while (taken := take(arguments, flag))[0] is not None:
        values.append(taken[0])
        arguments = taken[1]
    return values, arguments


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
