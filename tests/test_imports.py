"""Import directions: floors, no circle, and a light front door."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import noiseless

SOURCE = Path(noiseless.__file__).parent
# room -> the rooms that it may name besides itself. `noiseless` is the package's own file.
MAY_NAME = {
    "keyed": set(),
    "errors": set(),
    "exits": set(),
    "lock": set(),
    "data": {"keyed", "errors", "lock"},
    "models": {"keyed", "errors"},
    "objective": {"keyed", "errors"},
    "optim": {"keyed", "errors", "objective"},
    "analysis": {"keyed", "errors", "objective", "optim"},
    "run": {"keyed", "errors", "exits", "lock", "objective", "data", "models", "optim", "analysis"},
    "study": {"keyed", "errors", "exits", "objective", "data", "models", "optim", "analysis", "run"},
    "report": {"keyed", "errors", "objective", "data", "models", "optim", "analysis", "run", "study"},
    "commands": {
        "keyed",
        "errors",
        "exits",
        "objective",
        "data",
        "models",
        "optim",
        "analysis",
        "run",
        "study",
        "report",
    },
    "cli": {"errors", "exits", "commands", "noiseless"},  # `noiseless` for the version
    "__main__": {"cli"},
    "noiseless": {"objective", "optim", "analysis", "run"},  # looked up at first use
}


def _modules():
    """Every module's name to its file."""
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["noiseless", *path.relative_to(SOURCE).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _named(source, name, is_package, known):
    """The modules of `known` that a module's source imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in known else base)
    return {each for each in found if each in known}


def _room(name):
    return name.split(".")[1] if "." in name else name


def _graph():
    modules = _modules()
    return {
        name: _named(path.read_text(), name, path.name == "__init__.py", modules.keys())
        for name, path in modules.items()
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import noiseless.run.train", {"noiseless.run.train"}),
        ("from noiseless import keyed, __version__", {"noiseless.keyed", "noiseless"}),
        ("from noiseless.run import train as t", {"noiseless.run.train"}),
        ("def f():\n    from noiseless.data import Images", {"noiseless.data"}),
        ("from . import config", {"noiseless.run.config"}),
        ("from ..data import load", {"noiseless.data"}),
        ("import torch\nfrom pathlib import Path", set()),
    ],
)
def test_the_reader_finds_imports(source, expected):
    assert _named(source, "noiseless.run.x", False, _modules().keys()) == expected


def test_every_room_is_on_the_plan():
    assert {_room(name) for name in _modules()} == MAY_NAME.keys()
    assert len(_modules()) > 30  # the reader has found the source


def test_imports_point_one_way():
    wrong = [
        f"{name} imports {other}"
        for name, others in _graph().items()
        for other in others
        if _room(other) != _room(name) and _room(other) not in MAY_NAME[_room(name)]
    ]
    assert wrong == []


def test_nothing_but_main_imports_the_command_line():
    assert [name for name, others in _graph().items() if "noiseless.cli" in others] == ["noiseless.__main__"]


def test_there_is_no_circle():
    # a package's own file gathers its rooms' names and may be named by them through the package: modules are what count
    graph = _graph()
    list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter({**graph, "noiseless.keyed": {"noiseless.run.train"}}).static_order())


def test_the_front_door_offers_what_it_names():
    for name in noiseless.__all__:
        assert getattr(noiseless, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        noiseless.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["noiseless", "noiseless.cli", "noiseless.errors", "noiseless.commands"])
def test_torch_waits_until_it_is_needed(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
