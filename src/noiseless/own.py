"""The user's own functions, named as `package.module:function`: for models and data sets."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from noiseless import trust
from noiseless.errors import UnknownNameError, reason

PATTERN = "package.module:function"


def imported(what: str, name: str, returns: str, others: Sequence[str]) -> Callable[..., Any]:
    """Imports a function from a module that is installed or in the current directory, if it is trusted.

    Args:
        what: kind of thing that the name stands for, "model" or "data set", for messages.
        name: `package.module:function`.
        returns: what it is to return, for messages.
        others: other patterns of names that may be meant, for messages.

    Returns:
        The function.

    Raises:
        UnknownNameError: if the module has no such function, with its nearest ones.
        UntrustedError: if it is not trusted.
        ValueError: if the name is no name of a function, or the module cannot be imported.
    """
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        raise ValueError(f"{name} is no name of a function; write {PATTERN}, {' or '.join(others)}")
    trust.refuse_untrusted(what, name)
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path and trust.data_directory(Path(here)) is None:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        _refuse_data(module)
        target: Any = importlib.import_module(module)
    except trust.UntrustedError:
        raise
    except ImportError as error:
        raise ValueError(
            f"the module {module} cannot be imported ({error}); it was searched in {here} and in Python's path"
        ) from error
    except Exception as error:
        raise ValueError(f"the module {module} cannot be imported: {failure(error)}") from error
    for part in function.split("."):
        if not hasattr(target, part):
            public = [key for key, value in vars(target).items() if callable(value) and not key.startswith("_")]
            raise UnknownNameError(f"function of {module}", function, public)
        target = getattr(target, part)
        if isinstance(target, ModuleType) or part.startswith("__"):
            raise ValueError(f"{name}: {part} is no function of {module}; write {PATTERN}")
    if not callable(target):
        raise ValueError(f"{name} is of type {type(target).__name__}; it must be a function that returns {returns}")
    trust.refuse_borrowed(name, target)
    return target


def _refuse_data(module: str) -> None:
    """Raises if a module, or a package that it is in, lies in the directory of a run or exported model."""
    for package in accumulate(module.split("."), "{}.{}".format):
        spec = None if package in sys.modules else importlib.util.find_spec(package)  # imports the packages above it
        if spec is not None:
            places = [spec.origin] if spec.has_location and spec.origin else []
            trust.refuse_data_directory(package, [*places, *(spec.submodule_search_locations or ())])


def called(name: str, function: Callable[..., Any], **arguments: Any) -> Any:
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


def failure(error: Exception) -> str:
    """An error of other people's code in one line, with the file and line where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{reason(error)} ({last.filename}, line {last.lineno})"
