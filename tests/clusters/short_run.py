"""The short run of the cluster checks, and what they share: an undisturbed local run, digests, messages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
    "fb-strong", "--data", "digits", "--images", "256", "--model", "resnet8", "--steps", "8", "--warmup", "2",
    "--block", "8", "--chunk", "1", "--threads", "1", "--compile", "off", "--snapshot-seconds", "0.2",
)  # fmt: skip
"""of `train`: 32 chunks a sweep, so that two workers share each step"""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "COLUMNS": "200",
}
"""variables of the program's processes"""


def local_digest(folder: Path) -> str:
    """The digest of the run in one process that nothing disturbs.

    Args:
        folder: of the run's directory, `local`.

    Returns:
        SHA-256 of the final parameters and buffers.
    """
    _program("train", *ARGUMENTS, "--run-dir", str(folder / "local"))
    return digest(folder / "local")


def digest(run: Path) -> str:
    """The digest of a run that has ended.

    Args:
        run: its directory.

    Returns:
        SHA-256 of the final parameters and buffers.
    """
    return _program("digest", str(run)).split()[0]


def compare(kind: str, run: Path, expected: str, detail: str) -> int:
    """Prints whether a run on a cluster has the digest of the local run.

    Args:
        kind: of the cluster.
        run: directory of its run.
        expected: the local run's digest.
        detail: what happened to the run.

    Returns:
        Exit code: 0 for equal digests, else 1.
    """
    mine = digest(run)
    print(f"{kind}: {detail}\n  local run   {expected}\n  {kind:11s} {mine}")
    print("  equal" if mine == expected else "  DIFFERENT")
    return int(mine != expected)


def rows(run: Path) -> int:
    """The number of steps in a run's record."""
    record = run / "metrics.jsonl"
    return record.read_bytes().count(b"\n") if record.exists() else 0


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Waits until a condition holds.

    Args:
        what: the condition in words.
        condition: to hold.
        seconds: longest wait.

    Raises:
        TimeoutError: if it does not hold by then.
    """
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """TCP ports that no process listens on."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _program(*arguments: str) -> str:
    """The output of a command of the program; raises if it fails."""
    command = [sys.executable, "-m", "noiseless", *arguments]
    return subprocess.run(
        command, env=os.environ | ENVIRONMENT, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
