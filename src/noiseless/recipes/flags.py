"""The flags of a recipe: each names one field of the recipe or of one of its parts.

A flag has the name of its field. Only `name` and `options` occur in several parts: there the flags are `--data`,
`--model`, `--optimizer`, `--schedule`, and `--model-options`, `--optimizer-options`. And `trust` is set by
`--trust-coefficient`, because `--trust` names code that may be imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, get_type_hints

from noiseless.errors import UnknownNameError
from noiseless.recipes.recipe import Recipe
from noiseless.trust import is_code


@dataclass(frozen=True)
class Flag:
    """The field that a flag sets."""

    part: str | None
    """name of the recipe's part that has the field; None: the recipe itself"""
    field: str
    """name of the field"""
    owner: type
    """the dataclass that has the field"""
    type: Any
    """type of the field"""


OWN = {
    "model": "model",
    "data": "data set",
    "loss": "loss",
    "optimizer": "optimizer",
    "policy": "policy",
    "transform": "transform",
}
"""flag that may have a name `package.module:name` -> what it names"""


def _flags() -> dict[str, Flag]:
    flags: dict[str, Flag] = {}
    for name, kind in get_type_hints(Recipe).items():
        if not (isinstance(kind, type) and is_dataclass(kind)):
            flags[name] = Flag(None, name, Recipe, kind)
            continue
        for field, type_ in get_type_hints(kind).items():
            flag = {"name": name, "options": f"{name}_options", "trust": "trust_coefficient"}.get(field, field)
            assert flag not in flags, flag
            flags[flag] = Flag(name, field, kind, type_)
    return flags


FLAGS: Mapping[str, Flag] = _flags()
"""all flags by name, with underscores, in the order of the recipe's fields"""


def flag_value(recipe: Recipe, flag: str) -> Any:
    """The value of a flag in a recipe."""
    part = FLAGS[flag].part
    return getattr(getattr(recipe, part) if part else recipe, FLAGS[flag].field)


def flag_values(recipe: Recipe) -> dict[str, Any]:
    """The values of all flags of a recipe, in the order of its fields: flag -> value."""
    return {flag: flag_value(recipe, flag) for flag in FLAGS}


def with_flags(recipe: Recipe, **values: Any) -> Recipe:
    """A copy of a recipe with other values for some flags: `with_flags(recipe, lr=0.1, block=32, model="resnet18")`.

    Args:
        recipe: to copy.
        **values: flag, with underscores -> value.

    Returns:
        The copy.

    Raises:
        UnknownNameError: for an unknown flag, with the nearest names.
    """
    changes: dict[str, Any] = {}
    by_part: dict[str, dict[str, Any]] = {}
    for flag, value in values.items():
        if flag not in FLAGS:
            raise UnknownNameError("flag", flag, FLAGS)
        part = FLAGS[flag].part
        (by_part.setdefault(part, {}) if part else changes)[FLAGS[flag].field] = value
    changed_parts = {part: replace(getattr(recipe, part), **new) for part, new in by_part.items()}
    return replace(recipe, **changes, **changed_parts)


def differing(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """The flags in which two recipes differ: flag -> (value of the first, value of the second)."""
    pairs = {flag: (flag_value(first, flag), flag_value(second, flag)) for flag in FLAGS}
    return {flag: pair for flag, pair in pairs.items() if pair[0] != pair[1]}


def code_in(recipe: Recipe, flags: Iterable[str] = tuple(OWN)) -> dict[str, str]:
    """The functions and classes of somebody's own that a recipe names: `package.module:name` -> what it is.

    Args:
        recipe: resolved or not.
        flags: those of `OWN` that count.

    Returns:
        The names, in the order of the flags.
    """
    names: dict[str, str] = {}
    for flag in flags:
        value = flag_value(recipe, flag)
        names |= {name: OWN[flag] for name in (value if isinstance(value, tuple) else (value,)) if is_code(name)}
    return names
