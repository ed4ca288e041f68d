"""The flags of a run, from the dataclasses of its recipe and settings, in the groups in which help shows them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import asdict, field, make_dataclass
from textwrap import dedent
from typing import Annotated, Any, get_type_hints

import tyro

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
"""the flags that matter most, which help shows before all others"""


def read_flags(arguments: list[str], default: Config, usage: str, description: str) -> Config:
    """The config that flags ask for. With `--help`, prints the flags and exits.

    Args:
        arguments: of the command, without those that are no flags of the config.
        default: the config without a flag.
        usage: the command, as help shows it.
        description: what help says of it.

    Returns:
        The default with the given flags in it.
    """
    values = flag_values(default.recipe) | asdict(default.settings)
    hints = {flag: found.type for flag, found in FLAGS.items()} | get_type_hints(Settings)
    texts = help_texts()

    def members(flags: Iterable[str]) -> list[Any]:
        return [
            (flag, Annotated[hints[flag], tyro.conf.arg(help=texts[flag])], field(default=values[flag]))
            for flag in flags
        ]

    groups: dict[str, tuple[type, list[str]]] = {}
    for flag, found in FLAGS.items():
        groups.setdefault(found.part or "recipe", (found.owner, []))[1].append(flag)
    groups["recipe"] = groups.pop("recipe")  # after its parts
    groups["settings"] = (Settings, list(get_type_hints(Settings)))
    shown = members(FIRST)
    for title, (owner, flags) in groups.items():
        kind: Any = make_dataclass(
            "Group", members(f for f in flags if f not in FIRST), namespace={"__doc__": inspect.getdoc(owner)}
        )
        shown.append((f"{title}_group", Annotated[kind, tyro.conf.arg(name=title)], field(default_factory=kind)))
    parsed: Any = tyro.cli(
        make_dataclass("Flags", shown),
        args=arguments,
        prog=f"noiseless {usage}",
        description=description,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    given = {name: getattr(parsed, name) for name in FIRST}
    for title in groups:
        given |= vars(getattr(parsed, f"{title}_group"))
    settings = Settings(**{name: given.pop(name) for name in get_type_hints(Settings)})
    return Config(with_flags(default.recipe, **given), settings)


def help_texts() -> dict[str, str]:
    """The string under the field of each flag of a recipe, and of each setting."""
    texts = {kind: _strings(kind) for kind in dict.fromkeys([*(flag.owner for flag in FLAGS.values()), Settings])}
    return {name: texts[flag.owner][flag.field] for name, flag in FLAGS.items()} | texts[Settings]


def _strings(kind: type) -> dict[str, str]:
    """The strings under the fields of a dataclass, by field."""
    (tree,) = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        above.target.id: " ".join(ast.literal_eval(below.value).split())
        for above, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr)
    }
