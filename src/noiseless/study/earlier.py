"""Reads the settings that an earlier race chose, from its `choices.json`, so that another race need not tune them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noiseless.plain import parse, read_file

AXES = {"lr": "rate", "weight_decay": "decay", "block": "block", "norm_block": "norm block"}
"""fields of a recipe that a tuning grid varies, and their names in messages"""
GRID_FIELDS = tuple(AXES)
"""these fields alone"""
Chosen = Mapping[str, Any]
"""an element of the file: contender, passes, setting (a value for each of `GRID_FIELDS`), at_edge (as in
`Choice.at_edge`), trials"""


def read(path: Path) -> dict[tuple[str, int], Chosen]:
    """Reads the choices of a race.

    Args:
        path: its `choices.json`.

    Returns:
        (contender, budget in passes at which it was tuned) -> element of the file.

    Raises:
        ValueError: if the file cannot be read, or is not the choices of a race.
    """
    try:
        elements = parse(read_file(path))
        choices = {(str(element["contender"]), int(element["passes"])): element for element in elements}
        for element in elements:
            _refuse_setting(element["setting"])
            _refuse_ends(element["at_edge"])
    except OSError as error:
        raise ValueError(f"--choices {path} cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"--choices {path} is not the choices.json of a race ({error!r})") from None
    return choices


def find(choices: Mapping[tuple[str, int], Chosen], contender: str, budget: int) -> Chosen | None:
    """Finds the choice of a contender that was tuned at a budget.

    Args:
        choices: from `read`.
        contender: its name.
        budget: in passes.

    Returns:
        The element of the file; None where the file does not have the contender.

    Raises:
        ValueError: if the file has the contender at other budgets only.
    """
    budgets = [passes for name, passes in choices if name == contender]
    if budgets and budget not in budgets:
        raise ValueError(
            f"--choices has a setting of {contender} at {', '.join(map(str, budgets))} passes, not at {budget}: give"
            " --tune-at one of its budgets, or leave out --choices"
        )
    return choices.get((contender, budget))


def _refuse_setting(values: Mapping[str, Any]) -> None:
    """Raises unless each field of a grid has a value of its type. Whether it suits a recipe is checked by the run."""
    if set(values) != set(GRID_FIELDS):
        raise ValueError(f"a setting has {', '.join(GRID_FIELDS)}, not {', '.join(values)}")
    for name, value in values.items():
        kinds = (int, float) if name in ("lr", "weight_decay") else (int,)
        if not (value is None and name == "norm_block") and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise ValueError(f"{name} {value!r}")


def _refuse_ends(at_edge: Mapping[str, str]) -> None:
    """Raises unless each key is a field of a grid and each value is `smallest` or `largest`."""
    for name, end in dict(at_edge).items():
        if name not in AXES or end not in ("smallest", "largest"):
            raise ValueError(f"at_edge has {name!r}: {end!r}")
