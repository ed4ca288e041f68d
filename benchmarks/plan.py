"""Compares the time planned by `noiseless plan` with that of `noiseless train` with the same flags.

Run it alone on the machine: .venv/bin/python benchmarks/plan.py
The time of a run is that between two of its files: the checkpoint before the first step and the model after the last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

CASES = {
    "fb-regularized on digits": "fb-regularized",
    "fb-clipped, 2 workers": "fb-clipped --workers 2 --chunk 1",
    "sgd": "sgd",
    "fb-strong, central differences": "fb-strong --penalty-method central --steps 40",
    "AdamW, 1 thread": "fb --optimizer AdamW --threads 1",
    "mnist-5k at 28x28, compiled": "fb-clipped --data mnist-5k --steps 30 --compile on",
    "resnet18 on mnist-5k": "fb --data mnist-5k --model resnet18 --block 128 --steps 2 --compile off",
    "resnet18, penalised, bfloat16, compiled": "fb-regularized --data mnist-5k --pixels 14 --model resnet18 --block 128"
    " --steps 4 --autocast bfloat16 --compile on",
}


def main() -> None:
    """Prints planned and real seconds and their ratio: medians of several rounds in which both take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    for name, flags in CASES.items():
        times = sorted((_planned(flags.split()), _real(flags.split())) for _ in range(rounds))
        ratios = sorted(planned / real for planned, real in times)
        planned, real = (median(seconds) for seconds in zip(*times, strict=True))
        print(
            f"{name:40} planned {planned:6.1f} s, took {real:6.1f} s,"
            f" ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def _planned(flags: list[str]) -> float:
    """Seconds by `noiseless plan`."""
    return float(json.loads(_noiseless("plan", *flags, "--json").splitlines()[-1])["time"])


def _real(flags: list[str]) -> float:
    """Seconds of a run by `noiseless train`."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        _noiseless("train", *flags, "--run-dir", str(run))
        first = run / "checkpoints" / "step-00000000.safetensors"
        return (run / "model.safetensors").stat().st_mtime - first.stat().st_mtime


def _noiseless(*arguments: str) -> str:
    command = [sys.executable, "-m", "noiseless", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


if __name__ == "__main__":
    main()
