"""The prepared process: it has imported torch and what runs need, and the processes of jobs begin as its copies.

A copy begins in milliseconds, where a new interpreter would import torch for seconds. It is multiprocessing's fork
server. Nothing here imports torch, so the prepared process does it while the one that starts it does the same.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from typing import Any

from noiseless.system import STOPS, blocked, unblock

MODULES = (
    "noiseless.study.processes", "noiseless.run.session", "noiseless.run.train", "noiseless.report.page",
    "torch._dynamo",  # imported when an optimizer is constructed
)  # fmt: skip


def start() -> None:
    """Starts the prepared process, if there is none yet, and does not wait for it. Copies have one thread each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # so torch asks for GPUs without starting CUDA, which a copy of this process could not use then
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    multiprocessing.set_forkserver_preload(list(MODULES))
    resource_tracker.ensure_running()  # its start would unblock signals
    with blocked():  # it has to outlive its copies, which may be sent these signals together with it
        forkserver.ensure_running()


def take_signals(interrupt: Callable[[int, Any], Any] | int = signal.default_int_handler) -> None:
    """Gives a copy the signals of a new process.

    Args:
        interrupt: handler of Ctrl-C (SIGINT).
    """
    for number in STOPS:
        signal.signal(number, interrupt if number == signal.SIGINT else signal.SIG_DFL)
    unblock()


def execute(program: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Executes a program in a copy, as `python -m` does in a new process.

    Args:
        program: name of its module.
        arguments: of the program.
        environment: environment variables, which may have changed since the prepared process was started.
    """
    take_signals()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__")
