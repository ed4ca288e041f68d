"""Exit codes, and how a worker of a job tells its own. Ground floor: imports nothing of the program."""

from __future__ import annotations

import os
from pathlib import Path

USER_ERROR = 2
DIVERGED = 3
WORKER_LOST = 4
DIFFERENT = 5
INTERRUPTED = 130
OUTCOME = "NOISELESS_OUTCOME"
"""environment variable: a file into which the first worker of a job that the program has started writes its code"""


def first_worker() -> bool:
    """Whether this process speaks for its job: it is the first of torchrun's workers, or there is no job."""
    return os.environ.get("RANK", "0") == "0"


def told(code: int) -> int:
    """What the process exits with: the code, or 0 where the starter reads it and torchrun must not restart the job."""
    path = os.environ.get(OUTCOME)
    if path is None or "RANK" not in os.environ:
        return code
    if first_worker():
        Path(path).write_text(str(code))
    return 0
