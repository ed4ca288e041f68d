"""Plans a run for any number of workers: passes, FLOPs, memory, bytes sent and time.

Sizes are counted on a model without values (`sizes`). Seconds come from figures of a device (`by_figures`, with the
formulas) or from a short measurement on this machine (`by_measurement`); the formulas of memory are in `share.memory`.
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
"""how often a saved activation, or a gradient of its size, is read or written in a gradient evaluation: the forward
writes it and the next layer reads it; the backward reads it again, writes its gradient and reads that gradient"""
FORWARD_TRAFFIC = 2.0
"""how often in the forward alone"""
READS = 2
"""how often the exact sum reads a block's gradient: for its largest magnitude, and to add it"""
LOOPBACK = 1e9
"""bytes/s of an all-reduce between processes of one machine (gloo over the loopback interface)"""
MEETING = 8e-3
"""seconds per sweep that processes which keep all cores busy need to synchronise, measured on two cores"""


@dataclass(frozen=True)
class Figures:
    """Speed of one worker's device."""

    flops: float
    """FLOP/s that are reached in practice"""
    memory_bandwidth: float | None = None
    """bytes/s of its memory; None: not known, and time spent on memory traffic is not counted"""
    link_bandwidth: float | None = None
    """bytes/s of its link to the other workers; None: not known, and the all-reduce is not counted"""


@dataclass(frozen=True)
class Seconds:
    """Seconds of a step by part. Compute and traffic overlap."""

    compute: float = 0.0
    """arithmetic of the gradients; in a plan by measurement, the measured sweeps, with traffic and exact sum"""
    traffic: float = 0.0
    """reading and writing activations"""
    exact_sum: float = 0.0
    """reading and writing the exact sum's bins and the block gradients"""
    all_reduce: float = 0.0
    rest: float = 0.0
    """in a plan by measurement, what does not depend on the number of blocks"""

    @property
    def step(self) -> float:
        """Seconds of a whole step: `max(compute, traffic) + exact_sum + all_reduce + rest`."""
        return max(self.compute, self.traffic) + self.exact_sum + self.all_reduce + self.rest

    @property
    def limit(self) -> str:
        """Name of the part that takes longest."""
        parts = asdict(self)
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Plan:
    """Cost of a run. Where steps differ (with a switch of regimes), numbers of a step are means over the steps."""

    steps: int
    workers: int
    share: Share
    """busiest worker's share of a step; with a switch, of a full-batch step"""
    passes_a_step: float
    passes: float
    flops: float
    """FLOPs of all gradients, over all workers"""
    parameters: int
    memory: Memory
    """memory of one worker"""
    wire: float
    """bytes that one worker sends in a step"""
    seconds: Seconds
    """seconds of a step, by part"""
    evaluation: float
    """seconds of an evaluation on the test images by one worker"""
    evaluations: int
    checkpoint: float
    """seconds of writing a checkpoint; 0 in a plan by figures"""
    checkpoints: int

    @property
    def time(self) -> float:
        """Seconds from the first step to the last, evaluations and checkpoints included."""
        written = self.checkpoints * self.checkpoint
        return self.steps * self.seconds.step + self.evaluations * self.evaluation + written

    @property
    def busy(self) -> int:
        """Number of workers that have a chunk to compute."""
        return min(self.workers, self.share.chunks)

    @property
    def idle(self) -> int:
        """Number of workers that have nothing to do, because there are fewer chunks than workers."""
        return self.workers - self.busy


_Clock = Callable[[Recipe, Share, float], Seconds]
"""(recipe of some of the steps, share of a step, bytes that a worker sends in a step) -> seconds of a step"""


