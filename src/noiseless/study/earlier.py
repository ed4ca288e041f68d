"""Settings that an earlier race has chosen, from its `choices.json`: another race takes them and tunes only others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AXES = {"lr": "rate", "weight_decay": "decay", "block": "block", "norm_block": "norm block"}
"""fields of a recipe that a grid sets, and how they are called"""
SET = tuple(AXES)
Chosen = Mapping[str, Any]
"""an element of the file: contender, passes, setting (a value for each of `SET`), at_edge (`Choice.at_edge`), trials"""


def read(path: Path) -> dict[tuple[str, int], Chosen]:
    """What a race has chosen.

    Args:
        path: of its `choices.json`.

    Returns:
        By contender and the budget of passes at which it was tuned, the elements of the file.

    Raises:
        ValueError: if the file is not there, or is no such file.
    """
    try:
        elements = json.loads(path.read_text())
        found = {(str(each["contender"]), int(each["passes"])): each for each in elements}
        for each in elements:
            _refuse(each["setting"])
            _refuse_ends(each["at_edge"])
    except OSError as error:
        raise ValueError(f"--choices {path} cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--choices {path} is not the choices.json of a race ({error!r})") from None
    return found


def of(found: Mapping[tuple[str, int], Chosen], contender: str, budget: int) -> Chosen | None:
    """What was chosen for a contender.

    Args:
        found: as `read` gives it.
        contender: its name.
        budget: passes at which it was to be tuned.

    Returns:
        The element of the file; None where the contender is not in it.

    Raises:
        ValueError: if the file has it at other budgets only.
    """
    budgets = [passes for name, passes in found if name == contender]
    if budgets and budget not in budgets:
        raise ValueError(
            f"--choices has a setting of {contender} at {', '.join(map(str, budgets))} passes, not at {budget}: give"
            " --tune-at a budget that it has, or leave --choices out"
        )
    return found.get((contender, budget))


def _refuse(values: Mapping[str, Any]) -> None:
    """Raises unless the values are a setting: that they suit a recipe is checked where it is run."""
    if set(values) != set(SET):
        raise ValueError(f"a setting has {', '.join(SET)}, not {', '.join(values)}")
    for name, value in values.items():
        kinds = (int, float) if name in ("lr", "weight_decay") else (int,)
        if not (value is None and name == "norm_block") and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise ValueError(f"{name} {value!r}")


def _refuse_ends(at_edge: Mapping[str, str]) -> None:
    """Raises unless each value says at which end of its grid a field is."""
    for name, end in dict(at_edge).items():
        if name not in AXES or end not in ("smallest", "largest"):
            raise ValueError(f"at_edge has {name!r}: {end!r}")
