"""Sweeps of this program beside those of a plain loop, in one run: speed, overhead, memory, and the machine's peak.

Each side works in a process of its own, as kept memory belongs to a process; the two take turns, so that a machine that
slows down slows both.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Self

import torch
import torch.nn.functional as F

from noiseless.objective import GradientPenalty
from noiseless.objective.gradients import BlockGradients, BlockLoss
from noiseless.optim import take_step
from noiseless.run import plainloop
from noiseless.run.build import Experiment, build
from noiseless.run.config import Config
from noiseless.run.record import make_row
from noiseless.run.speed import keep_memory
from noiseless.run.work import work

STILL = 1e-9
"""learning rate of the steps that are timed: the model stays where it is"""
SIZES = (1024, 2048)
"""of the square matrices whose product is timed"""


@dataclass(frozen=True)
class Timed:
    """One turn."""

    seconds: float
    framed: float = 0.0
    """seconds of it that were not forward and backward"""


@dataclass(frozen=True)
class Case:
    """What is timed."""

    penalised: bool
    autocast: str
    """none or bfloat16"""
    whole: bool = False
    """a whole step instead of a sweep: transforms, optimizer and record too"""


Make = Callable[[Config, int], Callable[[Case], Timed]]
"""(config, images) -> what makes a sweep over the first of them"""


class Side:
    """A process that makes sweeps when it is asked to.

    Args:
        make: gives, in that process, the function that makes a sweep.
        config: of the run.
        images: of the training set that are used, in whole blocks.
    """

    def __init__(self, make: Make, config: Config, images: int):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, config, images), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._ours.send(None)
        self._process.join(10)
        self._process.kill()

    def turn(self, case: Case) -> Timed:
        """One sweep.

        Returns:
            Its time.

        Raises:
            ValueError: with what went wrong in the process.
        """
        found: Timed = self._ask(case)
        return found

    def peak(self, case: Case) -> float:
        """The most bytes in memory that the process had during one sweep; NaN where the system does not tell."""
        return float(self._ask((case,)))

    def _ask(self, asked: object) -> Any:
        try:
            self._ours.send(asked)
            found = self._ours.recv()
        except (EOFError, BrokenPipeError):
            raise ValueError("a process of the measurement has ended (out of memory?); try a smaller --block") from None
        if isinstance(found, str):
            raise ValueError(found)
        return found


def ours(config: Config, images: int) -> Callable[[Case], Timed]:
    """This program's sweeps, as a run makes them."""
    keep_memory()
    made: dict[str, Experiment] = {}

    def sweep(case: Case) -> Timed:
        if case.autocast not in made:
            recipe = replace(config.recipe, autocast=case.autocast)  # type: ignore[arg-type]
            made[case.autocast] = build(replace(config, recipe=recipe))
            made[case.autocast].model.train()
            for group in made[case.autocast].optimizer.param_groups:
                group["lr"] = STILL
        experiment = made[case.autocast]
        risk = experiment.regime.risk_at(0)
        order = torch.arange(len(risk.selection)) if risk.selection.order is None else risk.selection.order
        risk = risk.at(replace(risk.selection, order=order[:images]))
        asked = GradientPenalty(risk, 0.5, lr=config.recipe.lr) if case.penalised else risk
        risk.block_loss = clocked = _Clocked(risk.block_loss)  # type: ignore[assignment]
        began = time.perf_counter()
        if case.whole:
            taken = take_step(experiment.optimizer, asked, experiment.transform)
            make_row(experiment, 0, 1.0, config.recipe.lr, [taken], 0.0)
        else:
            asked.evaluate()
        _wait()
        seconds = time.perf_counter() - began
        return Timed(seconds, seconds - clocked.seconds)

    return sweep


