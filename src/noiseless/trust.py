"""Which code may run here: what the person named in this command, in their own settings, or in a call.

A model, data set, loss, optimizer, policy or transform named `package.module:name` is code that runs when it is
imported. The files of a run, and of an exported model, are data: a name in them permits nothing. See docs/security.md.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from noiseless.plain import open_file, real
from noiseless.system import others_can_write

FILE = "trusted.toml"
"""the settings' file, which holds `trusted = ["package.module", "package.module:function", ...]`"""
LIBRARIES = frozenset({
    "noiseless", "torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "mlxtend", "joblib", "PIL", "safetensors",
    "filelock", "rich", "tyro", "matplotlib", "tensorboard", "wandb", "huggingface_hub", "requests", "urllib3",
    "pip", "setuptools", "pkg_resources", "wheel", "cloudpickle", "dill", "pandas", "yaml", "IPython", "pytest",
})  # fmt: skip
"""packages that load files, or start programs, and hold nobody's own models"""
DATA_FILES = ("environment.json", "metrics.jsonl", "model.safetensors", "checkpoints")
"""what a directory has beside its `config.json` if it is a run or an exported model"""

_permitted: ContextVar[frozenset[str]] = ContextVar("permitted", default=frozenset())


class UntrustedError(ValueError):
    """Raised for code that nobody has allowed, or that is never allowed."""


def permit(*names: str) -> None:
    """Permits code for the rest of this command, or of this context (`contextvars`).

    Args:
        names: `package.module:function`, or `package.module` for all functions of a module.

    Raises:
        ValueError: for another form of name.
        UntrustedError: for a module that is never allowed.
    """
    for name in names:
        _check(name)
    _permitted.set(_permitted.get() | frozenset(names))


def permit_functions(*names: str) -> None:
    """Permits those of the names in a command's flags that are functions; others, as `resnet8`, are no code."""
    permit(*(name for name in names if is_code(name)))


def is_code(name: str) -> bool:
    """Whether a name in a config is `package.module:name`, that of a function or class of somebody's own.

    Args:
        name: of a model, data set, loss, optimizer, policy or transform.

    Returns:
        Whether it is.
    """
    return ":" in name and _is_code(name)


@contextmanager
def trusting(names: str | Iterable[str] | None) -> Iterator[None]:
    """A context in which code is permitted.

    Args:
        names: `package.module:function` or `package.module`, one or several; None: nothing more than before.

    Yields:
        Nothing.
    """
    before = _permitted.get()
    try:
        permit(*((names,) if isinstance(names, str) else names or ()))
        yield
    finally:
        _permitted.set(before)


def permitted() -> list[str]:
    """What this command has permitted, to hand it on to the processes that it starts; without the settings."""
    return sorted(_permitted.get())


def flags() -> list[str]:
    """The words of a command line that permit the same."""
    return [word for name in permitted() for word in ("--trust", name)]


def refuse_untrusted(names: Mapping[str, str]) -> None:
    """Raises unless functions and classes may be imported and called.

    Args:
        names: `package.module:name` -> kind of thing, "model" or "data set".

    Raises:
        UntrustedError: with how to allow them.
    """
    for name in names:
        refuse_library(name)
    permitted_or_trusted = _permitted.get() | set(trusted())
    refused = [name for name in names if {name, _module(name)}.isdisjoint(permitted_or_trusted)]
    if not refused:
        return
    several = len(refused) > 1
    listed = " and ".join(f"the {names[name]} {name}" for name in refused)
    in_python = json.dumps(refused if several else refused[0])
    raise UntrustedError(
        f"{listed} {'are' if several else 'is'} code, which is not run because a file names it: if you trust it, add"
        f" {' '.join(f'--trust {name}' for name in refused)} to the command, write trust={in_python} in Python, or"
        f" allow {'their modules' if several else 'its module'} always with"
        f" noiseless trust {' '.join(dict.fromkeys(map(_module, refused)))}"
    )


def _module(name: str) -> str:
    return name.partition(":")[0]


def refuse_library(name: str) -> None:
    """Raises for functions of Python's standard library, and of packages that load files or start programs.

    Raises:
        UntrustedError: with the reason.
    """
    package = name.partition(":")[0].partition(".")[0]
    if package in sys.stdlib_module_names or package in sys.builtin_module_names or package in LIBRARIES:
        raise UntrustedError(
            f"{name} cannot be trusted: functions of {package} can run programs or load files; name a function or class"
            " in a module of your own"
        )


