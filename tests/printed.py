"""A job of workers whose output is kept. Copies of the prepared process would print where that one prints.

As a program, it is the worker: `noiseless`, or the module that PRINTED_PROGRAM names, with its output at the end of the
file that PRINTED names.
"""

import os
import runpy
from pathlib import Path

import pytest

from noiseless.run import team


def launch(
    workers: int, file: Path, *arguments: object, restarts: int = 3, module: str = "noiseless"
) -> tuple[int, str]:
    """Executes a program in several workers; returns the exit code and what all of them print."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRINTED", str(file))
        patch.setenv("COLUMNS", "200")
        patch.setenv("PRINTED_PROGRAM", module)
        code = team.launch(workers, [str(a) for a in arguments], restarts, program="printed")
    return code, file.read_text()


if __name__ == "__main__":
    for stream in (1, 2):
        os.dup2(os.open(os.environ["PRINTED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    runpy.run_module(os.environ["PRINTED_PROGRAM"], run_name="__main__")
