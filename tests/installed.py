"""Installs a wheel into a fresh virtual environment and runs a first hour there, as `make dist` does.

python tests/installed.py dist/noiseless-0.1.0-py3-none-any.whl [--lowest] [--with NAME==VERSION ...] [--python PYTHON]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

PUBLIC = """
import importlib.metadata, noiseless
assert noiseless.__version__ == importlib.metadata.version("noiseless") == {version!r}
for name in noiseless.__all__:
    getattr(noiseless, name)
"""
COMMANDS = (
    "--version", "recipes", "models", "data list", "train fb --steps 3 --run-dir run", "verify run",
    "evaluate run", "sharpness run --largest 1", "export run model", "report run",
)  # fmt: skip


def lowest(requirements: list[str], replaced: list[str]) -> list[str]:
    """The lowest version that each requirement allows, but for the replaced ones.

    >>> lowest(["numpy>=1.26", "torch>=2.6", 'timm>=1.0; extra == "timm"'], ["torch==2.13"])
    ['numpy==1.26', 'torch==2.13']
    """
    needed = [line.replace(">=", "==") for line in requirements if ";" not in line]
    others = {line.split("==")[0] for line in replaced}
    return [line for line in needed if line.split("==")[0] not in others] + replaced


def check(wheel: Path, python: str, exact: bool, replaced: list[str]) -> None:
    """Creates the environment in a temporary directory, which is removed at the end."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    requirements = lowest(metadata.get_all("Requires-Dist", []), replaced) if exact else replaced
    with tempfile.TemporaryDirectory(prefix="noiseless-installed-") as directory:
        place = Path(directory)
        subprocess.run([python, "-m", "venv", place / "venv"], check=True)
        bin_ = place / "venv" / ("Scripts" if sys.platform == "win32" else "bin")

        def run(*words: str | Path) -> None:
            answer = subprocess.run([bin_ / "python", *words], cwd=place, capture_output=True, text=True, check=False)
            if answer.returncode:
                sys.exit(f"{' '.join(map(str, words))} ended with {answer.returncode}\n{answer.stdout}{answer.stderr}")

        run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel.resolve(), *requirements)
        run("-m", "pip", "check")
        run("-I", "-c", PUBLIC.format(version=metadata["Version"]))
        example = re.findall(r"```python\n(import torch.*?)```", str(metadata.get_payload()), re.DOTALL)[0]
        run("-I", "-c", example)
        for command in COMMANDS:
            run("-I", "-m", "noiseless", *command.split())
        for written in ("run/report.html", "model/model.safetensors"):
            assert (place / written).stat().st_size, written
        versions = subprocess.run([bin_ / "python", "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
        direct = {re.split("[>=;]", line)[0] for line in metadata.get_all("Requires-Dist", [])}
        print(*(line for line in versions.stdout.splitlines() if line.split("==")[0] in direct))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--lowest", action="store_true", help="with the lowest versions that pyproject.toml allows")
    parser.add_argument("--with", dest="replaced", nargs="+", default=[], help="versions of your choice, NAME==VERSION")
    parser.add_argument("--python", default=sys.executable, help="the interpreter")
    chosen = parser.parse_args()
    check(chosen.wheel, chosen.python, chosen.lowest, chosen.replaced)
    print(f"{chosen.wheel.name} works with the {'lowest' if chosen.lowest else 'newest'} versions")
