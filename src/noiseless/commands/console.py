"""Output to the terminal. Names and paths with brackets are printed unchanged, control characters as escapes."""

from __future__ import annotations

import os
import sys
import traceback

from noiseless.errors import message
from noiseless.exits import first_worker
from noiseless.printable import printable
from noiseless.report.text import duration
from noiseless.screen import Screen

__all__ = ["console", "duration", "tell_aside", "tell_error", "tell_exception"]


class _JobScreen(Screen):
    """A console on which the first worker of a job prints; the process group may be younger than the console."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is printed."""
        return self._quiet or not first_worker()

    @quiet.setter
    def quiet(self, value: bool) -> None:
        self._quiet = value


console = _JobScreen()


def tell_error(text: str) -> None:
    """Prints an error as one line on standard error."""
    Screen(stderr=True).print("error:", style="bold red", end=" ")
    Screen(stderr=True).print(" ".join(text.splitlines()))


def tell_exception(error: Exception) -> None:
    """Prints the message of an error that is being handled, after its traceback if NOISELESS_TRACEBACK is set."""
    if os.environ.get("NOISELESS_TRACEBACK"):
        print(printable(traceback.format_exc()), file=sys.stderr)  # noqa: T201
    tell_error(message(error))


def tell_aside(text: str) -> None:
    """Prints a note as one line on standard error, so that standard output has the result alone."""
    Screen(stderr=True).print(text)
