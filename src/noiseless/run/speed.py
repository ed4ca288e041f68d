"""Choices that make a run fast without changing its mathematics: kept memory, the chunk, compiled code.

Each choice is a function of the recipe, so that the same command gives the same bits.
"""

from __future__ import annotations

import ctypes
import sys

from noiseless.objective import compiled
from noiseless.run.work import Work

CHUNK_PIXELS = 2**15
"""limit on the pixels of a chunk of several blocks; beyond it, one block fills the machine"""
CHUNK_GRADIENTS = 2**24
"""limit on the elements of the block gradients in a chunk of several blocks; beyond it, one block fills the machine"""

START_SECONDS = 12.0
"""time in which torch's compiler is loaded and tries out g++ and the processor"""
COMPILE_SECONDS = 0.6
"""time of compiling for each parameter tensor of the model (ResNet-18 has 62), on one core"""
SAVED_SHARE = 0.25
"""share of the time that compiled code saves, at least, where small operations follow each other"""
FLOPS_PER_SECOND = 1e11
"""speed of a small model without compiling, on one core"""
WORTH = 2.0
"""auto compiles if the run saves this multiple of the time of compiling"""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's mallopt(3)
_PAD = 2**26  # bytes


def keep_memory() -> None:
    """Makes the process keep the memory that it frees, on Linux with glibc; elsewhere, nothing is done.

    glibc returns large allocations to the system at once and gets them back page by page at the next use. A sweep,
    which frees and allocates the same activations for each block, would spend a quarter of its time on that.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _PAD)):
            mallopt(name, value)


def chunk(block: int, parameters: int, pixels: int) -> int:
    """The number of blocks that are computed at once.

    Args:
        block: examples in a block.
        parameters: number of the model's parameters.
        pixels: of an example, in one channel.

    Returns:
        Several blocks where one is small, to lower the overhead; 1 where a block fills the machine.
    """
    return max(1, min(CHUNK_PIXELS // (block * pixels), CHUNK_GRADIENTS // parameters))


def compiling(mode: str, work: Work, device: str) -> tuple[bool, str | None]:
    """Whether a new run uses compiled code.

    Args:
        mode: `"auto"`, `"on"` or `"off"`; auto compiles where the run is long enough to save more time than it takes.
        work: of the recipe.
        device: type of the device; auto compiles on CPUs only.

    Returns:
        The decision, and a message for the user or None.
    """
    if mode == "off" or (mode == "auto" and device != "cpu"):
        return False, None
    seconds = START_SECONDS + COMPILE_SECONDS * work.tensors
    if mode == "auto":
        if SAVED_SHARE * work.flops / FLOPS_PER_SECOND < WORTH * seconds:
            return False, None
        lacking = compiled.missing()
        if lacking:
            return False, f"{lacking}: computing without compiled code, which is slower. Install g++ to have it"
    return True, f"compiling at the first step: about {seconds:.0f} s, unless the code was compiled before"
