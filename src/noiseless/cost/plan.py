"""What a run will take before it begins: passes, FLOPs, memory, bytes on the wire and time, for any number of workers.

Sizes are counted on a model without values (`sizes`), and turned into seconds by figures of a device, or by a short
measurement on this machine (`cost`). The formulas are those of `by_figures`, and of `memory` in `share`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from noiseless.cost.cost import Measured, checkpoints, evaluations
from noiseless.cost.share import BIN, BINS, Memory, Share, memory, message, share
from noiseless.cost.sizes import Sizes
from noiseless.recipes.config import Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.run import speed
from noiseless.run.work import BACKWARD, objective_of, passes_a_step

TRAFFIC = 5.0
"""times that a saved activation, or a gradient of its size, goes over the memory's bus in a gradient evaluation: the
forward writes it and its next layer reads it; the backward reads it again, writes its gradient and reads that"""
FORWARD_TRAFFIC = 2.0
"""of these, in the forward"""
READS = 2
"""times that the exact sum reads a block's gradient: for its largest magnitude, and to add it"""
LOOPBACK = 1e9
"""bytes/s of all-reduces between the processes of one machine (gloo over the loopback interface)"""
MEETING = 8e-3
"""seconds of a sweep in which processes that keep all cores busy find together, seen on two cores"""


@dataclass(frozen=True)
class Figures:
    """What one worker's device can do."""

    flops: float
    """FLOP/s, as they are reached"""
    memory_bandwidth: float | None = None
    """bytes/s of its memory; None: not known, and what waits for it is not counted"""
    link_bandwidth: float | None = None
    """bytes/s of its link to the other workers; None: not known, and not counted"""


@dataclass(frozen=True)
class Seconds:
    """Of a step, by part; compute and traffic go on at the same time."""

    compute: float = 0.0
    """arithmetic of the gradients; of a measurement, the sweeps as they are, with traffic and exact sum"""
    traffic: float = 0.0
    """activations through the memory"""
    exact_sum: float = 0.0
    """the bins and block gradients through the memory"""
    all_reduce: float = 0.0
    rest: float = 0.0
    """measured: what does not belong to a block"""

    @property
    def step(self) -> float:
        """All of it."""
        return max(self.compute, self.traffic) + self.exact_sum + self.all_reduce + self.rest

    @property
    def limit(self) -> str:
        """The part that takes longest, by its name."""
        parts = asdict(self)
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Plan:
    """What a run will take. What differs from step to step (with a switch of regimes) is the mean over the steps."""

    steps: int
    workers: int
    share: Share
    """of a step; with a switch, of one with the full batch"""
    passes_a_step: float
    passes: float
    flops: float
    """of all gradients, over all workers"""
    parameters: int
    memory: Memory
    """of a worker"""
    wire: float
    """bytes that a worker sends in a step"""
    seconds: Seconds
    """of a step"""
    evaluation: float
    """seconds of an evaluation on the test images, by one worker"""
    evaluations: int
    checkpoint: float
    """seconds of writing one; 0 where it was not measured"""
    checkpoints: int

    @property
    def time(self) -> float:
        """Seconds from the first step to the last, evaluations and checkpoints included."""
        written = self.checkpoints * self.checkpoint
        return self.steps * self.seconds.step + self.evaluations * self.evaluation + written

    @property
    def busy(self) -> int:
        """Workers that have something to do."""
        return min(self.workers, self.share.chunks)

    @property
    def idle(self) -> int:
        """Those that have nothing to do, as there are more of them than chunks."""
        return self.workers - self.busy


_Clock = Callable[[Recipe, Share, float], Seconds]
"""(recipe of a part of the steps, share of a step, bytes that a worker sends) -> seconds of a step"""


