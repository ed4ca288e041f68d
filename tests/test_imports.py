"""Imports: their directions between rooms, no circle, and no torch before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import noiseless

SOURCE = Path(noiseless.__file__).parent
# room -> the rooms that it may import besides itself and the ground floor. `noiseless` is the package's own file.
GROUND = {
    "keyed", "documented", "errors", "exits", "lock", "own", "patterns", "trust", "plain", "printable", "screen",
    "system",
}  # fmt: skip
SCIENCE = {"examples", "losses", "objective", "optim", "analysis"}
RUNS = {"data", "models", "recipes", "files", "run", "portable", *SCIENCE}
MAY_IMPORT = {
    **{name: set() for name in GROUND},
    "own": {"errors", "trust"},
    "trust": {"plain", "system"},
    "screen": {"exits", "printable"},
    "data": set(),
    "models": set(),
    "examples": set(),
    "losses": {"examples"},
    "portable": set(),
    "objective": {"examples", "losses", "portable"},
    "optim": {"objective", "portable"},
    "distributed": {"objective"},
    "analysis": {"examples", "objective", "optim"},
    "recipes": set(),
    "files": {"recipes", *SCIENCE},
    "run": {"recipes", "files", "data", "models", "portable", *SCIENCE},
    "cost": RUNS,
    "ask": RUNS,
    "study": {"cost", *RUNS},
    "exchange": RUNS,
    "report": {"study", *RUNS},
    "api": {"report", *RUNS},
    "commands": {"cost", "ask", "study", "exchange", "report", *RUNS},
    "cli": {"commands", "noiseless"},  # `noiseless` for the version
    "__main__": {"cli"},
    "noiseless": {"objective", "optim", "analysis", "exchange", "api"},  # looked up at first use
}
MOST_LINES = 0.15
"""share of a room in all lines of the source"""


def _modules():
    """Every module's name to its file."""
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["noiseless", *path.relative_to(SOURCE).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _imported(source, name, is_package, known):
    """The modules of `known` that a module's source imports, at any place in it."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full_name = f"{base}.{alias.name}"
                imported.add(full_name if full_name in known else base)
    return {module for module in imported if module in known}


def _room(name):
    return name.split(".")[1] if "." in name else name


def _ground(name):
    """The ground floor, which every room above it may import."""
    return set() if _room(name) in GROUND else GROUND


def _graph():
    modules = _modules()
    return {
        name: _imported(path.read_text(), name, path.name == "__init__.py", modules.keys())
        for name, path in modules.items()
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import noiseless.run.train", {"noiseless.run.train"}),
        ("from noiseless import keyed, __version__", {"noiseless.keyed", "noiseless"}),
        ("from noiseless.run import train as t", {"noiseless.run.train"}),
        ("def f():\n    from noiseless.data import Images", {"noiseless.data"}),
        ("from . import train", {"noiseless.run.train"}),
        ("from ..data import load", {"noiseless.data"}),
        ("import torch\nfrom pathlib import Path", set()),
    ],
)
def test_the_reader_finds_imports(source, expected):
    assert _imported(source, "noiseless.run.x", False, _modules().keys()) == expected


def test_every_room_is_on_the_plan():
    assert {_room(name) for name in _modules()} == MAY_IMPORT.keys()
    assert len(_modules()) > 30  # the reader has found the source


def test_no_room_is_much_larger_than_the_others():
    lines = Counter()
    for name, path in _modules().items():
        lines[_room(name)] += len(path.read_text().splitlines())
    assert [room for room, count in lines.items() if count > MOST_LINES * lines.total()] == []


def test_no_file_is_longer_than_a_few_screenfuls():
    assert [name for name, path in _modules().items() if len(path.read_text().splitlines()) > 300] == []


def test_imports_point_one_way():
    wrong = [
        f"{name} imports {other}"
        for name, others in _graph().items()
        for other in others
        if _room(other) not in {_room(name), *MAY_IMPORT[_room(name)], *_ground(name)}
    ]
    assert wrong == []


def test_nothing_but_main_imports_the_command_line():
    assert [name for name, others in _graph().items() if "noiseless.cli" in others] == ["noiseless.__main__"]


def test_there_is_no_circle():
    # a package's own file imports names of its modules, which may import the package: circles are those of modules
    graph = _graph()
    list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter({**graph, "noiseless.keyed": {"noiseless.run.train"}}).static_order())


def test_the_package_has_the_names_that_it_lists():
    for name in noiseless.__all__:
        assert getattr(noiseless, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        noiseless.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["noiseless", "noiseless.cli", "noiseless.errors", "noiseless.commands"])
def test_torch_is_not_imported_before_it_is_needed(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("models",), ("data", "list"), ("train", "--lr", "0"), ("train", "--lr", "x"), ("train", "--model", "resnet"),
        ("train", "--data", "digit"), ("train", "fb", "--steps", "0"), ("evaluate", "no-run"), ("digest", "no-run"),
        ("sharpness", "no-run@3"), ("report", "no-run"), ("train", "--help"), ("recipes",),
    ],
)  # fmt: skip
def test_lists_and_mistakes_do_not_wait_for_torch(arguments):
    program = (
        "import sys; from noiseless import cli\n"
        "try: cli.run(sys.argv[1:])\n"
        "finally: sys.exit(7 * ('torch' in sys.modules) or 5)"
    )
    ended = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True)
    assert ended.returncode == 5
