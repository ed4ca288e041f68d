"""Gradient noise and weight space of a run at one of its states: what is asked, as answers to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from noiseless import keyed
from noiseless.analysis import BatchNorm, Moments, Weights, check_blocks, check_finite, gradient_noise
from noiseless.analysis import weights as weigh
from noiseless.ask.asking import Asked, Place, ask
from noiseless.files import checkpoint
from noiseless.files.answers import Answer
from noiseless.objective import EmpiricalRisk
from noiseless.objective.blocks import check_size
from noiseless.optim import entry_of, take_step
from noiseless.run.build import Experiment


@dataclass(frozen=True)
class Cut:
    """How the noise's blocks are cut, and batch norm in them."""

    block: int | None = None
    """examples a block; None: the run's"""
    batch_norm: BatchNorm = "block"
    shuffle: bool = False
    """blocks are cut from a keyed random order"""

    def name(self, step: int) -> str:
        """Of an answer."""
        parts = [f"step-{step}"] + ([] if self.block is None else [f"block-{self.block}"])
        return "-".join(parts + ["running"] * (self.batch_norm == "running") + ["shuffled"] * self.shuffle)

    def risk(self, asked: Asked) -> EmpiricalRisk:
        """The run's risk, cut so; the model is put in the mode that `batch_norm` names.

        Args:
            asked: the run at a state.

        Returns:
            The risk.

        Raises:
            ValueError: for a block that does not fit the data, batch norm's blocks or an image's draws, or is the
                only one.
        """
        recipe, risk = asked.experiment.config.recipe, asked.risk
        asked.experiment.model.train(self.batch_norm == "block")
        block = risk.blocks.size if self.block is None else self.block
        check_size("--block", block, risk.blocks.count)
        norm_block = min(risk.norm.norm_block, block) if normed(asked.experiment) else block
        if block % norm_block:
            raise ValueError(
                f"--block {block} must be a multiple of the {norm_block} examples that batch norm normalises together"
                " in this run, or less; or ask with --batch-norm running"
            )
        if block % recipe.objective.max_up:
            raise ValueError(f"--block {block} must be a multiple of --max-up {recipe.objective.max_up}, as in the run")
        order = risk.selection.order
        if self.shuffle:
            together = risk.selection.numbers.reshape(-1, recipe.objective.max_up)  # an image's draws: one block
            order = together[keyed.permutation(recipe.seed, "noise", asked.seen, len(together))].flatten()
        cut = replace(risk, data=replace(risk.selection, order=order), block=block, norm_block=norm_block)
        check_blocks(cut)
        return cut


def normed(experiment: Experiment) -> bool:
    """Whether a layer of the model normalises norm blocks, as it stands."""
    layers = (layer for layer in experiment.model.modules() if isinstance(layer, _BatchNorm))
    return any(layer.training or layer.running_mean is None for layer in layers)


def noise(asked: Asked, cut: Cut, sizes: Sequence[int] = ()) -> Answer:
    """The gradient noise at a state: two passes, one of them for the full gradient, and a block.

    Every worker of the run's objects calls it.

    Args:
        asked: the run at the state.
        cut: how its blocks are cut.
        sizes: of blocks for which the noise is predicted; none: powers of 8, the block, and all examples.

    Returns:
        The answer.

    Raises:
        ValueError: for blocks that cannot be cut so, or a gradient that is not finite.
    """
    experiment, risk = asked.experiment, cut.risk(asked)
    evaluation = risk.evaluate()
    check_finite(evaluation.block_square_norms)
    momentum = momentum_of(asked)
    found = gradient_noise(risk, [evaluation.gradient, *([] if momentum is None else [momentum])])
    whole, block, examples = found.total, found.block, risk.blocks.count
    usual = {8**k for k in range(20) if 8**k < examples} | {block, examples}
    return Answer(
        "noise",
        cut.name(asked.step),
        {
            "step": asked.step,
            "block": block,
            "blocks": len(found.counts),
            "examples": examples,
            "norm_block": risk.norm.norm_block if normed(experiment) else None,
            "batch_norm": cut.batch_norm,
            "shuffled": cut.shuffle,
            "gradient_norm": whole.gradient_norm,
            "block_norms": found.block_norms.tolist(),
            "covariance_trace": whole.covariance_trace,
            "signal": whole.signal,
            "noise_scale": whole.noise_scale,
            "reason": whole.reason,
            "signal_to_noise": whole.signal_to_noise(block),
            "alignment": found.alignment,
            "cosines": found.cosines[0].tolist(),
            "momentum_cosine": None if momentum is None else found.full_cosines[1].item(),
            "momentum_cosines": None if momentum is None else found.cosines[1].tolist(),
            "by_block": [_at(whole, size) for size in (sizes or sorted(usual))],
            "layers": {name: _layer(each, block) for name, each in found.layers.items()},
            "passes": evaluation.passes + found.passes,
        },
    )


