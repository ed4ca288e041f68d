"""Makes figures of gradient descent at the edge of stability: a small network on digits, followed by `noiseless edge`.

.venv/bin/python benchmarks/edge.py [--runs DIR]
A finished run and its analysis are kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from torch import nn

HERE = Path(__file__).parent
STEPS, RATE = 120, 0.6


def mlp(channels: int, classes: int, width: int = 32, pixels: int = 64) -> nn.Module:
    """Two hidden layers of tanh, as `--model edge:mlp`."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * pixels, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, classes),
    )  # fmt: skip


def main() -> None:
    """Executes the run and its analysis where they are missing, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/edge"))
    args = parser.parse_args()
    run = args.runs / "gd"
    trust = ("--trust", "edge")
    if not (run / "model.safetensors").exists():
        _noiseless(
            "train", "fb", "--model", "edge:mlp", *trust, "--optimizer", "SGD", "--momentum", 0, "--weight-decay", 0,
            "--lr", RATE, "--schedule", "constant", "--warmup", 0, "--steps", STEPS, "--augment", "none",
            "--threads", 1,
            "--run-dir", run,
        )  # fmt: skip
    if not (run / "analysis" / "edge-step-0.json").exists():
        _noiseless("edge", run, *trust, "--every", 2, "--pairs", 1, "--batch", 0)
    _noiseless("report", run, "-o", args.runs / "edge.html", "--figures", args.runs / "figures")


def _noiseless(*arguments: object) -> None:
    """Executes a command of the program; ends with its exit code if it fails."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-m", "noiseless", *map(str, arguments)], env=environment, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
