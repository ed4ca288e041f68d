"""Runs with several workers: the processes of a job of torchrun or another launcher, or of `launch` for `--workers`."""

from __future__ import annotations

import json
import logging
import os
import signal
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing.spawn import ProcessExitedException

from noiseless.exits import INTERRUPTED, UNEXPECTED, WORKER_LOST, first_worker, group_exists
from noiseless.files.environment import environment
from noiseless.objective.team import Team
from noiseless.objective.workers import Alone, WorkerLostError, Workers
from noiseless.recipes.flags import flag_values
from noiseless.run import prepared
from noiseless.run.build import Training
from noiseless.system import STOPS, end

SEPARATE = ("run_dir", "device")
"""settings in which workers may differ"""


def join(stop: Callable[[], bool]) -> Workers:
    """The workers of the job to which this process belongs, or this process alone.

    The job is the process group that exists already, or else the one that torchrun's variables describe.

    Args:
        stop: see `Workers`.

    Returns:
        The workers.
    """
    count = distributed.get_world_size() if group_exists() else int(os.environ.get("WORLD_SIZE", "1"))
    return Team(stop) if count > 1 else Alone(stop)


def restarted() -> bool:
    """Whether torchrun has restarted this job's workers, after one of them was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def refuse_disagreement(workers: Workers, experiment: Training) -> None:
    """Compares everything that the bits of a worker depend on: versions, data, device, threads and flags.

    Raises:
        ValueError: naming each difference.
    """
    record = environment(experiment.config, experiment.data_sha256, [])
    names = ("noiseless", "python", "git_revision", "data_sha256", "device", "cuda", "threads")
    mine = {name: record.get(name, "none") for name in names}
    mine |= {f"package {name}": version for name, version in record["packages"].items()}
    settings = {n: value for n, value in asdict(experiment.config.settings).items() if n not in SEPARATE}
    for name, value in (flag_values(experiment.config.recipe) | settings).items():
        mine[f"--{name.replace('_', '-')}"] = value
    if experiment.config.recipe.model.portable:
        del mine["threads"], mine["--threads"]
    setups = [json.loads(text) for text in workers.exchange(json.dumps(mine))]
    differences = [
        f"{name}: {', '.join(f'worker {rank} has {setup[name]}' for rank, setup in enumerate(setups))}"
        for name in mine
        if len({json.dumps(setup[name]) for setup in setups}) > 1
    ]
    if differences:
        raise ValueError(f"the workers disagree, so their sums would not fit together: {'; '.join(differences)}")


def launch(workers: int, arguments: list[str], restarts: int = 3, program: str = "noiseless") -> int:
    """Executes a command in several processes of this machine, over the loopback interface, and waits for their end.

    This process is the agent of a torchrun job, whose workers are copies of the prepared process.

    Args:
        workers: number of processes.
        arguments: of the program, without the number of workers.
        restarts: how often lost workers are replaced.
        program: name of the module that each worker executes.

    Returns:
        The exit code of the first worker.

    Raises:
        WorkerLostError: if workers are lost more often.
    """
    prepared.start()
    logging.getLogger(AGENT[0]).addFilter(_without_traceback)
    with TemporaryDirectory(prefix="noiseless-") as name:
        folder = Path(name)
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=workers, max_restarts=restarts, run_id=uuid.uuid4().hex,
            rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", start_method="forkserver",
            logs_specs=DefaultLogsSpecs(name),
        )  # fmt: skip
        config.signals_to_handle = "SIGQUIT"  # after others, the agent would wait for 30 s at most
        variables = {"GLOO_SOCKET_IFNAME": "lo"} | os.environ
        with _passed_on(folder):
            try:
                elastic_launch(config, _work)(program, arguments, variables, folder)
            except ChildFailedError as error:
                if not (folder / STOP).exists():
                    raise WorkerLostError(_LOST.format(restarts)) from error
            except SignalException:
                pass
        outcome = folder / OUTCOME
        return int(outcome.read_text()) if outcome.exists() else INTERRUPTED


_LOST = "a worker was lost, after {} restarts of the job; start the same command again to continue"
AGENT = ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn")
"""loggers of torchrun's agent"""
STOP, OUTCOME = "stop", "outcome"
"""files in the folder of a job: the first exists after a signal; the second has the exit code of the first worker"""


def _without_traceback(record: logging.LogRecord) -> bool:
    """A filter of the agent's log: that a worker was killed is one line."""
    if record.exc_info and isinstance(record.exc_info[1], ProcessExitedException):
        record.exc_info = None
    return True


@contextmanager
def _passed_on(folder: Path) -> Iterator[None]:
    """A context in which signals are passed on to the workers, of which each has a file with its process id."""

    def pass_on(number: int, frame: object) -> None:
        again = (folder / STOP).exists()
        (folder / STOP).touch()  # for workers that begin now
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # that workers end is no news then
        for path in folder.glob("worker-*"):
            with suppress(OSError, ValueError):  # it ends or begins just now
                end(int(path.read_text()), at_once=again)
        if again:
            raise KeyboardInterrupt

    loggers = [logging.getLogger(name) for name in AGENT]
    levels = [logger.level for logger in loggers]
    before = {number: signal.signal(number, pass_on) for number in STOPS}
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(program: str, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """Executes a program as a worker. The first one, and one that fails, writes the exit code to a file.

    Only a lost worker is an error for the agent, which would restart all: other errors would come again.

    Raises:
        SystemExit: if a worker is lost, so that the agent restarts this one, too.
    """
    mine, code = folder / f"worker-{os.environ['RANK']}", 0
    mine.write_text(str(os.getpid()))
    try:
        if (folder / STOP).exists():
            return
        prepared.execute(program, arguments, environment)
    except SystemExit as end:
        if end.code == WORKER_LOST:
            raise
        code = int(end.code or 0)
    except Exception:
        traceback.print_exc()
        code = UNEXPECTED
    finally:
        mine.unlink()
    if first_worker() or code:
        (folder / OUTCOME).write_text(str(code))
