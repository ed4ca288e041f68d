"""Whether something fits into the memory that is free on this machine, known before the memory is asked for."""

from __future__ import annotations

from noiseless.data.progress import size
from noiseless.system import free_memory


def refuse_beyond_memory(what: str, count: int, remedy: str) -> None:
    """Raises if something needs more memory than is free.

    Args:
        what: would be in memory.
        count: its bytes.
        remedy: what to do instead.

    Raises:
        ValueError: with both sizes.
    """
    free = free_memory()
    if free is not None and count > free:
        raise ValueError(f"{what} would take {size(count)} of memory, and {size(free)} are free: {remedy}")
