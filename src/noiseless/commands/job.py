"""Commands with several workers: they start a job, in which each worker executes the same command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from noiseless.commands.console import tell_error, tell_exception
from noiseless.commands.interrupt import stop_signals
from noiseless.errors import out_of_memory
from noiseless.exits import UNEXPECTED, USER_ERROR, WORKER_LOST, first_worker, in_job
from noiseless.run import prepared

if TYPE_CHECKING:
    from noiseless.objective.workers import Workers

MOST_WORKERS = 16
"""largest number of workers for each core of a machine"""


def needed(workers: int) -> bool:
    """Starts the prepared process if a command is to have several workers, so that both import torch at the same time.

    Args:
        workers: number of processes.

    Returns:
        Whether the command has to start a job: there are to be several workers, and this process is none of them.

    Raises:
        ValueError: for far more workers than this machine has cores.
    """
    if workers == 1 or in_job():
        return False
    cores = os.cpu_count() or 1
    if workers > MOST_WORKERS * cores:
        raise ValueError(
            f"--workers must be at most {MOST_WORKERS * cores}, {MOST_WORKERS} for each core of this machine, not"
            f" {workers}"
        )
    prepared.start()
    return True


def execute(workers: int, arguments: list[str]) -> int:
    """Executes a command in a job of this machine.

    Args:
        workers: number of processes.
        arguments: of the program, without the number of workers.

    Returns:
        The exit code of the first worker.
    """
    from noiseless.objective.workers import WorkerLostError
    from noiseless.run import team

    try:
        return team.launch(workers, arguments)
    except WorkerLostError as error:
        tell_error(str(error))
        return WORKER_LOST


def fail_before_joining(code: int) -> bool:
    """Ends the other workers if this process is a worker of a job that it has not joined, because it has failed.

    Args:
        code: exit code of all workers.

    Returns:
        Whether its message is to be printed: it is alone, or the first worker that has failed.
    """
    if not in_job() or os.environ.get("WORLD_SIZE", "1") == "1":
        return first_worker()
    from noiseless.objective import team

    return team.fail_before_joining(code)


@contextmanager
def joined() -> Iterator[Workers]:
    """A context in which this process is one worker of its job, or the only process.

    An error that a restart cannot mend ends all workers with one message and one exit code, also where one worker alone
    has it. A lost worker ends the others, so that torchrun starts them again.

    Yields:
        The workers.

    Raises:
        Exception: of the only process, or for a bug, after the other workers are told to end.
        BrokenPipeError: of this worker, after the others are told to end.
    """
    from noiseless.objective.workers import JobFailedError, WorkerLostError
    from noiseless.run import team

    with stop_signals() as signals:
        try:
            workers = team.join(lambda: bool(signals))
        except WorkerLostError as error:
            tell_error(str(error))
            sys.exit(WORKER_LOST)
        except JobFailedError as failed:
            sys.exit(failed.code)
        with closing(workers):
            try:
                yield workers
            except WorkerLostError as error:
                tell_error(str(error))
                sys.exit(WORKER_LOST)  # directly: torchrun is to restart the workers
            except JobFailedError as failed:
                sys.exit(failed.code)
            except BrokenPipeError:
                workers.fail(0)
                raise
            except Exception as error:
                told = isinstance(error, (ValueError, OSError)) or out_of_memory(error)
                first = workers.fail(USER_ERROR if told else UNEXPECTED)
                if workers.count == 1 or not told:
                    raise
                if first:
                    tell_exception(error)
                sys.exit(USER_ERROR)