def _at(whole: Moments, size: int) -> dict[str, float | None]:
    return {"block": size, "signal_to_noise": whole.signal_to_noise(size), "noise_norm": whole.noise_norm(size)}


def _layer(each: Moments, block: int) -> dict[str, float | None]:
    return {
        "gradient_norm": each.gradient_norm,
        "covariance_trace": each.covariance_trace,
        "noise_scale": each.noise_scale,
        "signal_to_noise": each.signal_to_noise(block),
    }


def momentum_of(asked: Asked) -> Tensor | None:
    """The optimizer's mean of past gradients at a state, `[P]`; None where it keeps none, or no checkpoint has it.

    Args:
        asked: the run at the state; its optimizer takes up the state there.

    Returns:
        SGD's and Muon's `momentum_buffer`, or `exp_avg` of Adam and its kin; 0 for parameters that have none. A coupled
        weight decay is in it.
    """
    experiment = asked.experiment
    if asked.optimizer is None:
        return None
    experiment.optimizer.load_state_dict(asked.optimizer)
    keys = entry_of(experiment.optimizer).mean_keys
    parts, there = [], False
    for parameter in experiment.space.parameters:
        kept = experiment.optimizer.state.get(parameter, {})
        buffer = next((kept[name] for name in keys if kept.get(name) is not None), None)
        there = there or buffer is not None
        parts.append((torch.zeros_like(parameter) if buffer is None else buffer).detach().flatten())
    return torch.cat(parts) if there else None


def layers(asked: Asked) -> Answer:
    """The weight space at a state: norms, distances from the run's start, and the update of the step that comes next.

    That update is the optimizer's, with its state, from the objective of the step that comes next (at the end, of the
    last step; of several updates of a step, its first): it is made, measured and taken back. The gradient is that of
    the loss over all training examples.

    Args:
        asked: the run at the state; its optimizer and its batch-norm buffers are not put back.

    Returns:
        The answer. Where a number is None, `reasons` says why.
    """
    experiment, reasons = asked.experiment, []
    start: Tensor | None = None
    directory = asked.place.directory
    try:
        start = ask(Place(directory, directory.began())).experiment.space.theta
    except ValueError as error:
        reasons.append(f"no distance: {error}")
    evaluation = asked.risk.evaluate()
    passes, update, lr = evaluation.passes, None, experiment.schedule(asked.seen)
    if asked.optimizer is None and asked.step != directory.began():
        reasons.append(f"no update: no checkpoint of step {asked.step} holds the optimizer's state")
    else:
        update, spent = _next_update(asked, lr)
        passes += spent
        if update is None:
            reasons.append("no update: the objective is not finite here")
    whole, found = weigh(experiment.space, start=start, gradient=evaluation.gradient, update=update)
    return Answer(
        "layers",
        f"step-{asked.step}",
        {
            "step": asked.step,
            "lr": lr,
            "whole": _numbers(whole),
            "layers": {name: _numbers(each) for name, each in found.items()},
            "reasons": reasons,
            "passes": passes,
        },
    )


def _numbers(each: Weights) -> dict[str, Any]:
    return each.as_row() | {"update_norm": each.update_norm}


def _next_update(asked: Asked, lr: float) -> tuple[Tensor | None, float]:
    """What the next step of the optimizer adds to the parameters, float64 `[P]`, and its passes."""
    experiment, theta = asked.experiment, asked.experiment.space.theta
    if asked.optimizer is not None:
        experiment.optimizer.load_state_dict(asked.optimizer)
    for group in experiment.optimizer.param_groups:
        group["lr"] = lr
    kept = checkpoint.at(asked.place.directory.checkpoints, asked.step)
    transformed = kept["transforms"] if kept else None
    before = theta.detach().clone()
    objective = next(iter(experiment.regime.objectives(asked.seen)))
    taken = take_step(experiment.optimizer, objective, experiment.transform, transformed, asked.seen)
    if not taken.finite:
        return None, taken.passes
    update = theta.detach().double() - before.double()
    with torch.no_grad():
        theta.copy_(before)
    return update, taken.passes
