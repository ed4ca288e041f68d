"""Configs that a user writes: YAML or JSON with the structure of `config.json`, of which parts may be left out.

The file is data: it is read with limits, each value has the type of its flag, and it permits no code. Places and
trackers (`run_dir`, `data_dir`, `tensorboard`, `wandb`) in it are left out: the command line says where to write, and
to whom to send.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from noiseless.plain import SEAL, NotPlainError, parse, read_file, typed, what
from noiseless.recipes.config import Settings
from noiseless.recipes.flags import FLAGS

LARGEST = 2**20
"""bytes of a file"""
LEFT_OUT = ("run_dir", "data_dir", "tensorboard", "wandb")
"""settings that are not taken from a file"""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Plain YAML 1.2: no aliases, no key twice, `1e-3` is a number, and `off` and dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  as in the class above

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise NotPlainError("it has an alias (*name), which is not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise NotPlainError(f"it has the key {str(key)[:40]!r} twice")
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False", "tfTF"),
    ("null", r"~|null|None|", ["~", "n", "N", ""]),
    ("int", r"[-+]?\d+", "-+0123456789"),
    ("float", r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _whole(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _float(node.value))


def _whole(text: str) -> int:
    if len(text) > 30:
        raise NotPlainError(f"it holds the whole number {text[:10]}... of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise NotPlainError(f"it holds {text}, which is not a finite number")
    return value


def read(path: Path) -> dict[str, Any]:
    """The flags that a config file sets.

    Args:
        path: of the file; one that ends in .json, or begins with a brace, is JSON, any other is YAML.

    Returns:
        Flag, with underscores -> value.

    Raises:
        ValueError: naming the file, and what is wrong in it.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise ValueError(f"--config {path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise ValueError(f"--config {path} has {len(content):,} bytes, more than {LARGEST:,}")
    try:
        is_json = path.suffix == ".json" or content.lstrip().startswith(b"{")
        return _flags(parse(content if is_json else _plain(content)))
    except NotPlainError as error:
        raise ValueError(f"--config {path} cannot be read: {error}") from None


def _plain(content: bytes) -> str:
    """The JSON text of a YAML document."""
    try:
        return json.dumps(yaml.load(content.decode(), _Loader))  # noqa: S506  a SafeLoader with limits
    except NotPlainError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise NotPlainError(f"it is not YAML ({error.problem or error.context}{line})") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise NotPlainError(f"it is not plain YAML ({' '.join(str(error).split())[:100] or 'too deep'})") from None


def _flags(values: Any) -> dict[str, Any]:
    """The flags that the values of a config set."""
    flags: dict[str, Any] = {}
    groups = _mapping(values, "it")
    groups.pop(SEAL, None)  # of a config.json, which may have been edited
    _refuse_unknown(groups, ("recipe", "settings"), "it")
    by_place = {(flag.part, flag.field): (name, flag.type) for name, flag in FLAGS.items()}
    parts = {part for part, _ in by_place if part}
    recipe = _mapping(groups.get("recipe"), "recipe")
    _refuse_unknown(recipe, [*parts, *(field for part, field in by_place if part is None)], "recipe")
    for name, value in recipe.items():
        fields = _mapping(value, f"recipe.{name}") if name in parts else {name: value}
        part = name if name in parts else None
        _refuse_unknown(fields, [field for of, field in by_place if of == part], f"recipe.{name}")
        for field, content in fields.items():
            flag, kind = by_place[part, field]
            flags[flag] = typed(kind, content, f"recipe.{part}.{field}" if part else f"recipe.{field}")
    hints = get_type_hints(Settings)
    settings = _mapping(groups.get("settings"), "settings")
    _refuse_unknown(settings, hints, "settings")
    for name, value in settings.items():
        if name not in LEFT_OUT:
            flags[name] = typed(hints[name], value, f"settings.{name}")
    return flags


def _place(name: str, value: Any) -> str | None:
    """Where a flag or a part of a recipe with this value stands in a file; None for another name."""
    if name in FLAGS and not isinstance(value, dict):
        flag = FLAGS[name]
        return f"recipe: {flag.part + ': ' if flag.part else ''}{flag.field}"
    if any(flag.part == name for flag in FLAGS.values()):
        return f"recipe: {name}"
    return f"settings: {name}" if name in get_type_hints(Settings) else None


def _mapping(value: Any, name: str) -> dict[str, Any]:
    """Values by name; an empty part is none."""
    if value is not None and not isinstance(value, dict):
        raise NotPlainError(f"{name} must be values by name, not {what(value)}")
    return dict(value or {})


def _refuse_unknown(values: dict[str, Any], known: Any, name: str) -> None:
    """Raises for a name that is not known, with the place where it belongs or the name that is most like it."""
    for key, value in values.items():
        if key in known:
            continue
        if place := _place(key, value):
            raise NotPlainError(f"{name} has {key!r}, which belongs elsewhere: {place}")
        near = difflib.get_close_matches(key, list(known), n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it may have {', '.join(sorted(known))}"
        raise NotPlainError(f"{name} has {key[:40]!r}, which is not known{hint}")
