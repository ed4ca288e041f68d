"""Texts of fields for `help()`: the string under a field becomes a line of the class's docstring. Lowest layer."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
import textwrap
from typing import TypeVar

C = TypeVar("C", bound=type)


def documented(cls: C) -> C:
    """Adds a section `Attributes` with the fields' texts to the docstring of a class, for `help` and `?`.

    Texts of the fields of base classes are in it, too. Without the source there is no section.

    Returns:
        The class itself.
    """
    texts: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        if part.__module__.partition(".")[0] == __name__.partition(".")[0] and "__annotations__" in vars(part):
            texts |= field_texts(part)
    fields = {name: text for name, text in texts.items() if name in getattr(cls, "__dataclass_fields__", texts)}
    if fields:
        head, raises, tail = (inspect.cleandoc(cls.__doc__ or "")).partition("\nRaises:")
        lines = "\n".join(_line(name, text) for name, text in fields.items())
        cls.__doc__ = f"{head.rstrip()}\n\nAttributes:\n{lines}\n" + (f"{raises}{tail}" if raises else "")
    return cls


def field_texts(cls: type) -> dict[str, str]:
    """The strings under the fields of a class, by name, each in one line.

    Returns:
        The texts; empty if the source of the class cannot be read.
    """
    definition = _classes(cls.__module__).get(cls.__name__)
    texts = {}
    body = definition.body if definition else []
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            value = after.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts[field.target.id] = " ".join(value.value.split())
    return texts


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The definitions of a module's classes, by name; empty without its source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, SyntaxError):
        return {}
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _line(name: str, text: str) -> str:
    return textwrap.fill(f"{name}: {text}", 100, initial_indent="    ", subsequent_indent="        ")
