"""Files of `torch.save`, read so that nothing in them can run. Before the first step: initial parameters, imports.

A pickle is a small program: it names functions and has them called. Two walls stand before it. First its instructions
are read, not executed, and a file that names anything but tensors, plain containers and the classes of optimizers and
schedules is refused by that name. Then torch's own restricted unpickler (`weights_only`) builds the tensors; it looks
no name up, and the classes of optimizers and schedules are given to it as `Inert` ones, which keep what the file says
of an object and do nothing. The second wall holds without the first, which is there for its message.
"""

from __future__ import annotations

import hashlib
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

TENSORS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|parameter|parameter_with_state)|torch\.nn\.parameter\.Parameter"
    r"|torch\.\w+Storage|torch\.storage\.(Unt|T)ypedStorage|torch\.Size|torch\.device"
)
CONTAINERS = re.compile(r"collections\.(OrderedDict|Counter|defaultdict)|builtins\.(dict|list|set)")
INERT = re.compile(
    r"(torch\.optim|fullbatch)(\.[a-z_]\w*)*\._*[A-Z]\w*|numpy\.(dtype|(core|_core)\.multiarray\.scalar)"
)
"""classes that optimizer and schedule objects of published checkpoints have, and numbers of numpy"""

LEGACY_PICKLES = 5
"""a file of the older format is this many pickles, then the tensors' bytes"""
ZIP, PICKLE = b"PK", b"\x80"


class RefusedError(ValueError):
    """A file that would run something."""


class Inert:
    """Stands in for an object of a class that is not looked up: it keeps what the file says of it, and does nothing."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:  # noqa: D102
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def looks_pickled(path: Path) -> bool:
    """Whether a file begins as those of `torch.save` do, and not as one of safetensors."""
    with path.open("rb") as file:
        head = file.read(9)
    # the 8 bytes before the bracket of a safetensors header are its length, which may be anything
    return head.startswith((ZIP, PICKLE)) and head[8:] != b"{"


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> Any:
    """Reads a file of `torch.save`, of the zip format or the one before it; nothing in it is executed.

    Args:
        path: of the file.

    Returns:
        What was saved, tensors on the CPU; objects of optimizers and schedules are `Inert`.

    Raises:
        RefusedError: if it names anything that loading would run.
        ValueError: if it is no such file, or damaged.
    """
    try:
        with path.open("rb") as file:
            names = _names(file)
            file.seek(0)
            with torch.serialization.safe_globals(_stand_ins(names)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except RefusedError as error:
        raise RefusedError(
            f"{path} is refused: {error}. Nothing in it was run. If you trust it, save of it what is needed, where it"
            " was made: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # foreign bytes: whatever torch or the reader of zip files stumbles over
        raise ValueError(
            f"{path} cannot be read as a file of torch.save: {_cause(error)}. Take it from a copy"
        ) from None


def _cause(error: Exception) -> str:
    """Of torch's text the cause, not its advice to load the file without these walls."""
    cause = re.split(r"WeightsUnpickler error:|from a trusted source\.", str(error))[-1]
    cause = re.split("Please use|Check the documentation", cause)[0]
    return " ".join(cause.split())[:160].rstrip(" .") or type(error).__name__


def _stand_ins(names: set[str]) -> list[Any]:
    """Classes that torch's unpickler takes where a file names these; it compares names and imports nothing."""
    made: list[Any] = [dict, list]
    for name in names:
        module, _, own = name.rpartition(".")
        if name == "collections.defaultdict":
            # torch's unpickler fills plain dicts only, and nobody asks this one for a key that is not there
            made.append(_named(lambda *arguments: {}, module, own))
        elif INERT.fullmatch(name):
            made.append(_named(type(own, (Inert,), {}), module, own))
    return made


def _named(made: Any, module: str, name: str) -> Any:
    made.__module__, made.__qualname__, made.__name__ = module, name, name
    return made


def _names(file: IO[bytes]) -> set[str]:
    """All that the pickles of a file name, found without executing them."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        if file.read(len(ZIP)) == ZIP:
            raise ValueError("its end is missing: it was cut off")
        file.seek(0)
        return {name for _ in range(LEGACY_PICKLES) for name in _named_in(file)}
    with zipfile.ZipFile(file) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("data.pkl"):
            held = ", ".join(entry.filename for entry in pickles[:4]) or "none"
            raise ValueError(f"it should hold one pickle, data.pkl, and holds {held}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, as torch.save does not do")
        with archive.open(pickles[0]) as stream:
            found = set(_named_in(stream))
        if damaged := archive.testzip():  # torch itself looks at no checksum
            raise ValueError(f"the checksum of {damaged} in it does not fit: it is damaged")
    return found


def _named_in(stream: IO[bytes]) -> Iterator[str]:
    """What one pickle names, from where a stream stands to the pickle's end; each name is one that may be there."""
    texts = ["?", "?"]
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in ("GLOBAL", "INST"):
            name = ".".join(str(argument).split(" ")).replace("__builtin__.", "builtins.")
            if not any(kind.fullmatch(name) for kind in (TENSORS, CONTAINERS, INERT)):
                raise RefusedError(
                    f"it asks for {name}, which is neither a tensor nor part of an optimizer or schedule, and which"
                    " loading would run"
                )
            yield name
        elif operation.name == "STACK_GLOBAL":  # of the last two texts, unless a memo hides them
            raise RefusedError(f"it asks for {'.'.join(texts)} in a way in which torch.save does not")
        elif operation.name.startswith("EXT"):
            raise RefusedError("it asks for an extension of pickle")
        elif isinstance(argument, str):
            texts = [texts[1], argument]
