"""The gradient noise of a run at one of its states."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from noiseless import keyed
from noiseless.analysis import Moments, check_blocks, check_finite, gradient_noise, module_mode
from noiseless.ask.options import NoiseOptions
from noiseless.ask.state import RunState
from noiseless.files.answers import Answer
from noiseless.objective import EmpiricalRisk
from noiseless.objective.blocks import check_size
from noiseless.optim import entry_of


def cut(state: RunState, options: NoiseOptions) -> EmpiricalRisk:
    """The run's risk, cut into the blocks between which noise is measured.

    Args:
        state: of the run.
        options: how its blocks are cut.

    Returns:
        The risk.

    Raises:
        ValueError: for a block that does not fit the data, batch norm's blocks or an image's draws, or is the only one.
    """
    recipe, risk = state.experiment.config.recipe, state.risk
    block = risk.blocks.size if options.block is None else options.block
    check_size("--block", block, risk.blocks.count)
    norm_block = min(risk.norm.norm_block, block) if _normed(state.experiment.model, options) else block
    if block % norm_block:
        raise ValueError(
            f"--block {block} must be a multiple of the {norm_block} examples that batch norm normalises together"
            " in this run, or less; or give --batch-norm running"
        )
    if block % recipe.objective.max_up:
        raise ValueError(f"--block {block} must be a multiple of --max-up {recipe.objective.max_up}, as in the run")
    order = risk.selection.order
    if options.shuffle:
        together = risk.selection.numbers.reshape(-1, recipe.objective.max_up)  # draws of an image stay in one block
        order = together[keyed.permutation(recipe.seed, "noise", state.objective_step, len(together))].flatten()
    risk = replace(risk, data=replace(risk.selection, order=order), block=block, norm_block=norm_block)
    check_blocks(risk)
    return risk


def _normed(model: nn.Module, options: NoiseOptions) -> bool:
    """Whether a layer of the model normalises norm blocks, in the mode that the options name."""
    with module_mode(model, options.batch_norm):
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        return any(layer.training or layer.running_mean is None for layer in layers)


def noise(state: RunState, options: NoiseOptions) -> Answer:
    """The gradient noise at a state: two passes, one of them for the full gradient, and a block.

    Args:
        state: of the run; each of its workers calls this.
        options: how its blocks are cut.

    Returns:
        The answer.

    Raises:
        ValueError: for blocks that cannot be cut so, or a gradient that is not finite.
    """
    risk, model = cut(state, options), state.experiment.model
    with module_mode(model, options.batch_norm):
        evaluation = risk.evaluate()
    check_finite(evaluation.block_square_norms)
    momentum = momentum_of(state)
    references = [evaluation.gradient, *([] if momentum is None else [momentum])]
    measured = gradient_noise(risk, references, batch_norm=options.batch_norm)
    total, block, examples = measured.total, measured.block, risk.blocks.count
    usual = {8**k for k in range(20) if 8**k < examples} | {block, examples}
    return Answer(
        "noise",
        _name(state.step, options),
        {
            "step": state.step,
            "block": block,
            "blocks": len(measured.counts),
            "examples": examples,
            "norm_block": risk.norm.norm_block if _normed(model, options) else None,
            "batch_norm": options.batch_norm,
            "shuffled": options.shuffle,
            "gradient_norm": total.gradient_norm,
            "block_norms": measured.block_norms.tolist(),
            "covariance_trace": total.covariance_trace,
            "signal": total.signal,
            "noise_scale": total.noise_scale,
            "reason": total.reason,
            "signal_to_noise": total.signal_to_noise(block),
            "alignment": measured.alignment,
            "cosines": measured.cosines[0].tolist(),
            "momentum_cosine": None if momentum is None else measured.full_cosines[1].item(),
            "momentum_cosines": None if momentum is None else measured.cosines[1].tolist(),
            "by_block": [_predicted(total, size) for size in (options.sizes or sorted(usual))],
            "layers": {name: _layer(moments, block) for name, moments in measured.layers.items()},
            "passes": evaluation.passes + measured.passes,
        },
    )


def _name(step: int, options: NoiseOptions) -> str:
    """Name of an answer: the step, and what tells the blocks from others."""
    parts = [f"step-{step}"] + ([] if options.block is None else [f"block-{options.block}"])
    return "-".join(parts + ["running"] * (options.batch_norm == "running") + ["shuffled"] * options.shuffle)


def _predicted(total: Moments, size: int) -> dict[str, float | None]:
    return {"block": size, "signal_to_noise": total.signal_to_noise(size), "noise_norm": total.noise_norm(size)}


def _layer(moments: Moments, block: int) -> dict[str, float | None]:
    return {
        "gradient_norm": moments.gradient_norm,
        "covariance_trace": moments.covariance_trace,
        "noise_scale": moments.noise_scale,
        "signal_to_noise": moments.signal_to_noise(block),
    }


def momentum_of(state: RunState) -> Tensor | None:
    """The optimizer's mean of past gradients at a state, `[P]`; None where it keeps none, or no checkpoint has it.

    Args:
        state: of the run; its optimizer takes up the state there.

    Returns:
        SGD's and Muon's `momentum_buffer`, or `exp_avg` of Adam and its kin; 0 for parameters that have none. A coupled
        weight decay is in it.
    """
    experiment = state.experiment
    if state.optimizer_state is None:
        return None
    experiment.optimizer.load_state_dict(state.optimizer_state)
    keys = entry_of(experiment.optimizer).mean_keys
    parts, there = [], False
    for parameter in experiment.space.parameters:
        buffers = experiment.optimizer.state.get(parameter, {})
        buffer = next((buffers[name] for name in keys if buffers.get(name) is not None), None)
        there = there or buffer is not None
        parts.append((torch.zeros_like(parameter) if buffer is None else buffer).detach().flatten())
    return torch.cat(parts) if there else None
