"""The terminal. Names and paths are printed as they are: nothing in a text is markup, styles are given beside it."""

from __future__ import annotations

from rich.console import Console

from noiseless.exits import first_worker

console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, quiet=not first_worker())


def tell_error(text: str) -> None:
    """One line on standard error."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    errors.print("error:", style="bold red", end=" ")
    errors.print(text)
