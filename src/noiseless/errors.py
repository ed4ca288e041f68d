"""The wording of errors that several rooms share. Ground floor: imports nothing of the program."""

from __future__ import annotations

import difflib
import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


class UnknownNameError(ValueError):
    """A name that is not known; the message gives the nearest ones that are.

    Args:
        what: kind of thing ("model").
        name: as the user wrote it.
        known: all names that would do.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]):
        self._parts = what, name, list(known)
        known = self._parts[2]
        lowered = {each.lower(): each for each in known}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        super().__init__(f"unknown {what} {name!r}; {hint}known: {', '.join(known)}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        """Pickles the parts, not the message: the error crosses from a process of the ladder to its parent."""
        return UnknownNameError, self._parts


def message(error: Exception) -> str:
    """What to tell a user of an error: for one of the system, with the path and what to do."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if error.errno in NO_ROOM:
        return f"{what} ({_free(error.filename)}). What was written before is intact: make room"
    if error.errno in NO_PERMISSION:
        return f"{what}. Give a place where you may read and write, or change its permissions"
    return f"{what}. Check the path; what was written before is intact"


def _free(path: object) -> str:
    """Free space on the disk of a file that may not be there."""
    place = Path(str(path or ".")).absolute()
    while not place.is_dir():
        place = place.parent
    return f"{shutil.disk_usage(place).free / 1e6:,.1f} MB free"
