"""What a release consists of: one version, files that exist, commands of make that exist, declared dependencies."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from installed import lowest

import noiseless

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTS = {
    "IPython": "ipykernel",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}  # a notebook has the first


def test_the_version_has_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert f"\nversion: {noiseless.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {noiseless.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_sdist_has_what_its_manifest_names() -> None:
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        command, *names = line.split()
        assert command == "global-exclude" or all((ROOT / name).exists() for name in names), line


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", ".github/workflows/ci.yml"])
def test_every_target_of_make_exists(file: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = re.findall(r"^(?:- run: |)make ([a-z ]+?)(?: +#.*)?$", (ROOT / file).read_text().replace("      ", ""), re.M)
    assert {"test", "docs", "dist"} <= {name for names in used for name in names.split()} <= targets


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    declared = {re.split(r"[>\[]", line)[0] for line in PROJECT["dependencies"] + extras}
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    imported -= {"noiseless", "triton"}  # torch's builds for GPUs bring Triton; elsewhere it is not used
    others = {IMPORTS.get(name, name) for name in imported - set(sys.stdlib_module_names)}
    assert others >= {"torch", "numpy"}
    assert others <= declared


def test_the_lowest_versions() -> None:
    needed = ["numpy>=1.26", "torch>=2.6", 'timm>=1.0; extra == "timm"']
    assert lowest(needed, ["torch==2.13"]) == ["numpy==1.26", "torch==2.13"]
