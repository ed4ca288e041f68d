"""Whether something fits into the memory that is free on this machine, known before the memory is asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from noiseless.data.progress import size


def refuse_beyond_memory(what: str, count: int, remedy: str) -> None:
    """Raises if something needs more memory than is free.

    Args:
        what: would be in memory.
        count: its bytes.
        remedy: what to do instead.

    Raises:
        ValueError: with both sizes.
    """
    free = _free()
    if count > free:
        raise ValueError(f"{what} would take {size(count)} of memory, and {size(free)} are free: {remedy}")


def _free() -> int:
    """Bytes that a process can get without swapping; where the system does not tell, all of the machine's memory."""
    file = Path("/proc/meminfo")
    found = re.search(r"MemAvailable: *(\d+) kB", file.read_text()) if file.exists() else None
    return int(found[1]) * 1024 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
