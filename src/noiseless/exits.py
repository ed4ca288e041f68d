"""Exit codes, and how a worker of a job reports its code. Lowest layer: imports nothing else of noiseless."""

from __future__ import annotations

import os
from pathlib import Path

USER_ERROR = 2
DIVERGED = 3
WORKER_LOST = 4
DIFFERENT = 5
INTERRUPTED = 130
OUTCOME = "NOISELESS_OUTCOME"
"""environment variable: path of the file into which the first worker of a job started by noiseless writes its code"""


def first_worker() -> bool:
    """Whether this process acts for its job: it has torchrun's rank 0, or there is no job."""
    return os.environ.get("RANK", "0") == "0"


def exit_status(code: int) -> int:
    """The status with which this process ends.

    A worker of a job started by noiseless writes the code into a file and ends with 0, because torchrun would restart
    the job after any other status.

    Args:
        code: exit code of the command.

    Returns:
        The code; 0 for such a worker.
    """
    path = os.environ.get(OUTCOME)
    if path is None or "RANK" not in os.environ:
        return code
    if first_worker():
        Path(path).write_text(str(code))
    return 0
