"""The dataclasses of a room, for tests of what is frozen and what is compared by identity."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from types import ModuleType


def dataclasses_of(package: ModuleType) -> list[type]:
    """Every dataclass that a module of the package defines."""
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(package.__path__, package.__name__ + ".")]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return [c for c in classes if dataclasses.is_dataclass(c) and c.__module__.startswith(package.__name__)]


def mutable(package: ModuleType) -> set[str]:
    """Names of the dataclasses whose fields can be set."""
    return {c.__name__ for c in dataclasses_of(package) if not c.__dataclass_params__.frozen}


def by_identity(package: ModuleType) -> set[str]:
    """Names of the dataclasses that are compared by identity."""
    return {c.__name__ for c in dataclasses_of(package) if not c.__dataclass_params__.eq}
