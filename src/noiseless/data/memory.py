"""Whether something fits into this machine's memory, known before the memory is asked for."""

from __future__ import annotations

import os

from noiseless.data.progress import size


def refuse_beyond_memory(what: str, count: int, remedy: str) -> None:
    """Raises if something needs more memory than this machine has.

    Args:
        what: would be in memory.
        count: its bytes.
        remedy: what to do instead.

    Raises:
        ValueError: with both sizes.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if count > total:
        raise ValueError(f"{what} would take {size(count)} of memory, and this machine has {size(total)}: {remedy}")
