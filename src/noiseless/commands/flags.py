"""Builds the flags of a run from the dataclasses of its recipe and settings, in groups for the help."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import asdict, field, make_dataclass
from textwrap import dedent
from typing import Annotated, Any, get_type_hints

import tyro

from noiseless.commands.parsing import parse
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
"""the most important flags, which help lists first"""


def read_flags(arguments: list[str], default: Config, usage: str, description: str) -> Config:
    """Parses the flags of a config. With `--help`, prints them and exits.

    Args:
        arguments: of the command, without those that are not flags of the config.
        default: config that has the values of flags that are not given.
        usage: the command with its other arguments, for help.
        description: text of the help.

    Returns:
        The default with the given flags replaced.
    """
    values = flag_values(default.recipe) | asdict(default.settings)
    hints = {name: flag.type for name, flag in FLAGS.items()} | get_type_hints(Settings)
    texts = help_texts()

    def members(names: Iterable[str]) -> list[Any]:
        return [
            (name, Annotated[hints[name], tyro.conf.arg(help=texts[name])], field(default=values[name]))
            for name in names
        ]

    groups: dict[str, tuple[type, list[str]]] = {}
    for name, flag in FLAGS.items():
        groups.setdefault(flag.part or "recipe", (flag.owner, []))[1].append(name)
    groups["recipe"] = groups.pop("recipe")  # listed after its parts
    groups["settings"] = (Settings, list(get_type_hints(Settings)))
    shown = members(FIRST)
    for title, (owner, names) in groups.items():
        group: Any = make_dataclass(
            "Group", members(n for n in names if n not in FIRST), namespace={"__doc__": inspect.getdoc(owner)}
        )
        shown.append((f"{title}_group", Annotated[group, tyro.conf.arg(name=title)], field(default_factory=group)))
    args: Any = parse(make_dataclass("Flags", shown), arguments, usage, description, flat=True)
    flags = {name: getattr(args, name) for name in FIRST}
    for title in groups:
        flags |= vars(getattr(args, f"{title}_group"))
    settings = Settings(**{name: flags.pop(name) for name in get_type_hints(Settings)})
    return Config(with_flags(default.recipe, **flags), settings)


def help_texts() -> dict[str, str]:
    """Help text of each flag: the string under its field in the dataclass of a recipe's part or of the settings."""
    texts = {kind: _strings(kind) for kind in dict.fromkeys([*(flag.owner for flag in FLAGS.values()), Settings])}
    return {name: texts[flag.owner][flag.field] for name, flag in FLAGS.items()} | texts[Settings]


def _strings(kind: type) -> dict[str, str]:
    """The string under each field of a dataclass, by the name of the field."""
    (tree,) = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        above.target.id: " ".join(ast.literal_eval(below.value).split())
        for above, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr)
    }