def plain(config: Config, images: int) -> Callable[[Case], Timed]:
    """The plain loop's, with its blocks ready in memory."""
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    model, recipe = experiment.model.train(), experiment.config.recipe
    x, y = experiment.train.take(torch.arange(images))
    blocks = list(zip(x.split(recipe.block), y.split(recipe.block), strict=True))

    def sweep(case: Case) -> Timed:
        began = time.perf_counter()
        if case.penalised:
            plainloop.penalised(model, blocks, config.recipe.lr / 4 * 0.5, recipe.penalty_eps)
        else:
            plainloop.risk(model, blocks)
        _wait()
        return Timed(time.perf_counter() - began)

    return sweep


def peaks(threads: int, device: str = "cpu") -> dict[str, float]:
    """FLOP/s of the fastest dense kernel here, by dtype.

    The larger of square matrix products and of a 3x3 convolution of 128 images with 128 channels of 16x16.

    Args:
        threads: of torch.
        device: where.

    Returns:
        The median of several, for `none` (float32) and `bfloat16`; and of the matrix products alone, for
        `none product` and `bfloat16 product`.
    """
    keep_memory()
    torch.set_num_threads(threads)
    found = {}
    for name, dtype in (("none", torch.float32), ("bfloat16", torch.bfloat16)):
        rates = []
        for n in SIZES:
            a, b = (torch.randn(n, n).to(device, dtype) for _ in range(2))
            seconds = _median(lambda a=a, b=b: a @ b)  # type: ignore[misc]
            rates.append(2 * n**3 / seconds)
            if seconds > 1:  # a dtype that this machine has no fast kernel for
                break
        found[f"{name} product"] = max(rates)
        x = torch.randn(128, 128, 16, 16).to(device, dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3).to(device, dtype).contiguous(memory_format=torch.channels_last)
        rates.append(2 * 9 * 128**3 * 16**2 / _median(lambda x=x, w=w: F.conv2d(x, w, padding=1)))  # type: ignore[misc]
        found[name] = max(rates)
    return found


def memory(config: Config, images: int) -> tuple[float, float]:
    """The most bytes that a process had in a penalised float32 sweep, after a first one: ours, the plain loop's."""
    case, found = Case(True, "none"), []
    for make in (ours, plain):
        with Side(make, config, images) as side:
            side.turn(case)
            found.append(side.peak(case))
    return found[0], found[1]


def facts(config: Config) -> tuple[float, int]:
    """FLOPs of one example's forward and backward, and the number of training images."""
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    asked = work(experiment.config.recipe, experiment.model, experiment.train)
    return asked.gradient_flops, asked.examples


class _Clocked:
    """Block gradients whose time is added up.

    Args:
        inner: what computes them.
    """

    def __init__(self, inner: BlockLoss):
        self._inner = inner
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def differentiate(self, *arguments: Any, **named: Any) -> BlockGradients:
        began = time.perf_counter()
        found = self._inner.differentiate(*arguments, **named)
        _wait()
        self.seconds += time.perf_counter() - began
        return found


def _serve(connection: Connection, make: Make, config: Config, images: int) -> None:
    sweep: Callable[[Case], Timed] | None = None
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        if asked is None:
            return
        try:
            sweep = sweep or make(config, images)
            connection.send(_peak(sweep, asked[0]) if isinstance(asked, tuple) else sweep(asked))
        except (ValueError, RuntimeError) as error:
            connection.send(str(error))


def _wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _peak(sweep: Callable[[Case], Timed], case: Case) -> float:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        sweep(case)
        return float(torch.cuda.max_memory_allocated())
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        sweep(case)
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024


def _median(call: Callable[[], object], rounds: int = 7, enough: float = 5.0) -> float:
    """Seconds of a call, the first left out if there are others; of fewer rounds where they take more than enough."""
    found: list[float] = []
    while len(found) <= rounds and sum(found) < enough:
        began = time.perf_counter()
        call()
        _wait()
        found.append(time.perf_counter() - began)
    return median(found[1:] or found)
