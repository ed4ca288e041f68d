"""Checks of single flags, for the parts of a recipe and for the settings of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable

from noiseless.errors import UnknownNameError, shown
from noiseless.own import PATTERN
from noiseless.printable import printable

MOST = 10**9
"""largest whole number of a flag that has no smaller limit"""
MOST_BUDGET = 1_000_000
"""largest budget of a race, in passes"""
MOST_SEED = 2**64 - 1
"""largest seed"""


def at_least(flag: str, value: float | None, low: float, most: int = MOST) -> None:
    """Refuses a number that is below `low` or not finite, and a whole number that is above `most`; None passes.

    Raises:
        ValueError: naming the flag.
    """
    if value is not None and not low <= value < float("inf"):
        raise ValueError(f"--{flag} must be a finite number of at least {low}, not {shown(value)}")
    at_most(flag, value, most)


def positive(flag: str, value: float | None, most: int = MOST) -> None:
    """Refuses a number that is not positive or not finite, and a whole number that is above `most`; None passes.

    Raises:
        ValueError: naming the flag.
    """
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"--{flag} must be a positive number, not {shown(value)}")
    at_most(flag, value, most)


def at_most(flag: str, value: object, most: int) -> None:
    """Refuses a whole number that is above `most`; other numbers and None pass.

    Raises:
        ValueError: naming the flag.
    """
    if isinstance(value, int) and value > most:
        raise ValueError(f"--{flag} must be a whole number of at most {most:,}, not {shown(value)}")


def below_one(flag: str, value: float | None) -> None:
    """Refuses a number outside `[0, 1)`; None passes.

    Raises:
        ValueError: naming the flag.
    """
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"--{flag} must be a number of at least 0 and below 1, not {value}")


def known_or_code(what: str, name: str, known: Iterable[str]) -> None:
    """Refuses a name that is neither known nor of the form `package.module:name`; nothing is imported.

    Args:
        what: kind of thing.
        name: as given.
        known: the built-in names.

    Raises:
        UnknownNameError: with the most similar names.
    """
    known = tuple(known)
    if name not in known and ":" not in name:
        raise UnknownNameError(what, name, (*known, PATTERN))


def printable_text(flag: str, value: object) -> None:
    """Refuses a text with control characters or line ends, and a tuple with one; other values pass.

    Raises:
        ValueError: naming the flag.
    """
    for text in value if isinstance(value, tuple) else (value,):
        if not isinstance(text, str):
            continue
        if re.search("[\ud800-\udfff]", text):
            raise ValueError(f"--{flag} must be text in UTF-8, which a config can hold, not {text!a}")
        if "\n" in text or printable(text) != text:
            raise ValueError(f"--{flag} must be one line without control characters, not {text!a}")


def without_effect(flag: str, value: object, default: object, needed: str) -> None:
    """Refuses a value other than the default for a flag that does nothing without another flag.

    Args:
        flag: name of the flag.
        value: its value.
        default: its default.
        needed: the flag without which it does nothing.

    Raises:
        ValueError: naming both flags.
    """
    if value != default:
        raise ValueError(f"--{flag} {value} does nothing without {needed}")
