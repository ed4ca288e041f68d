"""Commands with several workers: they start a job, in which each worker executes the same command."""

from __future__ import annotations

from noiseless.commands.console import tell_error
from noiseless.exits import WORKER_LOST, in_job
from noiseless.run import prepared


def needed(workers: int) -> bool:
    """Starts the prepared process if a command is to have several workers, so that both import torch at the same time.

    Args:
        workers: number of processes.

    Returns:
        Whether the command has to start a job: there are to be several workers, and this process is none of them.
    """
    if workers == 1 or in_job():
        return False
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
