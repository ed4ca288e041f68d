"""The program in another process that begins as a copy of one with torch: seconds sooner than a new interpreter."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from pathlib import Path

from noiseless.run import prepared


class Copy:
    """Executes a command line in another process; has what tests use of `subprocess.Popen`.

    Args:
        folder: directory of two files for its output.
        arguments: of the program.
        program: name of its module.
        environ: environment variables that it has besides those of this process.
    """

    def __init__(self, folder: Path, *arguments: object, program: str = "noiseless", **environ: str):
        prepared.start()
        self._files = [folder / f"{name}.txt" for name in ("out", "err")]
        settings = (self._files, dict(os.environ) | environ, program, [str(a) for a in arguments])
        self._process = multiprocessing.get_context("forkserver").Process(target=execute, args=settings)
        self._process.start()

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        """As `poll`."""
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def terminate(self) -> None:
        """Sends it SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Kills it."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end; returns its output."""
        self._process.join(timeout)
        assert self.poll() is not None, "it has not ended"
        out, err = (path.read_text() for path in self._files)
        return out, err


def execute(files: list[Path], environ: dict[str, str], program: str, arguments: list[str]) -> None:
    """Executes a command line in this process, with its output to two files."""
    for path, stream in zip(files, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    # the processes of its jobs begin as copies of the same prepared process: to start another would import torch again
    forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
    prepared.execute(program, arguments, environ)
