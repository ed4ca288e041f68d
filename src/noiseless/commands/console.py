"""Output to the terminal. Names and paths with brackets are printed unchanged, control characters as escapes."""

from __future__ import annotations

from noiseless.exits import first_worker
from noiseless.report.text import duration
from noiseless.screen import Screen

__all__ = ["console", "duration", "tell_aside", "tell_error"]

console = Screen(quiet=not first_worker())


def tell_error(text: str) -> None:
    """Prints an error as one line on standard error."""
    Screen(stderr=True).print("error:", style="bold red", end=" ")
    Screen(stderr=True).print(" ".join(text.splitlines()))


def tell_aside(text: str) -> None:
    """Prints a note as one line on standard error, so that standard output has the result alone."""
    Screen(stderr=True).print(text)
