"""Times how long a job takes from its start to its end with one small step: `--workers` beside torchrun.

Run it alone on the machine: .venv/bin/python benchmarks/job_start.py [--rounds 5]
Both execute the same command in the same number of workers, with one thread each; each round has both, one after the
other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

STEP = ["train", "fb", "--steps", "1", "--images", "64", "--model", "resnet8", "--threads", "1"]
PROGRAM = ["-m", "noiseless", *STEP]


def main() -> None:
    """Prints seconds of both, and their ratio: median, smallest and largest round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for workers in (2, 4):
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(workers), "--rdzv-backend", "c10d"]
        torchrun += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", *PROGRAM]
        commands = {"torchrun": torchrun, "--workers": [*PROGRAM, "--workers", str(workers)]}
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                seconds[name].append(_time(command))
        for name, values in seconds.items():
            print(f"{workers} workers, {name:9} {_spread(values)} s")
        ratios = [a / b for a, b in zip(seconds["torchrun"], seconds["--workers"], strict=True)]
        print(f"{workers} workers, torchrun / --workers {_spread(ratios)}")


def _time(arguments: list[str]) -> float:
    """Seconds of a program of Python that writes a run."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, *arguments, "--run-dir", str(Path(folder) / "run")]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        return time.perf_counter() - start


def _spread(values: list[float]) -> str:
    """Median, smallest and largest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
