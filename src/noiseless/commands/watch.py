"""The command that shows runs while they go. It imports no torch, takes no lock and writes nothing."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live

from noiseless.commands.interrupt import handled
from noiseless.files.reading import Followed
from noiseless.report import watching


@dataclass(frozen=True)
class Watch:
    """Show runs while they go: progress, curves and the last rows, until they have ended or Ctrl-C.

    Where standard output is no terminal, what there is now is printed once.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """directories of runs, on this machine or on a file system that it shares"""
    once: bool = False
    """print what there is now, and end"""
    every: float = 1.0
    """seconds between looks"""


def watch(arguments: list[str]) -> int:
    """Shows runs while they go."""
    asked = tyro.cli(Watch, args=arguments, prog="noiseless watch")
    if not asked.runs:
        raise ValueError("give at least one run: noiseless watch RUN [RUN ...]")
    if not 0 < asked.every < math.inf:
        raise ValueError(f"--every must be a positive number of seconds, not {asked.every:g}")
    runs = [Followed(Path(run)) for run in asked.runs]
    for run in runs:
        run.look()
    console = Console(highlight=False, markup=False, emoji=False)
    plain = console.options.ascii_only
    if not asked.once and sys.stdout.isatty() and not console.is_dumb_terminal:
        with handled(signal.default_int_handler, signal.SIGTERM), suppress(KeyboardInterrupt):
            _follow(runs, console, asked.every, plain)
    for run in runs:
        console.print(watching.block(run, console.width, ascii_only=plain))
    return 0


def _follow(runs: Sequence[Followed], console: Console, every: float, plain: bool) -> None:
    """Draws until all runs have ended."""
    if all(run.ended for run in runs):
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            live.update(watching.screen(runs, size.width, size.height, plain), refresh=True)
            if all(run.ended for run in runs):
                return
            time.sleep(every)
            for run in runs:
                run.look()