def refuse_borrowed(name: str, function: Any, harmless: Collection[str] = ()) -> None:
    """Raises unless a function was defined where its name says: a trusted module also holds what it has imported.

    Args:
        name: `package.module:function`, under which it is to be used.
        function: the function.
        harmless: modules and packages of libraries whose functions may be used under a trusted name.

    Raises:
        UntrustedError: for a function of a library; and, where its whole module is trusted, for one of another package.
    """
    while isinstance(function, functools.partial):
        function = function.func
    home = getattr(function, "__module__", None) or type(function).__module__
    if any(f"{home}.".startswith(f"{place}.") for place in harmless):
        return
    refuse_library(f"{home}:{name.rpartition('.')[2].rpartition(':')[2]}")
    if name not in _permitted.get() | set(trusted()) and home.partition(".")[0] != name.partition(":")[0].split(".")[0]:
        raise UntrustedError(f"{name} is imported from {home}, which is not trusted: trust {name} by its full name")


def refuse_data_directory(module: str, places: Iterable[str]) -> None:
    """Raises if a module would be imported from the directory of a run or of an exported model.

    Args:
        module: its name.
        places: its file, and the directories of a package.

    Raises:
        UntrustedError: naming the directory.
    """
    for place in places:
        if directory := data_directory(Path(place)):
            raise UntrustedError(
                f"the module {module} is at {place}, in the directory of a run or exported model, whose files are data:"
                f" move it out of {directory}"
            )


def data_directory(path: Path) -> Path | None:
    """The directory of a run or exported model in which a path lies, or that it is; None if there is none."""
    path = real(path)
    for directory in (path, *path.parents):
        if (directory / "config.json").exists() and any((directory / name).exists() for name in DATA_FILES):
            return directory
    return None


def settings_file() -> Path | None:
    """The file of this person's settings; None if they have no home directory."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():  # as the XDG specification says; a relative one would be read from any directory
        try:
            base = Path.home() / ".config"
        except RuntimeError:
            return None
    return base / "noiseless" / FILE if base.is_absolute() else None


def trusted() -> list[str]:
    """What this person's settings allow.

    Returns:
        Names, sorted.

    Raises:
        ValueError: if the file cannot be read, or belongs to or can be written by somebody else.
    """
    path = settings_file()
    try:
        if path is None or not path.exists():
            return []
        with open_file(path) as file:
            status = os.fstat(file.fileno())
            if others_can_write(status):
                raise ValueError("others can write it: chmod 600 it, and see whether it is what you wrote")
            names = tomllib.load(file).get("trusted", [])
        if not isinstance(names, list) or not all(isinstance(name, str) and _is_code(name) for name in names):
            raise ValueError('it must have the form trusted = ["package.module", "package.module:function"]')
    except (ValueError, OSError, RecursionError) as error:  # those of tomllib, too
        raise ValueError(f"{path}, which lists trusted code, cannot be read: {error}") from None
    return sorted(names)


def write_trusted(names: Iterable[str]) -> Path:
    """Writes this person's settings.

    Args:
        names: `package.module` or `package.module:function`.

    Returns:
        The path of the file.

    Raises:
        ValueError: for another form of name, or without a home directory.
        UntrustedError: for a module that is never allowed.
    """
    names = sorted(set(names))
    for name in names:
        _check(name)
    path = settings_file()
    if path is None:
        raise ValueError("there is no home directory to keep settings in: set XDG_CONFIG_HOME to an absolute path")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# modules and functions that noiseless may import, see docs/security.md", "trusted = ["]
    text = "\n".join([*lines, *(f"    {json.dumps(name)}," for name in names), "]", ""])
    temporary = path.with_name(f".{FILE}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch(0o600, exist_ok=False)
    temporary.write_text(text)
    temporary.replace(path)
    return path


def _check(name: str) -> None:
    if not _is_code(name):
        raise ValueError(f"{name!r} is no module or function: write package.module or package.module:function")
    refuse_library(name)


def _is_code(name: str) -> bool:
    """Whether a name has the form `package.module` or `package.module:function`, of Python's identifiers."""
    module, colon, function = name.partition(":")
    parts = [*module.split("."), *(function.split(".") if colon else ())]
    reserved = {"torchvision", "timm", "npz", "folder"} if colon else set()
    return all(part.isidentifier() for part in parts) and module not in reserved
