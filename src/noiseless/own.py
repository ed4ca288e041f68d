"""The user's own functions and classes, named as `package.module:name`: models, data sets, losses, optimizers, ..."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from noiseless import trust
from noiseless.errors import UnknownNameError, reason

PATTERN = "package.module:function"


@dataclass(frozen=True)
class Kind:
    """What a name stands for, and which objects it may be the name of."""

    what: str
    """kind of thing, "model" or "data set", for messages"""
    wanted: str
    """what the object must be, with its article, for messages"""
    others: Sequence[str] = ()
    """other patterns of names that may be meant, for messages"""
    noun: str = "function"
    """what the object is called, for messages"""
    fits: Callable[[Any], bool] = callable
    """whether an object can be used; the most similar ones are suggested for an unknown name"""
    harmless: Collection[str] = ()
    """modules of libraries whose objects a trusted module may hold, see `trust.refuse_borrowed`"""


def imported(kind: Kind, name: str) -> Any:
    """Imports a function, class or object from a module that is installed or in the current directory, if trusted.

    Args:
        kind: what the name stands for.
        name: `package.module:name`.

    Returns:
        The object.

    Raises:
        UnknownNameError: if the module has no such object, with its nearest ones.
        UntrustedError: if it is not trusted.
        ValueError: if the name is no such name, or of another object, or the module cannot be imported.
    """
    module, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        others = f", {' or '.join(kind.others)}" if kind.others else ""
        raise ValueError(f"{name} is no name of a {kind.noun}; write {PATTERN}{others}")
    trust.refuse_untrusted({name: kind.what})
    target: Any = _module(module)
    for part in path.split("."):
        if not hasattr(target, part):
            public = [key for key in vars(target) if not key.startswith("_") and _usable(kind, module, target, key)]
            raise UnknownNameError(f"{kind.noun} of {module}", path, public)
        target = getattr(target, part)
        if isinstance(target, ModuleType) or part.startswith("__"):
            raise ValueError(f"{name}: {part} is no {kind.noun} of {module}; write {PATTERN}")
    if not kind.fits(target):
        raise ValueError(f"{name} is {described(target)}; it must be {kind.wanted}")
    _refuse_borrowed(kind, name, target)
    return target


def _refuse_borrowed(kind: Kind, name: str, target: Any) -> None:
    for part in target if isinstance(target, tuple) else (target,):
        trust.refuse_borrowed(name, part, kind.harmless)


def _usable(kind: Kind, module: str, place: Any, key: str) -> bool:
    """Whether an object of a module, or of a class in it, can be what a name stands for."""
    target = vars(place)[key]
    try:
        _refuse_borrowed(kind, f"{module}:{key}", target)
    except trust.UntrustedError:
        return False
    return kind.fits(target)


def described(target: object) -> str:
    """An object in a few words: a class or function by what it is, other objects by their type."""
    if isinstance(target, type):
        return f"the class {target.__name__}"
    return "a function" if inspect.isroutine(target) else f"of type {type(target).__name__}"


def package_found(name: str) -> bool:
    """Whether the package of `package.module` or `package.module:name` lies here or in Python's path.

    Nothing is imported, so what the package holds is not looked for.

    Args:
        name: of the form that `trust` checks.

    Returns:
        Whether it is there.
    """
    package = name.partition(":")[0].partition(".")[0]
    if package in sys.modules:
        return True
    return PathFinder.find_spec(package, [str(Path.cwd())]) is not None or importlib.util.find_spec(package) is not None


def _module(name: str) -> ModuleType:
    """Imports a module that is trusted."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path and trust.data_directory(Path(here)) is None:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        _refuse_data(name)
        return importlib.import_module(name)
    except trust.UntrustedError:
        raise
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        raise ValueError(
            f"the module {name} cannot be imported ({error}{_nearest(str(error.name)) if missing else ''}); it was"
            f" searched in {here} and in Python's path"
        ) from error
    except Exception as error:
        raise ValueError(f"the module {name} cannot be imported: {failure(error)}") from error


def _nearest(name: str) -> str:
    """A question after the modules beside a missing one that have the most similar names; empty if there are none."""
    package, _, last = name.rpartition(".")
    path = getattr(sys.modules.get(package), "__path__", None) if package else None
    siblings = {module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")}
    near = [f"{package}.{other}".lstrip(".") for other in difflib.get_close_matches(last, siblings)]
    return f", did you mean {' or '.join(near)}?" if near else ""


def _refuse_data(module: str) -> None:
    """Raises if a module, or a package that it is in, lies in the directory of a run or exported model."""
    for package in accumulate(module.split("."), "{}.{}".format):
        spec = None if package in sys.modules else importlib.util.find_spec(package)  # imports the packages above it
        if spec is not None:
            places = [spec.origin] if spec.has_location and spec.origin else []
            trust.refuse_data_directory(package, [*places, *(spec.submodule_search_locations or ())])


def called(name: str, function: Callable[..., Any], /, **arguments: Any) -> Any:
    """What a function returns.

    Args:
        name: of the function.
        function: the function.
        arguments: with which it is called.

    Returns:
        Its result.

    Raises:
        ValueError: if it does not take these arguments, or fails.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        given = ", ".join(arguments) or "no arguments"
        raise ValueError(f"{name}{inspect.signature(function)} cannot be called with {given}: {error}") from None
    try:
        return function(**arguments)
    except Exception as error:
        raise ValueError(f"{name} failed: {failure(error)}") from error


def refuse_arguments(
    name: str, function: Callable[..., Any], positional: Sequence[str], options: Iterable[str]
) -> None:
    """Raises for a function that does not take some arguments.

    Args:
        name: of the function.
        function: the function.
        positional: what it gets without names.
        options: names of further arguments.

    Raises:
        ValueError: with its signature.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a function in C: not known
        return
    try:
        signature.bind(*positional, **dict.fromkeys(options))
    except TypeError as error:
        given = ", ".join([*positional, *(f"{option}=..." for option in options)])
        raise ValueError(f"{name}{signature} cannot be called with ({given}): {error}") from None


def failure(error: Exception) -> str:
    """An error of other people's code in one line, with the file and line where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{reason(error)} ({last.filename}, line {last.lineno})"
