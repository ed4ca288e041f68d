"""The gradient noise of a run at one of its states."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from noiseless import keyed
from noiseless.analysis import Moments, check_blocks, gradient_noise, module_mode, usual_sizes
from noiseless.ask.options import NoiseOptions
from noiseless.ask.state import RunState, load_optimizer
from noiseless.examples.blocks import check_size
from noiseless.files.answers import Answer
from noiseless.files.state import restored_from
from noiseless.objective import EmpiricalRisk
from noiseless.optim import entry_of


def risk_in_blocks(state: RunState, options: NoiseOptions) -> EmpiricalRisk:
    """The run's risk, divided into the blocks between which noise is measured.

    Args:
        state: of the run.
        options: block size, batch-norm mode and order.

    Returns:
        The risk.

    Raises:
        ValueError: if the block is larger than the data or leaves one block only, or is no multiple of the norm block
            or of the draws of an image (max-up).
    """
    recipe, risk = state.experiment.config.recipe, state.risk
    block = risk.blocks.size if options.block is None else options.block
    check_size("--block", block, risk.blocks.count)
    norm_block = min(risk.norm.norm_block, block) if _uses_norm_blocks(state.experiment.model, options) else block
    if block % norm_block:
        raise ValueError(
            f"--block {block} must be a multiple of the {norm_block} examples that batch norm normalises together in"
            " this run, or smaller than that; or give --batch-norm running"
        )
    if block % recipe.objective.max_up:
        raise ValueError(f"--block {block} must be a multiple of the run's --max-up {recipe.objective.max_up}")
    order = risk.selection.order
    if options.shuffle:
        images = risk.selection.numbers.reshape(-1, recipe.objective.max_up)  # the draws of an image stay in one block
        order = images[keyed.permutation(recipe.seed, "noise", state.objective_step, len(images))].flatten()
    risk = replace(risk, data=replace(risk.selection, order=order), block=block, norm_block=norm_block)
    check_blocks(risk)
    return risk


def _uses_norm_blocks(model: nn.Module, options: NoiseOptions) -> bool:
    """Whether a batch-norm layer of the model uses the statistics of norm blocks in the options' mode."""
    with module_mode(model, options.batch_norm):
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        return any(layer.training or layer.running_mean is None for layer in layers)


def noise(state: RunState, options: NoiseOptions) -> Answer:
    """Measures the gradient noise at a state, in two passes.

    Args:
        state: of the run; every worker must call this.
        options: block size, batch-norm mode and order.

    Returns:
        The answer.

    Raises:
        ValueError: if the options' blocks do not fit the run (see `risk_in_blocks`), or a gradient is not finite.
    """
    risk, model = risk_in_blocks(state, options), state.experiment.model
    momentum = momentum_of(state)
    references = [] if momentum is None else [momentum]
    measured = gradient_noise(risk, references, batch_norm=options.batch_norm)
    total, block, examples = measured.total, measured.block, risk.blocks.count
    return Answer(
        "noise",
        _name(state.step, options),
        {
            "step": state.step,
            "block": block,
            "blocks": len(measured.counts),
            "examples": examples,
            "norm_block": risk.norm.norm_block if _uses_norm_blocks(model, options) else None,
            "batch_norm": options.batch_norm,
            "shuffled": options.shuffle,
            "gradient_norm": total.gradient_norm,
            "block_norms": measured.block_norms.tolist(),
            "covariance_trace": total.covariance_trace,
            "signal": total.signal,
            "signal_interval": total.signal_interval,
            "noise_scale": total.noise_scale,
            "noise_scale_interval": total.noise_scale_interval,
            "reason": total.reason,
            "signal_to_noise": total.signal_to_noise(block),
            "alignment": measured.alignment,
            "cosines": measured.gradient_cosines.tolist(),
            "momentum_cosine": None if momentum is None else measured.full_cosines[0].item(),
            "momentum_cosines": None if momentum is None else measured.cosines[0].tolist(),
            "by_block": [_predicted(total, size) for size in (options.sizes or usual_sizes(block, examples))],
            "layers": {name: _layer(moments, block) for name, moments in measured.layers.items()},
            "passes": measured.passes,
        },
    )


def _name(step: int, options: NoiseOptions) -> str:
    """Name of an answer: the step, and each option that is not the default."""
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
    """The optimizer's running mean of gradients at a state.

    Args:
        state: of the run; the optimizer's state at this step is loaded into its optimizer.

    Returns:
        `momentum_buffer` of SGD and Muon, or `exp_avg` of Adam and related optimizers, `[P]`; 0 for parameters without
        one. It includes a coupled weight decay. None if the optimizer has no such mean, or no checkpoint holds it.
    """
    experiment = state.experiment
    if state.optimizer_state is None:
        return None
    load_optimizer(state)
    keys = entry_of(experiment.optimizer).mean_keys
    parts, has_buffer = [], False
    with restored_from(state.address):
        for parameter in experiment.space.parameters:
            buffers = experiment.optimizer.state.get(parameter, {})
            buffer = next((buffers[name] for name in keys if buffers.get(name) is not None), None)
            has_buffer = has_buffer or buffer is not None
            parts.append(torch.zeros_like(parameter) if buffer is None else buffer.detach().view_as(parameter))
        return torch.cat([part.flatten() for part in parts]) if has_buffer else None
