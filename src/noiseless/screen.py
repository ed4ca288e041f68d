"""The terminal: lines on standard error, and consoles that outlive it. Lowest layer.

Where the reader of a pipe has ended, what is computed goes on without its screen.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from noiseless.exits import first_worker
from noiseless.printable import CONTROLS, printable

PLAINER = "noiseless-plainer"
"""name of the handler of characters that a terminal's encoding lacks, for `errors=` of a stream"""
SIMILAR = {"±": "+-", "…": "...", "━": "-", "╸": "-", "╺": "-"}
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
    """A console of rich that prints texts as they are, and nothing more once its reader has ended.

    There is no markup, no emoji codes, and no colour by guess. Each text passes `printable` where it is laid out, and
    each segment once more where it is drawn: only rich's own segments move the cursor.

    Args:
        soft_wrap: whether lines longer than the terminal are left to it.
        settings: of rich's console, such as `stderr` and `quiet`.
    """

    def __init__(self, soft_wrap: bool = True, **settings: Any):
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Rich's layout of a text."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's layout of anything."""
        for segment in super().render(renderable, options):
            if segment.control or not CONTROLS.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

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
