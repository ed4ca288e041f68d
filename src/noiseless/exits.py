"""Exit codes, and which worker of a job acts for it. Lowest layer: imports nothing else of noiseless."""

from __future__ import annotations

import os

UNEXPECTED = 1
USER_ERROR = 2
DIVERGED = 3
WORKER_LOST = 4
DIFFERENT = 5
INTERRUPTED = 130


def first_worker() -> bool:
    """Whether this process acts for its job: it has torchrun's rank 0, or there is no job."""
    return os.environ.get("RANK", "0") == "0"


def in_job() -> bool:
    """Whether this process is a worker of a torchrun job."""
    return "TORCHELASTIC_RUN_ID" in os.environ
