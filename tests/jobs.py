"""Real torchrun jobs for tests: on the loopback interface, one thread a worker, found by a mark of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

WORKER = Path(__file__).parent / "worker_script.py"


def command(count: int, *arguments: str, restarts: int = 0) -> list[str]:
    """A torchrun command line on this machine; arguments begin with -m MODULE or a script."""
    job = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    job += ["--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    return [*job, "--local-addr", "127.0.0.1", *arguments]


class Job:
    """A process with children, one of which may be killed; its output is kept."""

    def __init__(self, arguments: list[str], log: Path):
        self.mark, self.log = uuid.uuid4().hex, log
        quiet = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "JOB_MARK": self.mark, "COLUMNS": "200"}
        with log.open("w") as file:
            self.process = subprocess.Popen(arguments, stdout=file, stderr=file, env=os.environ | quiet)

    def workers(self) -> list[int]:
        """Process numbers of the job's living workers."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                try:
                    text = (place / "environ").read_text(errors="replace")
                except OSError:
                    continue
                if f"JOB_MARK={self.mark}" in text and "\0RANK=" in text:
                    found.append(int(place.name))
        return sorted(found)

    def wait(self, seconds: float = 240.0) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the job did not end: {self.log.read_text()[-3000:]}") from None

    def until(self, happened, seconds: float = 120.0) -> None:
        """Waits until something has happened, while the job runs."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"the job ended first: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"it did not happen: {self.log.read_text()[-3000:]}"
            time.sleep(0.02)
