"""Error types and messages that several packages share. Lowest layer: imports nothing else of noiseless."""

from __future__ import annotations

import difflib
import errno
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
NO_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory")
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


class UnknownNameError(ValueError):
    """An unknown name; the message suggests the most similar known names and lists all of them.

    Args:
        what: kind of thing ("model").
        name: as the user wrote it.
        known: all valid names.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]):
        self._parts = what, name, list(known)
        known = self._parts[2]
        lowered = dict.fromkeys(choice.lower() for choice in known)
        matches = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
        near = [choice for match in matches for choice in known if choice.lower() == match]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        super().__init__(f"unknown {what} {name!r}; {hint}known: {', '.join(known)}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        """Pickles the arguments, not the message, because a process of the ladder sends the error to its parent."""
        return UnknownNameError, self._parts


def spelled(name: str, known: Iterable[str]) -> str:
    """The known name that differs from a name only in case, hyphens and underscores; the name itself if there is none.

    Args:
        name: as the user wrote it.
        known: all valid names.

    Returns:
        The name.
    """
    known = tuple(known)
    same = [other for other in known if _plainest(other) == _plainest(name)]
    return same[0] if len(same) == 1 and name not in known else name


def _plainest(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


class ModuleError(ValueError):
    """An error of a user's module or loss, with its place; the original error is its `__cause__`."""


class DerivativeError(ModuleError):
    """A derivative of a user's module or loss that torch does not have, or has wrong."""


def command(name: str, *arguments: object) -> str:
    """A command of noiseless for a message, with arguments quoted so that it can be pasted into a shell."""
    return shlex.join(["noiseless", name, *(str(argument) for argument in arguments)])


def shown(value: object, most: int = 60) -> str:
    """A value for a message: its text, cut in the middle of what is longer than `most` characters."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most // 2]}... ({len(text):,} characters)"


def reason(error: BaseException) -> str:
    """An error of other people's code in one line: its type and the first line of its message."""
    first = str(error).strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, by Python or by torch."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in NO_MEMORY)
    )


def message(error: Exception) -> str:
    """The text of an error for the user; for an error of the operating system with the path and what to do."""
    if isinstance(error, ModuleError) and not isinstance(error, DerivativeError):
        return f"{error}; NOISELESS_TRACEBACK=1 prints the whole traceback"
    if out_of_memory(error):
        return (
            f"there is not enough memory ({shown(reason(error), 200)}): a smaller --chunk, --block, --pixels or model"
            " takes less, and so do fewer --workers or --jobs"
        )
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if error.errno in NO_ROOM:
        return f"{what} ({_free(error.filename)}). What was written before is intact; make room on this disk"
    if error.errno in NO_PERMISSION:
        return f"{what}. Choose a path that you may read and write, or change its permissions"
    return f"{what}. Check the path; what was written before is intact"


def _free(path: object) -> str:
    """Free space on the disk of a path, which need not exist; None: of the working directory."""
    directory = Path(str(path or ".")).absolute()
    while not directory.is_dir():
        directory = directory.parent
    return f"{shutil.disk_usage(directory).free / 1e6:,.1f} MB free"
