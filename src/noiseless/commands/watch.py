"""The command `watch`, which shows the progress of runs. It does not import torch, take locks or write files."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.live import Live

from noiseless.commands.parsing import parse
from noiseless.files.address import refuse_state
from noiseless.files.finding import has_runs, runs_below
from noiseless.files.reading import Followed
from noiseless.report import watching
from noiseless.screen import Screen
from noiseless.system import signal_handler

TICK = 0.1
"""seconds between two looks at whether a signal has come; an exception in its handler could be lost in a callback"""


@dataclass(frozen=True)
class Watch:
    """Show the progress of runs in the terminal: curves and the last rows, until they have ended or Ctrl-C.

    If standard output is not a terminal, the present state is printed once.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """directories of runs, or of races, on this machine or on a shared file system; one that is not there yet is waited
    for"""
    once: bool = False
    """print the present state, and exit"""
    every: float = 1.0
    """seconds between updates"""


def watch(arguments: list[str]) -> int:
    """Shows the progress of runs."""
    args = parse(Watch, arguments, "watch")
    if not args.runs:
        raise ValueError("give at least one run: noiseless watch RUN [RUN ...]")
    if not 0 < args.every < math.inf:
        raise ValueError(f"--every must be a positive number of seconds, not {args.every:g}")
    console = Screen(soft_wrap=False)
    plain = console.options.ascii_only
    for text in args.runs:
        refuse_state(text, "watch", "it shows all steps")
    places = [Path(run) for run in args.runs]
    if args.once or not sys.stdout.isatty() or console.is_dumb_terminal:
        runs = _opened(places)
    else:
        received: list[int] = []
        with signal_handler(lambda number, frame: received.append(number), signal.SIGINT, signal.SIGTERM):
            _wait(places, console, args.every, lambda: bool(received))
            if received:
                return 0
            runs = _opened(places)
            _follow(runs, console, args.every, plain, lambda: bool(received))
    for run in runs:
        console.print(watching.block(run, console.width, ascii_only=plain))
    return 0


def _opened(places: Sequence[Path]) -> list[Followed]:
    """The runs at some paths, or below them, as they are now."""
    runs = [Followed(path) for place in places for path in runs_below(place)]
    for run in runs:
        run.look()
    return runs


def _wait(places: Sequence[Path], console: Screen, every: float, stopped: Callable[[], bool]) -> None:
    """Waits until there is a run at each of the paths, or it is stopped; prints for which one it waits."""
    for place in places:
        waits = False
        while (not place.exists() or place.is_dir()) and not has_runs(place) and not stopped():
            if not waits:
                console.print(f"waiting for {place}, where no run has begun yet; Ctrl-C stops waiting")
            waits = True
            _sleep(every, stopped)


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleeps until the time is over or it is stopped."""
    end = time.monotonic() + seconds
    while not stopped() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, TICK))


def _follow(runs: Sequence[Followed], console: Screen, every: float, plain: bool, stopped: Callable[[], bool]) -> None:
    """Draws the runs until all of them have ended, or it is stopped."""
    if all(run.ended for run in runs):
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            live.update(watching.screen(runs, size.width, size.height, plain), refresh=True)
            if all(run.ended for run in runs):
                return
            _sleep(every, stopped)
            if stopped():
                return
            for run in runs:
                run.look()
