"""Planned time beside that of the real run: `noiseless plan`, then `noiseless train` with the same flags.

Run it alone on the machine: .venv/bin/python benchmarks/plan.py
The run's time is taken from its files: from the checkpoint before the first step to the model after the last.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

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
    """Prints planned and real seconds, and their ratio."""
    for name, flags in CASES.items():
        planned = json.loads(_noiseless("plan", *flags.split(), "--json").splitlines()[-1])["time"]
        with tempfile.TemporaryDirectory() as place:
            run = Path(place) / "run"
            _noiseless("train", *flags.split(), "--run-dir", str(run))
            real = (run / "model.safetensors").stat().st_mtime - next((run / "checkpoints").glob("step-00000000.safetensors")).stat().st_mtime
        print(f"{name:42} planned {planned:7.1f} s, took {real:7.1f} s, ratio {planned / real:.2f}", flush=True)


def _noiseless(*arguments: str) -> str:
    command = [sys.executable, "-m", "noiseless", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


if __name__ == "__main__":
    main()
