"""Arguments that several commands share, or that decide the defaults of others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from noiseless.commands.flags import read_flags
from noiseless.recipes.config import Config
from noiseless.recipes.ladder import RECIPES, default_form, row

if TYPE_CHECKING:
    from noiseless.files.directory import RunDirectory


@dataclass(frozen=True)
class OneRun:
    """The directory of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """directory of the run, as noiseless train has printed it"""


def one_run(arguments: list[str], command: str) -> RunDirectory:
    """The run that the one argument of a command names."""
    asked = tyro.cli(OneRun, args=arguments, prog=f"noiseless {command}")
    from noiseless.files.directory import RunDirectory

    return RunDirectory.open(Path(asked.run))


def take_recipe(arguments: list[str], command: str = "train") -> tuple[str, list[str]]:
    """The recipe's name, which stands before the flags, and the arguments without it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    for before, argument in pairwise(arguments):
        if argument in RECIPES and before != "--name":
            rest = [each for each in arguments if each != argument]
            raise ValueError(f"the recipe comes before the flags: noiseless {command} {argument} {' '.join(rest)}")
    return "fb-regularized", arguments


@dataclass(frozen=True)
class Parsed:
    """The config that arguments ask for, and what it was made from."""

    config: Config
    name: str
    """of the recipe"""
    form: str
    """in which it was taken: small or paper"""
    flags: list[str]
    """the others"""


def parse_config(arguments: list[str], usage: str, description: str, data: str) -> Parsed:
    """Reads `[RECIPE] [--form FORM] [--FLAG VALUE ...]`: a row of the ladder with fields replaced.

    Args:
        arguments: of the command.
        usage: the command, as help shows it.
        description: what help says of it.
        data: the data set that is meant where none is given, which decides the form.

    Returns:
        The config, not resolved.
    """
    name, arguments = take_recipe(arguments, usage.split()[0])
    form, arguments = take(arguments, "--form")
    given, _ = take(list(arguments), "--data")
    form = form or default_form(given or data)
    config = read_flags(
        arguments,
        Config(row(name, form, given)),
        usage,
        f"RECIPE is one of {', '.join(RECIPES)}; defaults below are those of {name}. {description}",
    )
    return Parsed(config, name, form, arguments)


def take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag that decides the defaults of others, and the arguments without it."""
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1], arguments[:position] + arguments[position + 2 :]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2], arguments[:position] + arguments[position + 1 :]
    return None, arguments


def take_count(arguments: list[str], flag: str) -> tuple[int, list[str]]:
    """The whole number that a flag has, 1 without it, and the arguments without it.

    Args:
        arguments: of the command.
        flag: its name.

    Returns:
        The number, and the other arguments.

    Raises:
        ValueError: if it is no whole number of at least 1.
    """
    text, arguments = take(arguments, flag)
    if text is not None and (not text.isdecimal() or int(text) < 1):
        raise ValueError(f"{flag} must be a whole number of at least 1, not {text!r}")
    return int(text or 1), arguments


def take_positive(arguments: list[str], flag: str) -> tuple[float | None, list[str]]:
    """The positive number that a flag has, and the arguments without it.

    Args:
        arguments: of the command.
        flag: its name.

    Returns:
        The number, None without the flag, and the other arguments.

    Raises:
        ValueError: if it is no positive, finite number.
    """
    if arguments[-1:] == [flag]:
        raise ValueError(f"{flag} must be a positive number such as 4e14, and none is given")
    text, arguments = take(arguments, flag)
    if text is None:
        return None, arguments
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{flag} must be a positive number such as 4e14, not {text!r}")
    return number, arguments
