"""What the bits of a run depend on besides its config, in `environment.json`: versions, machine, threads, data."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseless.plain import parse, read_file, typed, what
from noiseless.recipes.config import Config

FILE = "environment.json"
DEPENDS = ("noiseless", "python", "git_revision", "processor", "device", "cuda", "threads")
"""values, besides the versions of packages, in which a difference can change bits"""


def environment(config: Config, data_sha256: str, command: list[str]) -> dict[str, Any]:
    """What the bits of a run may depend on besides its config: versions, machine, threads, revision, data, command."""
    from importlib import metadata  # not above, as torch: comparisons of runs read this file without them

    import torch

    device = config.settings.device
    on_gpu = device.startswith("cuda")
    libraries = {"cuda": f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"} if on_gpu else {}
    return {
        "noiseless": metadata.version("noiseless"),
        "python": platform.python_version(),
        "packages": {
            name: metadata.version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn", "safetensors")
        },
        "platform": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        **libraries,
        "threads": torch.get_num_threads(),
        "data_sha256": data_sha256,
        "git_revision": git_revision(),
        "command": command,
    }


def _processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def git_revision() -> str | None:
    """The git revision of noiseless at the first call, whose code this process has; None if it is a package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


@dataclass(frozen=True)
class Source:
    """The checkpoint from which a run was imported."""

    file: str
    """its name"""
    sha256: str
    """of the file"""
    step: int
    """number of steps done"""


KINDS: dict[str, Any] = {
    "noiseless": str, "python": str, "packages": dict, "platform": str, "processor": str, "device": str, "cuda": str,
    "threads": int, "data_sha256": str, "git_revision": str | None, "command": tuple[str, ...], "imported": Source,
    "tags": tuple[str, ...],
}  # fmt: skip
"""name -> type of each value"""


def read(run: Path, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a run's `environment.json`.

    Args:
        run: directory of the run.
        needed: values that it must have; others may be missing.

    Returns:
        The values, of their types where they have one of the names in `KINDS`.

    Raises:
        ValueError: if it cannot be read, lacks a value, or holds one of another type.
    """
    file = run / FILE
    try:
        values = parse(read_file(file))
        if not isinstance(values, dict):
            raise ValueError(f"it holds {what(values)}, not values by name")
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for name in KINDS.keys() & values.keys():
            typed(KINDS[name], values[name], name)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{file} cannot be read: {cause}") from None
    return values


def data_sha256(run: Path) -> str:
    """The hash of the data that a run was made with.

    Args:
        run: directory of the run.

    Returns:
        Hexadecimal SHA-256.

    Raises:
        ValueError: if it cannot be read.
    """
    return str(read(run, ("data_sha256",))["data_sha256"])


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed of the things that bits can depend on.

    Args:
        recorded: when the run was made.
        now: of this process.

    Returns:
        A phrase for each difference, such as `torch 2.5.0 then, 2.6.0 now`.
    """
    then, here = _flat(recorded), _flat(now)
    return [
        f"{name} {then[name]} then, {here[name]} now"
        for name in here
        if name in then and json.dumps(then[name]) != json.dumps(here[name])
    ]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """The values of a record that bits can depend on, by name."""
    return {name: record[name] for name in DEPENDS if name in record} | record.get("packages", {})
