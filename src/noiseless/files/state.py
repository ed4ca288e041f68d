"""The parts of the state in a run's checkpoint, with their types. A file whose digests fit may still hold anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from noiseless.errors import out_of_memory, reason
from noiseless.objective.workers import WorkerLostError


def _is_tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(t, Tensor) for k, t in value.items())


def _is_questions(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"vectors", "start"}:
        return False
    return _is_tensors(value["vectors"]) and (value["start"] is None or isinstance(value["start"], Tensor))


PARTS: dict[str, Callable[[Any], bool]] = {
    "model": _is_tensors,
    "average": lambda value: value is None or _is_tensors(value),
    "optimizer": lambda value: isinstance(value, dict),
    "transforms": lambda value: value is None or isinstance(value, dict),
    "passes": lambda value: type(value) in (int, float) and 0 <= value < math.inf,
    "perfect": lambda value: type(value) is int and value >= 0,
    "questions": _is_questions,
}
"""name of each part -> whether a value can be that part"""
UNFIT = (KeyError, TypeError, AttributeError, IndexError, OverflowError, RuntimeError)
"""what the use of another run's state can raise"""


def refuse_other_parts(state: Any) -> None:
    """Raises unless a state has the parts that a run writes.

    Args:
        state: as read from a checkpoint.

    Raises:
        ValueError: naming the parts that are missing or of another type.
    """
    if not isinstance(state, dict):
        raise ValueError("it holds no state of a run")
    wrong = [name for name, fits in PARTS.items() if name not in state or not fits(state[name])]
    if wrong:
        raise ValueError(f"its {', '.join(wrong)} is missing or of another type than a run writes")


@contextmanager
def restored_from(source: object) -> Iterator[None]:
    """A context for the use of a state that was read: what a state of another run raises becomes one error.

    Args:
        source: file or directory of the state, for the error.

    Yields:
        Nothing.

    Raises:
        ValueError: naming the source, if the code in the context fails because of the state.
    """
    try:
        yield
    except UNFIT as error:
        if isinstance(error, WorkerLostError) or out_of_memory(error):
            raise
        raise ValueError(
            f"{source} does not hold a state of this run's model and optimizer ({reason(error)}): restore it from a"
            " copy, or remove this checkpoint to go on from the one before"
        ) from error
