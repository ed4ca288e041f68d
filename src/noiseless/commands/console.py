"""Output to the terminal. Markup is off, so that names and paths with brackets are printed unchanged."""

from __future__ import annotations

import os
import traceback

from rich.console import Console

from noiseless.errors import message
from noiseless.exits import first_worker
from noiseless.report.text import duration

__all__ = ["console", "duration", "tell_aside", "tell_error", "tell_exception"]

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=not first_worker())


def tell_error(text: str) -> None:
    """Prints an error as one line on standard error."""
    _errors().print("error:", style="bold red", end=" ")
    _errors().print(text)


def tell_exception(error: Exception) -> None:
    """Prints the message of an error that is being handled, after its traceback if NOISELESS_TRACEBACK is set."""
    if os.environ.get("NOISELESS_TRACEBACK"):
        traceback.print_exc()
    tell_error(message(error))


def tell_aside(text: str) -> None:
    """Prints a note as one line on standard error, so that standard output has the result alone."""
    _errors().print(text)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
