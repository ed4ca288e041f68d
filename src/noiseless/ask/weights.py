"""The weight space of a run at one of its states: norms, distances from the start, and the next update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noiseless.analysis import Weights
from noiseless.analysis import weights as measure_weights
from noiseless.ask.state import RunState, load_optimizer, load_state
from noiseless.files import checkpoint
from noiseless.files.address import StateAddress
from noiseless.files.answers import Answer
from noiseless.files.state import refuse_other_parts, restored_from
from noiseless.optim import take_step
from noiseless.optim.groups import set_rate


def weights(state: RunState) -> Answer:
    """Measures norms, distances from the run's start, and the optimizer's next update, for each parameter tensor.

    The update is the one that the optimizer, with its state, makes on the objective of the next step (of the last step,
    if the run has ended; the first update, if a step has several). The step is taken, measured, and the parameters are
    put back. The gradient is that of the loss over all training examples.

    Args:
        state: of the run; every worker must call this. Its optimizer and its batch-norm buffers are not put back.

    Returns:
        The answer, of the kind `layers`. Where a number is None, `reasons` holds the reason.
    """
    experiment, reasons = state.experiment, []
    start: Tensor | None = None
    directory = state.address.directory
    try:
        start = load_state(StateAddress(directory, directory.began())).experiment.space.theta
    except ValueError as error:
        reasons.append(f"no distance: {error}")
    evaluation = state.risk.evaluate()
    passes, update, lr = evaluation.passes, None, experiment.schedule(state.objective_step)
    if state.optimizer_state is None and state.step != directory.began():
        reasons.append(f"no update: no checkpoint of step {state.step} holds the optimizer's state")
    else:
        update, spent = _next_update(state, lr)
        passes += spent
        if update is None:
            reasons.append("no update: the objective is not finite here")
    total, layers = measure_weights(experiment.space, start=start, gradient=evaluation.gradient, update=update)
    return Answer(
        "layers",
        f"step-{state.step}",
        {
            "step": state.step,
            "lr": lr,
            "whole": _numbers(total),
            "layers": {name: _numbers(layer) for name, layer in layers.items()},
            "reasons": reasons,
            "passes": passes,
        },
    )


def _numbers(measured: Weights) -> dict[str, Any]:
    return measured.as_row() | {"update_norm": measured.update_norm}


def _next_update(state: RunState, lr: float) -> tuple[Tensor | None, float]:
    """The change of the parameters in the optimizer's next step, float64 `[P]` (None: not finite), and its passes."""
    experiment, theta = state.experiment, state.experiment.space.theta
    load_optimizer(state)
    saved = checkpoint.at(state.address.directory.checkpoints, state.step, refuse_other_parts)
    transform_state = saved["transforms"] if saved else None
    before = theta.detach().clone()
    objective = next(iter(experiment.regime.objectives(state.objective_step)))
    with restored_from(state.address):
        set_rate(experiment.optimizer, lr)
        step = take_step(experiment.optimizer, objective, experiment.transform, transform_state, state.objective_step)
    if not step.finite:
        return None, step.passes
    update = theta.detach().double() - before.double()
    with torch.no_grad():
        theta.copy_(before)
    return update, step.passes
