"""Runs with several workers: the processes of a torchrun job, which `launch` starts for `--workers`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from noiseless.exits import OUTCOME
from noiseless.files.directory import environment
from noiseless.objective.workers import Alone, Team, Workers
from noiseless.recipes.flags import flag_values
from noiseless.run.build import Experiment

SEPARATE = ("run_dir", "device")
"""settings in which workers may differ"""


def join(stop: Callable[[], bool]) -> Workers:
    """The workers of the torchrun job to which this process belongs, or this process alone."""
    return Team(stop) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Alone(stop)


def in_job() -> bool:
    """Whether this process was started by torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarted() -> bool:
    """Whether torchrun has restarted this job's workers, after one of them was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def refuse_disagreement(workers: Workers, experiment: Experiment) -> None:
    """Compares everything that the bits of a worker depend on: versions, data, device, threads and flags.

    Raises:
        ValueError: naming each difference.
    """
    record = environment(experiment.config, experiment.data_sha256, [])
    mine = {name: record[name] for name in ("noiseless", "python", "git_revision", "data_sha256", "device", "threads")}
    mine |= {f"package {name}": version for name, version in record["packages"].items()}
    settings = {n: value for n, value in asdict(experiment.config.settings).items() if n not in SEPARATE}
    for name, value in (flag_values(experiment.config.recipe) | settings).items():
        mine[f"--{name.replace('_', '-')}"] = value
    setups = [json.loads(text) for text in workers.exchange(json.dumps(mine))]
    differences = [
        f"{name}: {', '.join(f'worker {rank} has {setup[name]}' for rank, setup in enumerate(setups))}"
        for name in mine
        if len({json.dumps(setup[name]) for setup in setups}) > 1
    ]
    if differences:
        raise ValueError(f"the workers disagree, so their sums would not fit together: {'; '.join(differences)}")


def launch(workers: int, arguments: list[str], restarts: int = 3) -> int:
    """Starts the program as a torchrun job on this machine, over the loopback interface, and waits for its end.

    Args:
        workers: number of processes.
        arguments: of the program, without the number of workers.
        restarts: how often lost workers are replaced.

    Returns:
        The exit code of the first worker.
    """
    with TemporaryDirectory(prefix="noiseless-") as folder:
        outcome = Path(folder) / "outcome"
        job = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(workers)]
        job += ["--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
        job += ["--local-addr", "127.0.0.1", "-m", "noiseless", *arguments]
        quiet = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "TORCHELASTIC_ERROR_FILE": ""}
        network = {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
        process = subprocess.Popen(job, env=os.environ | quiet | network | {OUTCOME: str(outcome)})  # noqa: S603
        # torchrun passes SIGTERM on to the workers, which write a snapshot and end; Ctrl-C reaches them by itself
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda received, frame: process.terminate())
        signal.signal(signal.SIGINT, lambda received, frame: None)
        code = process.wait()
        return int(outcome.read_text()) if outcome.exists() else code
