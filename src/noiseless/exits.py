"""Exit codes, and which worker of a job acts for it. Lowest layer: imports nothing else of noiseless."""

from __future__ import annotations

import os
import sys

UNEXPECTED = 1
USER_ERROR = 2
DIVERGED = 3
WORKER_LOST = 4
DIFFERENT = 5
INTERRUPTED = 130


def first_worker() -> bool:
    """Whether this process acts for its job: it has rank 0 in its process group, or there is no job."""
    if group_exists():
        return sys.modules["torch.distributed"].get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def in_job() -> bool:
    """Whether this process is a worker of a job, which torchrun or another launcher has started."""
    return "RANK" in os.environ or group_exists()


def group_exists() -> bool:
    """Whether this process has a process group of torch.distributed; does not import torch."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
