"""The flatness of a run at one of its states: mean rise of the loss along random directions."""

from __future__ import annotations

from collections.abc import Callable

from noiseless.analysis import average_flatness
from noiseless.ask.options import FlatnessOptions
from noiseless.ask.state import RunState
from noiseless.files.answers import Answer

KIND = "flatness"


def flatness(
    state: RunState,
    options: FlatnessOptions,
    on_direction: Callable[[float | None], None] = lambda increase: None,
) -> Answer:
    """Measures the mean rise of the training loss along random directions; see `analysis.average_flatness`.

    The loss is that of `RunState.risk`: over all training examples as the step sees them, without penalty.

    Args:
        state: of the run; every worker must call this.
        options: radius, directions and when to stop.
        on_direction: called with the increase along each direction; None where it is not finite.

    Returns:
        The answer.

    Raises:
        ValueError: if an option is out of range.
    """
    measured = average_flatness(
        state.risk, options.radius, options.normalised, seed=options.seed, batch_norm=options.batch_norm,
        tolerance=options.tolerance, most=options.most, on_direction=on_direction,
    )  # fmt: skip
    name = f"step{state.step}-{options.normalised}-radius{options.radius:g}-{options.batch_norm}-seed{options.seed}"
    return Answer(
        KIND,
        name,
        {
            "step": state.step,
            "radius": options.radius,
            "normalised": options.normalised,
            "seed": options.seed,
            "batch_norm": options.batch_norm,
            "tolerance": options.tolerance,
            "directions": len(measured.increases),
            "mean_increase": measured.mean,
            "standard_error": measured.standard_error,
            "increases": measured.increases,
            "stopped": measured.stopped,
            "passes": measured.passes,
        },
    )
