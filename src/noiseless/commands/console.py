"""The terminal. Names and paths are printed as they are: nothing in a text is markup, styles are given beside it."""

from __future__ import annotations

from rich.console import Console

from noiseless.exits import first_worker

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=not first_worker())


def tell_error(text: str) -> None:
    """One line on standard error."""
    _errors().print("error:", style="bold red", end=" ")
    _errors().print(text)


def tell_aside(text: str) -> None:
    """One line on standard error, where standard output is for what was asked."""
    _errors().print(text)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, as a reader takes them in."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"
