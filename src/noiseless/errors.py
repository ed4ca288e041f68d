"""The wording of errors that several rooms share. Ground floor: imports nothing of the program."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(ValueError):
    """A name that is not known; the message gives the nearest ones that are.

    Args:
        what: kind of thing ("model").
        name: as the user wrote it.
        known: all names that would do.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]):
        known = list(known)
        lowered = {each.lower(): each for each in known}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        super().__init__(f"unknown {what} {name!r}; {hint}known: {', '.join(known)}")
