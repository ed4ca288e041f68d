"""Reads files of `torch.save` so that no code in them can run. Before the first step: initial parameters, imports.

A pickle is a small program that names functions and calls them, so a file is checked twice. First its instructions are
read, not executed: a file that names anything but tensors, plain containers and the classes of optimizers and schedules
is refused, with that name in the error. Then torch's restricted unpickler (`weights_only`) builds the tensors. It
imports nothing; for the classes of optimizers and schedules it gets `Inert` classes, whose objects keep their arguments
and state and do nothing. The second check alone is safe; the first gives the clearer error.
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

from noiseless.plain import open_file

TENSORS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|parameter|parameter_with_state)|torch\.nn\.parameter\.Parameter"
    r"|torch\.\w+Storage|torch\.storage\.(Unt|T)ypedStorage|torch\.Size|torch\.device"
)
CONTAINERS = re.compile(r"collections\.(OrderedDict|Counter|defaultdict)|builtins\.(dict|list|set)")
INERT = re.compile(
    r"(torch\.optim|fullbatch)(\.[a-z_]\w*)*\._*[A-Z]\w*|numpy\.(dtype|(core|_core)\.multiarray\.scalar)"
)
"""classes of the optimizer and schedule objects in published checkpoints, and of numpy's numbers"""

LEGACY_PICKLES = 5
"""number of pickles in a file of the older format, before the tensors' bytes"""
ZIP, PICKLE = b"PK", b"\x80"


class RefusedError(ValueError):
    """Raised for a file that would run code when it is loaded."""


class Inert:
    """A stand-in for an object whose class is not imported: it keeps its arguments and state, and does nothing."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:  # noqa: D102
        stand_in = super().__new__(cls)
        stand_in.arguments = arguments
        return stand_in

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def looks_pickled(path: Path) -> bool:
    """Whether a file begins like those of `torch.save`, and not like a safetensors file."""
    with open_file(path) as file:
        head = file.read(9)
    # a safetensors file begins with 8 bytes of length, which can be anything, and a bracket
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
        The saved object, with tensors on the CPU and `Inert` objects for optimizers and schedules.

    Raises:
        RefusedError: if the file names anything that loading would run.
        ValueError: if the file is not of `torch.save`, or is damaged.
    """
    try:
        with open_file(path) as file:
            names = _names(file)
            file.seek(0)
            with torch.serialization.safe_globals(_stand_ins(names)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except OSError as error:
        if error.strerror is None:  # of torch, not of the system
            raise ValueError(f"{path} cannot be read as a file of torch.save: {_cause(error)}") from None
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except RefusedError as error:
        raise RefusedError(
            f"{path} is refused: {error}. Nothing in it was run. If you trust it, save only the parameters where the"
            " file was made: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # torch and zipfile raise many kinds of errors for damaged files
        raise ValueError(
            f"{path} cannot be read as a file of torch.save: {_cause(error)}. Restore it from a copy"
        ) from None


def _cause(error: Exception) -> str:
    """The cause in torch's message, without its advice to load the file unchecked."""
    cause = re.split(r"WeightsUnpickler error:|from a trusted source\.", str(error))[-1]
    cause = re.split("Please use|Check the documentation", cause)[0]
    return " ".join(cause.split())[:160].rstrip(" .") or type(error).__name__


def _stand_ins(names: set[str]) -> list[Any]:
    """The classes that torch's unpickler uses for these names; it compares names and imports nothing."""
    classes: list[Any] = [dict, list]
    for name in names:
        module, _, short_name = name.rpartition(".")
        if name == "collections.defaultdict":
            # torch's unpickler fills plain dicts only; the default of missing keys is not needed
            classes.append(_named(lambda *arguments: {}, module, short_name))
        elif INERT.fullmatch(name):
            classes.append(_named(type(short_name, (Inert,), {}), module, short_name))
    return classes


def _named(stand_in: Any, module: str, name: str) -> Any:
    """A class or function, after giving it that module and name."""
    stand_in.__module__, stand_in.__qualname__, stand_in.__name__ = module, name, name
    return stand_in


def _names(file: IO[bytes]) -> set[str]:
    """All names in the pickles of a file, which are not executed."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        if file.read(len(ZIP)) == ZIP:
            raise ValueError("its end is missing")
        file.seek(0)
        return {name for _ in range(LEGACY_PICKLES) for name in _names_in(file)}
    with zipfile.ZipFile(file) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("data.pkl"):
            listed = ", ".join(entry.filename for entry in pickles[:4]) or "none"
            raise ValueError(f"it should hold one pickle, data.pkl, but holds {listed}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, which torch.save does not do")
        with archive.open(pickles[0]) as stream:
            names = set(_names_in(stream))
        if damaged := archive.testzip():  # torch does not compare the checksums
            raise ValueError(f"the checksum of {damaged} in it does not fit: it is damaged")
    return names


def _names_in(stream: IO[bytes]) -> Iterator[str]:
    """The names in the next pickle of a stream, all of them allowed; raises for another name."""
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
        elif operation.name == "STACK_GLOBAL":  # its name is in the last two texts, unless they come from the memo
            raise RefusedError(f"it asks for {'.'.join(texts)} in a way that torch.save does not use")
        elif operation.name.startswith("EXT"):
            raise RefusedError("it asks for an extension of pickle")
        elif isinstance(argument, str):
            texts = [texts[1], argument]
