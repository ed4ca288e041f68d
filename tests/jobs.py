"""Real torchrun jobs for tests, on the loopback interface, with one thread a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path


def command(count: int, *arguments: str, restarts: int = 0) -> list[str]:
    """A torchrun command line on this machine; arguments begin with -m MODULE or a script."""
    job = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    job += ["--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    return [*job, "--local-addr", "127.0.0.1", *arguments]


def wait_until(process, condition, output=lambda: "", seconds: float = 60.0) -> None:
    """Waits until `condition()` is true; fails with `output()` if the process ends first or it takes too long."""
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the process ended first: {output()}"
        if time.monotonic() >= limit:
            process.kill()
            raise AssertionError(f"it did not happen in {seconds:g} s: {output()}")
        time.sleep(0.01)


class Job:
    """A process with worker processes, which a mark in their environment identifies; its output goes to a file."""

    def __init__(self, arguments: list[str], log: Path):
        self.mark, self.log = uuid.uuid4().hex, log
        environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "JOB_MARK": self.mark, "COLUMNS": "200"}
        with log.open("w") as file:
            self.process = subprocess.Popen(arguments, stdout=file, stderr=file, env=os.environ | environment)

    def workers(self) -> list[int]:
        """Process ids of the job's running workers: those of torchrun, or the copies of the prepared process."""
        processes = [process for process in _processes() if f"JOB_MARK={self.mark}" in process.environment]
        servers = {process.number for process in processes if process.prepared}
        return sorted(p.number for p in processes if "\0RANK=" in p.environment or p.parent in servers)

    def wait(self, seconds: float = 240.0) -> int:
        """Waits for the end of the job; returns its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the job did not end: {self.log.read_text()[-3000:]}") from None

    def until(self, condition, seconds: float = 120.0) -> None:
        """Waits until `condition()` is true; fails if the job ends first."""
        wait_until(self.process, condition, lambda: self.log.read_text()[-3000:], seconds)


def copies() -> list[int]:
    """Process ids of the running copies of this process's prepared process."""
    processes = _processes()
    servers = {process.number for process in processes if process.prepared and process.parent == os.getpid()}
    return sorted(process.number for process in processes if process.parent in servers)


@dataclass(frozen=True)
class _Process:
    number: int
    parent: int
    environment: str
    prepared: bool


def _processes() -> list[_Process]:
    """The processes of this machine that can be read."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment, command = ((entry / n).read_text(errors="replace") for n in ("environ", "cmdline"))
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            # copies have the command line of the prepared process, and are its children
            processes.append(_Process(int(entry.name), parent, environment, "multiprocessing.forkserver" in command))
    return processes
