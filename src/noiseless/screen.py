"""The terminal: lines on standard error, and consoles that outlive it. Lowest layer: of noiseless only the exits.

Where the reader of a pipe has ended, what is computed goes on without its screen.
"""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress

from rich.console import Console

from noiseless.exits import first_worker

PLAINER = "noiseless-plainer"
"""name of the handler of characters that a terminal's encoding lacks, for `errors=` of a stream"""
SIMILAR = {"±": "+-", "…": "..."}
"""plainer text for such a character; others are escaped"""


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Similar characters in ASCII, or escapes, for those that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (SIMILAR.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(escaped), error.end


codecs.register_error(PLAINER, _plainer)


class Screen(Console):
    """A console that prints names and paths with brackets unchanged, and nothing more once its reader has ended.

    Args:
        stderr: whether it prints on standard error.
        quiet: whether it prints nothing at all.
        soft_wrap: whether lines longer than the terminal are left to it.
    """

    def __init__(self, stderr: bool = False, quiet: bool = False, soft_wrap: bool = True):
        super().__init__(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=soft_wrap, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Goes on without the screen: nothing is printed from here on, not even at exit."""
        self.quiet = True
        with suppress(OSError, ValueError):  # a stream that is no file of the system
            os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if self.stderr else sys.stdout).fileno())


def print_line(text: str) -> None:
    """Prints a line on standard error."""
    Screen(stderr=True).print(text)  # a new console at each call, as `sys.stderr` may have been replaced


def print_note(text: str) -> None:
    """Prints a note on standard error; in a job, its first worker does so."""
    if first_worker():
        print_line(f"note: {text}")
