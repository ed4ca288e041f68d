"""Builds the flags of a run from the dataclasses of its recipe and settings, in groups for the help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, make_dataclass, replace
from typing import Annotated, Any, get_type_hints

import tyro

from noiseless.commands.parsing import given_flags, parse, unknown_flag
from noiseless.documented import field_texts
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import FLAGS, flag_values, with_flags

FIRST = (
    "data",
    "model",
    "steps",
    "lr",
    "block",
    "optimizer",
    "weight_decay",
    "penalty",
    "clip",
    "augment",
    "seed",
    "run_dir",
)
"""the twelve most important flags: those of `--help`, and the first of `--help-all`"""
REPEATED = ("--freeze", "--transform", "--transform-options")
"""flags of several values that may also be given once for each value"""
HELP = frozenset({"-h", "--help"})
ALL = "--help-all"


def read_flags(arguments: list[str], default: Config, usage: str, description: str) -> Config:
    """Parses the flags of a config. With `--help` or `--help-all`, prints them and exits.

    Args:
        arguments: of the command, without those that are not flags of the config.
        default: config that has the values of flags that are not given.
        usage: the command with its other arguments, for help.
        description: text of the help.

    Returns:
        The default with the given flags replaced.

    Raises:
        ValueError: for a mistake, in one sentence.
    """
    values = flag_values(default.recipe) | asdict(default.settings)
    for flag in REPEATED:
        arguments = _together(arguments, flag)
    args: Any
    if ALL in arguments:
        args = parse(_groups(values), ["--help"], usage, description, flat=True)
    elif HELP.intersection(arguments):
        description += f"\n\nThese are the flags that matter most; {ALL} has all of them, by part."
        args = parse(make_dataclass("Flags", _members(FIRST, values)), ["--help"], usage, description)
    else:
        given = [name if name in values else name.removeprefix("no_") for name in given_flags(arguments)]
        for name in given:
            if name not in values:
                known = [
                    *(other.replace("_", "-") for other in values),
                    *re.findall(r"--([a-z-]+)", f"{usage} --help {ALL}"),
                ]
                problem = unknown_flag(f"--{name.replace('_', '-')}", known)
                raise ValueError(f"{problem}noiseless {usage.split()[0]} {ALL} explains each flag")
        kind = make_dataclass("Flags", _members(dict.fromkeys(given), values))  # alone, as the parser is slow
        args = parse(kind, arguments, usage, "", all_flags=ALL)
    flags = dict(vars(args))
    settings = {name: flags.pop(name) for name in get_type_hints(Settings) if name in flags}
    return Config(with_flags(default.recipe, **flags), replace(default.settings, **settings))


def _together(arguments: list[str], flag: str) -> list[str]:
    """The arguments with the values of a flag that may be repeated after one flag; without values, it stays alone."""
    rest: list[str] = []
    values: list[str] = []
    inside = False
    for argument in arguments:
        inside = argument == flag or (inside and not argument.startswith("--"))
        if argument.startswith(f"{flag}="):
            values.append(argument.partition("=")[2])
        elif not inside:
            rest.append(argument)
        elif argument != flag:
            values.append(argument)
    return [*rest, *([flag, *values] if values or flag in arguments else [])]


def _members(names: Iterable[str], values: Mapping[str, Any]) -> list[Any]:
    """The fields of a dataclass for the parser: flags with their types, help texts and defaults."""
    hints = {name: flag.type for name, flag in FLAGS.items()} | get_type_hints(Settings)
    return [
        (name, Annotated[hints[name], tyro.conf.arg(help=_texts(name))], field(default=values[name])) for name in names
    ]


def _groups(values: Mapping[str, Any]) -> type:
    """The dataclass of all flags: the most important ones, then a group for each part of a config."""
    groups: dict[str, tuple[type, list[str]]] = {}
    for name, flag in FLAGS.items():
        groups.setdefault(flag.part or "recipe", (flag.owner, []))[1].append(name)
    groups["recipe"] = groups.pop("recipe")  # listed after its parts
    groups["settings"] = (Settings, list(get_type_hints(Settings)))
    shown = _members(FIRST, values)
    for title, (owner, names) in groups.items():
        rest = _members((name for name in names if name not in FIRST), values)
        group: Any = make_dataclass("Group", rest, namespace={"__doc__": inspect.getdoc(owner)})
        shown.append((f"{title}_group", Annotated[group, tyro.conf.arg(name=title)], field(default_factory=group)))
    return make_dataclass("Flags", shown)


def _texts(name: str) -> str:
    """Help text of a flag."""
    flag = FLAGS.get(name)
    return field_texts(flag.owner)[flag.field] if flag else field_texts(Settings)[name]


def help_texts() -> dict[str, str]:
    """Help text of each flag: the string under its field in the dataclass of a recipe's part or of the settings."""
    return {name: _texts(name) for name in (*FLAGS, *get_type_hints(Settings))}