def by_figures(recipe: Recipe, settings: Settings, sizes: Sizes, workers: int, figures: Figures) -> Plan:
    """Plans a run on devices of known speed.

    A step takes `max(compute, traffic) + sum + all-reduce` seconds. The busiest of W workers has n examples in b
    blocks; an example costs c gradient evaluations of F FLOPs each and saves a bytes. Then

    - compute is `c n F / (FLOP/s)`;
    - traffic is `5 c n a / (memory bandwidth)`;
    - the sum, in r sweeps, is `r b (48 P + 2 e P) / (memory bandwidth)`: three bins of float64 are read and written,
      and the block's gradient of e bytes a number is read twice;
    - the all-reduce is a ring, which sends `2 (W - 1) / W` times the `message` of each sweep over the link.

    Latencies, updates, augmentation and checkpoints are not counted.

    Args:
        recipe: resolved or not.
        settings: of the run.
        sizes: of the run.
        workers: W, number of workers.
        figures: speed of one worker's device.

    Returns:
        The plan.
    """
    flops, bandwidth = sizes.work.gradient_flops, figures.memory_bandwidth

    def seconds(phase: Recipe, busiest: Share, wire: float) -> Seconds:
        gradients = objective_of(phase).passes * busiest.examples
        touched = sizes.work.parameters * (2 * BINS * BIN + READS * sizes.element)
        return Seconds(
            compute=gradients * flops / figures.flops,
            traffic=TRAFFIC * gradients * sizes.saved / bandwidth if bandwidth else 0.0,
            exact_sum=objective_of(phase).sweeps * busiest.own * touched / bandwidth if bandwidth else 0.0,
            all_reduce=wire / figures.link_bandwidth if figures.link_bandwidth else 0.0,
        )

    images = sizes.data.test * (2 if recipe.evaluation.test_flips else 1)
    memory_seconds = FORWARD_TRAFFIC * images * sizes.saved / bandwidth if bandwidth else 0.0
    evaluation = max(images * flops / (1 + BACKWARD) / figures.flops, memory_seconds)
    return _plan(recipe, settings, sizes, workers, seconds, evaluation)


def by_measurement(
    recipe: Recipe, settings: Settings, sizes: Sizes, workers: int, measured: Measured, room: float = 1.0
) -> Plan:
    """Plans a run whose workers are processes of this machine.

    Workers fetch the next chunk when they have finished one, so the others wait half a chunk on average for the last.

    Args:
        recipe: resolved or not.
        settings: of the run.
        sizes: of the run.
        workers: W, number of workers.
        measured: times of one process, with as many threads as a worker has.
        room: number of workers with cores of their own; with n more workers, sweeps take `(room + n) / room` times as
            long.

    Returns:
        The plan; its compute is the seconds of the sweeps.
    """

    def seconds(phase: Recipe, busiest: Share, wire: float) -> Seconds:
        sweeps = (measured.step - measured.fixed) * busiest.examples / busiest.whole
        crowd = max(1.0, min(workers, busiest.chunks) / room)
        rest = measured.fixed * max(1.0, workers / room)  # done by all workers
        if workers > 1:  # on average half a chunk until the last worker has finished
            sweeps += (measured.step - measured.fixed) / busiest.chunks / 2 if busiest.chunks > 1 else 0.0
            rest += MEETING * busiest.updates * objective_of(phase).sweeps
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
    """The plan of a run, with the seconds of a step from a function of recipe, share and bytes sent."""
    chunk = settings.chunk or speed.chunk(
        recipe.objective.block, sizes.work.parameters, sizes.data.shape[1] * sizes.data.shape[2]
    )
    phases = _phases(recipe)
    shares = [share(phase, sizes.data.train, chunk, workers) for phase in phases]
    wires = [
        busiest.updates * objective_of(phase).sweeps * 2 * (workers - 1) / workers * message(sizes, busiest)
        for phase, busiest in zip(phases, shares, strict=True)
    ]
    by_phase = [seconds(*inputs) for inputs in zip(phases, shares, wires, strict=True)]
    weights = [phase.schedule.steps / recipe.schedule.steps for phase in phases]
    passes = sum(phase.schedule.steps * passes_a_step(phase) for phase in phases)
    in_step = Seconds(**{name: _mean(weights, [getattr(s, name) for s in by_phase]) for name in asdict(by_phase[0])})
    evaluation_count = evaluations(recipe, settings)
    return Plan(
        steps=recipe.schedule.steps,
        workers=workers,
        share=shares[-1],
        passes_a_step=passes / recipe.schedule.steps,
        passes=passes,
        flops=passes * sizes.data.train * sizes.work.gradient_flops,
        parameters=sizes.work.parameters,
        memory=memory(phases[-1], sizes, shares[-1], chunk),
        wire=_mean(weights, wires),
        seconds=in_step,
        evaluation=evaluation,
        evaluations=evaluation_count,
        checkpoint=checkpoint,
        checkpoints=checkpoints(recipe, settings, recipe.schedule.steps * in_step.step + evaluation_count * evaluation),
    )


def _phases(recipe: Recipe) -> list[Recipe]:
    """The recipe alone; with a switch of regimes, one recipe for the steps before it and one for those after it."""
    if recipe.objective.regime != "switch":
        return [recipe]
    before = with_flags(recipe, regime="stochastic", steps=recipe.objective.switch)
    return [before, with_flags(recipe, regime="full-batch", steps=recipe.schedule.steps - recipe.objective.switch)]


def _mean(weights: Iterable[float], values: Iterable[float]) -> float:
    """Weighted mean, for weights whose sum is 1."""
    return sum(w * v for w, v in zip(weights, values, strict=True))
