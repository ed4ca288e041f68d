"""Patterns of parameter names, and numbers by pattern: which parameters are frozen, and how fast the others move."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

NEAR = 4
"""number of similar names that an error lists"""


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of `fnmatch` matches a parameter's name, or that of a module which holds the parameter."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def matched(flag: str, patterns: Iterable[str], names: Sequence[str]) -> set[str]:
    """The names that at least one of some patterns matches.

    Args:
        flag: with its hyphens, for errors.
        patterns: of parameter names.
        names: of all parameters.

    Returns:
        The matching names.

    Raises:
        ValueError: for a pattern that matches none, with the names that are near it.
    """
    matching: set[str] = set()
    for pattern in patterns:
        here = {name for name in names if matches(pattern, name)}
        if not here:
            raise ValueError(f"{flag} {pattern!r} matches no parameter of the model{_hint(pattern, names)}")
        matching |= here
    return matching


def first_factors(
    flag: str, factors: Mapping[str, float], names: Sequence[str], frozen: Collection[str] = ()
) -> dict[str, float]:
    """The factor of each name: that of the first pattern that matches it, 1 if none does.

    Args:
        flag: with its hyphens, for errors.
        factors: by pattern, in the order in which the patterns are tried.
        names: of the trainable parameters.
        frozen: names of the other parameters.

    Returns:
        Factor by name.

    Raises:
        ValueError: for a pattern that decides about no trainable parameter, with the reason.
    """
    decided: dict[str, float] = {}
    for pattern, factor in factors.items():
        here = [name for name in names if matches(pattern, name)]
        new = [name for name in here if name not in decided]
        if not new:
            if here:
                reason = "only parameters that patterns before it match: the first one decides, so put it before them"
            elif any(matches(pattern, name) for name in frozen):
                reason = "only parameters that are frozen: leave it out"
            else:
                reason = f"no parameter of the model{_hint(pattern, names)}"
            raise ValueError(f"{flag} {pattern!r} matches {reason}")
        decided |= dict.fromkeys(new, factor)
    return {name: decided.get(name, 1.0) for name in names}


def read_factors(flag: str, text: str) -> dict[str, float]:
    """Parses `PATTERN=FACTOR,PATTERN=FACTOR`.

    Args:
        flag: with its hyphens, for errors.
        text: empty, or patterns with positive numbers.

    Returns:
        Factor by pattern, in the order of the text.

    Raises:
        ValueError: for text of another form, a pattern that comes twice, or a factor that is not positive and finite.
    """
    factors: dict[str, float] = {}
    for part in text.split(",") if text.strip() else ():
        pattern, equals, number = (word.strip() for word in part.rpartition("="))
        if not (pattern and equals and number):
            raise ValueError(f"{flag} must be PATTERN=FACTOR,PATTERN=FACTOR, such as fc=1,*=0.1, not {text!r}")
        try:
            factor = float(number)
        except ValueError:
            raise ValueError(f"{flag} {pattern}: the factor must be a number, not {number!r}") from None
        if not 0 < factor < math.inf:
            advice = ": use --freeze for parameters that are not to move" if factor == 0 else ""
            raise ValueError(f"{flag} {pattern}: the factor must be a positive number, not {number}{advice}")
        if pattern in factors:
            raise ValueError(f"{flag} has {pattern!r} twice: give it once")
        factors[pattern] = factor
    return factors


def written_factors(factors: Mapping[str, float]) -> str:
    """The text that `read_factors` parses."""
    return ",".join(f"{pattern}={factor!r}" for pattern, factor in factors.items())


def _hint(pattern: str, names: Iterable[str]) -> str:
    """The names of parameters and modules that are like a pattern; without such names, the modules of the model."""
    modules: dict[str, None] = {}
    for name in names:
        modules |= dict.fromkeys(_above(name))
    plain = pattern.strip("*.")
    near = difflib.get_close_matches(plain, modules, n=NEAR, cutoff=0.6)
    inside = [name for name in modules if plain and name.endswith(f".{plain}")]
    listed = list(dict.fromkeys([*inside[:NEAR], *near]))[:NEAR]
    if listed:
        return f"; near it are {', '.join(listed)}"
    top = list(dict.fromkeys(name.partition(".")[0] for name in modules))
    return f"; it has {', '.join(top[:12])}{', ...' if len(top) > 12 else ''}"


def _above(name: str) -> list[str]:
    """The names of the modules that hold a parameter, and its own."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
