"""Which runs have flows: those whose steps are of one function, by an optimizer whose equations are known."""

from __future__ import annotations

from noiseless.analysis import module_mode
from noiseless.ask.options import FlowOptions
from noiseless.ask.state import RunState
from noiseless.optim.registry import entry_of
from noiseless.run.regimes import FullBatch


def refuse(state: RunState, options: FlowOptions) -> None:
    """Raises for a run whose steps a flow does not describe, or that ends within the window.

    Args:
        state: at the start of the window.
        options: how many steps.

    Raises:
        ValueError: with the reason and the remedy, in one sentence.
    """
    recipe = state.experiment.config.recipe
    objective, data, steps = recipe.objective, recipe.data, recipe.schedule.steps
    stochastic = not isinstance(state.experiment.regime, FullBatch)
    reasons = [
        (stochastic, f"this run's regime is {objective.regime}", "--regime full-batch"),
        (objective.parts > 1, f"each update of this run renews one of {objective.parts} parts", "--parts 1"),
        (bool(objective.shuffle), "this run cuts its blocks anew at each step", "--shuffle False"),
        (data.random and not data.copies, "this run augments its images anew at each step", "--augment none"),
        (objective.penalised, "this run has a penalty", "--penalty 0 --full-penalty 0"),
        (bool(objective.sam), "the steps of this run are sharpness-aware", "--sam 0"),
        (recipe.transforms.block_clip is not None, "this run clips the gradients of blocks", "--block-clip None"),
        (
            state.experiment.transform is not None,
            f"this run changes its gradients ({getattr(state.experiment.transform, 'name', '')})",
            "no clip, noise or other transform (--clip None)",
        ),
        (bool(recipe.optimizer.lr_factors), "the layers of this run differ in learning rate", "no --lr-factors"),
        (recipe.optimizer.line_search != "none", "this run searches along lines", "--line-search none"),
    ]
    for holds, reason, remedy in reasons:
        if holds:
            raise ValueError(f"the flows are of plain full-batch steps, but {reason}: train a run with {remedy}")
    left = steps - state.step - 1
    if options.steps > left:
        advice = f"give --steps {left} or fewer" if left > 0 else f"choose a state before step {steps - 1}"
        raise ValueError(
            f"a window of {options.steps} steps from step {state.step} needs a run of {state.step + options.steps + 1}"
            f" steps, and this one has {steps}: {advice}"
        )
    rates = [state.experiment.schedule(state.step + k) for k in range(options.steps + 1)]
    if min(rates) <= 0:
        at = state.step + rates.index(min(rates))
        raise ValueError(
            f"the learning rate at step {at} is {min(rates):g}, but a flow needs one above 0: choose another state"
        )
    optimizer = state.experiment.optimizer
    if entry_of(optimizer).diagonal and state.optimizer_state is None and state.step != state.address.directory.began():
        raise ValueError(f"no checkpoint of step {state.step} holds the optimizer's state: choose one that does")


def refuse_other_functions(state: RunState) -> None:
    """Raises if the next step's function is not that of the step after it, as with dropout; two sweeps of forwards.

    Args:
        state: at the start of the window.

    Raises:
        ValueError: with both losses.
    """
    with module_mode(state.experiment.model, "block"):
        losses = [state.experiment.regime.risk_at(state.step + k).measure().loss for k in (0, 1)]
    if losses[0] != losses[1]:
        raise ValueError(
            f"the loss at these parameters is {losses[0]:.6g} in step {state.step} and {losses[1]:.6g} in the next, so"
            " the run minimises another function at each step, as with dropout: train a run whose model draws nothing"
        )