def by_figures(recipe: Recipe, settings: Settings, sizes: Sizes, workers: int, figures: Figures) -> Plan:
    """The plan of a run on devices with known figures.

    A step takes `max(compute, traffic) + sum + all-reduce`. The busiest of W workers has n examples in b blocks; an
    example costs c gradient evaluations of F FLOPs and saves a bytes. Then compute is `c n F` over its FLOP/s; traffic
    `5 c n a` and the sum, in r sweeps, `r b (48 P + 2 e P)` over its memory bandwidth (three bins of float64 read and
    written, the block's gradient of e bytes a number read twice); and a ring sends `2 (W - 1) / W` times the `message`
    of each sweep over the link. Latencies, updates, augmentation and checkpoints are not counted.

    Args:
        recipe: resolved or not.
        settings: of the run.
        sizes: of the run.
        workers: W.
        figures: of one worker's device.

    Returns:
        The plan.
    """
    flops, bandwidth = sizes.work.gradient_flops, figures.memory_bandwidth

    def seconds(part: Recipe, own: Share, wire: float) -> Seconds:
        asked = objective_of(part).passes * own.examples
        touched = sizes.work.parameters * (2 * BINS * BIN + READS * sizes.element)
        return Seconds(
            compute=asked * flops / figures.flops,
            traffic=TRAFFIC * asked * sizes.saved / bandwidth if bandwidth else 0.0,
            exact_sum=objective_of(part).sweeps * own.own * touched / bandwidth if bandwidth else 0.0,
            all_reduce=wire / figures.link_bandwidth if figures.link_bandwidth else 0.0,
        )

    tested = sizes.data.test * (2 if recipe.evaluation.test_flips else 1)
    moved = FORWARD_TRAFFIC * tested * sizes.saved / bandwidth if bandwidth else 0.0
    evaluation = max(tested * flops / (1 + BACKWARD) / figures.flops, moved)
    return _plan(recipe, settings, sizes, workers, seconds, evaluation)


def by_measurement(
    recipe: Recipe, settings: Settings, sizes: Sizes, workers: int, measured: Measured, room: float = 1.0
) -> Plan:
    """The plan of a run whose workers are processes of this machine.

    Args:
        recipe: resolved or not.
        settings: of the run.
        sizes: of the run.
        workers: W.
        measured: of one process, with the threads that a worker has.
        room: workers that fit on the machine; where n more are at work, sweeps take `(room + n) / room` times as long.

    Returns:
        The plan, with the sweeps' seconds as compute. Workers take chunks as they get on: in the mean, the others wait
        half a chunk for the last one.
    """

    def seconds(part: Recipe, own: Share, wire: float) -> Seconds:
        sweeps = (measured.step - measured.fixed) * own.examples / own.whole
        crowd = max(1.0, min(workers, own.chunks) / room)
        rest = measured.fixed * max(1.0, workers / room)  # which all workers do
        if workers > 1:  # half a chunk, in the middle, until the last one is done
            sweeps += (measured.step - measured.fixed) / own.chunks / 2 if own.chunks > 1 else 0.0
            rest += MEETING * own.updates * objective_of(part).sweeps
        return Seconds(compute=sweeps * crowd, all_reduce=wire / LOOPBACK, rest=rest)

    return _plan(recipe, settings, sizes, workers, seconds, measured.evaluation, measured.checkpoint)


def _plan(
    recipe: Recipe,
    settings: Settings,
    sizes: Sizes,
    workers: int,
    seconds: _Clock,
    evaluation: float,
    checkpoint: float = 0.0,
) -> Plan:
    chunk = settings.chunk or speed.chunk(
        recipe.objective.block, sizes.work.parameters, sizes.data.shape[1] * sizes.data.shape[2]
    )
    parts = _parts(recipe)
    shares = [share(part, sizes.data.train, chunk, workers) for part in parts]
    wires = [
        own.updates * objective_of(part).sweeps * 2 * (workers - 1) / workers * message(sizes, own)
        for part, own in zip(parts, shares, strict=True)
    ]
    spent = [seconds(*each) for each in zip(parts, shares, wires, strict=True)]
    weights = [part.schedule.steps / recipe.schedule.steps for part in parts]
    passes = sum(part.schedule.steps * passes_a_step(part) for part in parts)
    in_step = Seconds(**{name: _mean(weights, [getattr(each, name) for each in spent]) for name in asdict(spent[0])})
    asked = evaluations(recipe, settings)
    return Plan(
        steps=recipe.schedule.steps,
        workers=workers,
        share=shares[-1],
        passes_a_step=passes / recipe.schedule.steps,
        passes=passes,
        flops=passes * sizes.data.train * sizes.work.gradient_flops,
        parameters=sizes.work.parameters,
        memory=memory(parts[-1], sizes, shares[-1], chunk),
        wire=_mean(weights, wires),
        seconds=in_step,
        evaluation=evaluation,
        evaluations=asked,
        checkpoint=checkpoint,
        checkpoints=checkpoints(recipe, settings, recipe.schedule.steps * in_step.step + asked * evaluation),
    )


def _parts(recipe: Recipe) -> list[Recipe]:
    """The recipe; with a switch, what is before and after it."""
    if recipe.objective.regime != "switch":
        return [recipe]
    before = with_flags(recipe, regime="stochastic", steps=recipe.objective.switch)
    return [before, with_flags(recipe, regime="full-batch", steps=recipe.schedule.steps - recipe.objective.switch)]


def _mean(weights: Iterable[float], values: Iterable[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True))
