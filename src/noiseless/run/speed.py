"""What makes a run fast and leaves its mathematics alone: memory that is kept, chunks, and whether code is compiled.

Each choice is a function of the recipe, so that the same command gives the same bits.
"""

from __future__ import annotations

import ctypes
import sys

from noiseless.objective import compiled
from noiseless.run.work import Work

TOGETHER = 2**15
"""pixels of a chunk, and"""
GRADIENTS = 2**24
"""numbers in its gradients: beyond them, one block fills the machine"""

START_SECONDS = 12.0
"""of torch's compiler itself: to be loaded, and to try out g++ and processor"""
COMPILE_SECONDS = 0.6
"""of compiling, for each parameter tensor of the model (ResNet-18 has 62), on one core"""
SAVED = 0.25
"""share of the time that compiled code saves, at least, where small operations follow each other"""
RATE = 1e11
"""FLOP/s of a small model without compiling, on one core"""
WORTH = 2.0
"""a run must save this many times what compiling takes"""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's mallopt(3)
_PAD = 2**26  # bytes


def keep_memory() -> None:
    """Lets the process keep the memory that it frees.

    glibc gives large blocks back at once and takes them anew, page by page, at the next use: a sweep, which frees and
    takes the same activations in each block, would spend a quarter of its time on that. Elsewhere, nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _PAD)):
            mallopt(name, value)


def chunk(block: int, parameters: int, pixels: int) -> int:
    """Blocks that are computed at once.

    Args:
        block: examples of a block.
        parameters: of the model.
        pixels: of an example, a channel.

    Returns:
        As many as make a small model worth its overhead; 1 where a block fills the machine.
    """
    return max(1, min(TOGETHER // (block * pixels), GRADIENTS // parameters))


def compiling(asked: str, work: Work, device: str) -> tuple[bool, str | None]:
    """Whether a new run is to compile.

    Args:
        asked: `"auto"`, `"on"` or `"off"`; auto compiles where the run is long enough to earn the time back.
        work: of the recipe.
        device: its type; auto compiles on CPUs only.

    Returns:
        The decision, and a line for the user, if there is something to say.
    """
    if asked == "off" or (asked == "auto" and device != "cpu"):
        return False, None
    needed = START_SECONDS + COMPILE_SECONDS * work.tensors
    if asked == "auto":
        if SAVED * work.flops / RATE < WORTH * needed:
            return False, None
        lacking = compiled.missing()
        if lacking:
            return False, f"{lacking}: computing without compiled code, which is slower. Install g++ to have it"
    return True, f"compiling at the first step, about {needed:.0f} s unless the code is kept from before"
