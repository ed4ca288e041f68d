"""Transforms that treat each layer by itself: adaptive clipping and layer-wise learning rates. Step 6 of a step.

In the chain, adaptive clipping stands before the clip of the full gradient, and layer rates at the end, after the
noise: norm bias -> agc -> clip -> noise -> lars or larc. A layer is a parameter tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from noiseless.objective import ParameterSpace
from noiseless.optim.groups import is_small
from noiseless.optim.transforms import Linear, State, Transform, scaled

SMALLEST_WEIGHTS = 1e-3
"""weight norm of AGC: units with a smaller one are clipped as if they had this, so that weights of 0 can change"""
EPS = 1e-8
"""added to the divisor of a layer's rate"""


def adaptive_clip(limit: float, space: ParameterSpace) -> Transform:
    """Adaptive gradient clipping (Brock et al., arXiv 2102.06171, eq. 3): limits each unit's gradient by its weights.

    For unit i of a layer with weights w_i and gradient g_i: `g_i <- g_i * limit * max(||w_i||, 1e-3) / ||g_i||` where
    `||g_i|| > limit * max(||w_i||, 1e-3)`. A unit is a row of the layer `[out, ...]`: all weights of one output; a
    parameter of one dimension or none is one unit. The final linear layer is not clipped, as in the paper: the last
    parameter of two or more dimensions, frozen or not, and the others of its module (its bias).

    Args:
        limit: the largest ratio, positive.
        space: parameter space, which gives the layers.

    Returns:
        A transform; `clipped` in its state is whether it has clipped a unit.

    Raises:
        ValueError: if the limit is not positive.
    """
    if not 0 < limit < float("inf"):
        raise ValueError(f"agc must be a positive ratio, not {limit}")
    final = _final_layer(space)

    def factors(gradient: Tensor, theta: Tensor) -> Tensor:
        parts = []
        weights = space.split(theta)
        for name, g in space.split(gradient).items():
            of_units = torch.ones(1, 1, dtype=torch.float64, device=g.device)
            rows = (len(g), -1) if g.ndim > 1 else (1, -1)
            if name not in final:
                largest = limit * _norms(weights[name].reshape(rows)).clamp(min=SMALLEST_WEIGHTS)
                norms = _norms(g.reshape(rows))
                of_units = torch.where(norms > largest, largest / norms, 1.0)
            parts.append(of_units.to(g.dtype).expand_as(g.reshape(rows)).reshape(-1))
        return torch.cat(parts)

    def update(gradient: Tensor, state: State, theta: Tensor, step: int) -> tuple[Tensor, State]:
        factor = factors(gradient, theta)
        return gradient * factor, {"clipped": bool((factor < 1).any())}

    return Transform(
        f"agc({limit:g})", lambda theta: {"clipped": False}, update,
        linear=lambda gradient, state, theta, step: scaled(gradient, factors(gradient, theta)),
    )  # fmt: skip


def lars(trust: float, space: ParameterSpace, weight_decay: float = 0.0, decay_biases: bool = True) -> Transform:
    """Layer-wise adaptive rates (You et al., arXiv 1708.03888): the step of a layer is in proportion to its weights.

    For each layer: `g <- (g + wd w) * trust * ||w|| / (||g|| + wd ||w|| + 1e-8)`. Where w or g is 0, the ratio has no
    meaning, and the factor is 1. The transform applies the weight decay, so the optimizer's own must be 0.

    Args:
        trust: the coefficient, positive.
        space: parameter space, which gives the layers.
        weight_decay: wd.
        decay_biases: whether biases and parameters of fewer than two dimensions decay, too.

    Returns:
        The transform.

    Raises:
        ValueError: if a number is out of its range.
    """
    return _layer_rate("lars", trust, space, weight_decay, decay_biases, lambda ratio, step: ratio)


def larc(
    trust: float,
    space: ParameterSpace,
    schedule: Callable[[int], float],
    weight_decay: float = 0.0,
    decay_biases: bool = True,
) -> Transform:
    """LARS that only lowers rates: a layer's rate is `min(lr, trust * ||w|| / (||g|| + wd ||w|| + 1e-8))`.

    The optimizer multiplies by lr, so `g <- (g + wd w) * min(trust * ||w|| / (...) / lr, 1)`.

    Args:
        trust: the coefficient, positive.
        space: parameter space, which gives the layers.
        schedule: step -> lr.
        weight_decay: wd; the optimizer's own must be 0.
        decay_biases: whether biases and parameters of fewer than two dimensions decay, too.

    Returns:
        The transform.

    Raises:
        ValueError: if a number is out of its range.
    """

    def lowered(ratio: float, step: int) -> float:
        lr = schedule(step)
        return min(ratio / lr, 1.0) if lr > 0 else 1.0

    return _layer_rate("larc", trust, space, weight_decay, decay_biases, lowered)


def _layer_rate(
    name: str,
    trust: float,
    space: ParameterSpace,
    weight_decay: float,
    decay_biases: bool,
    factor: Callable[[float, int], float],
) -> Transform:
    if not 0 < trust < float("inf"):
        raise ValueError(f"trust must be a positive number, not {trust}")
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight decay must be a finite number of at least 0, not {weight_decay}")

    def layers(gradient: Tensor, theta: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor, float, float]]:
        """Gradient, weights, weight decay and scale of each layer."""
        weights = space.split(theta)
        for key, g in space.split(gradient).items():
            w = weights[key]
            decay = weight_decay if decay_biases or not is_small(key, w.ndim) else 0.0
            weight, slope = (_norms(t.reshape(1, -1)).item() for t in (w, g))
            # NaN passes through and is reported elsewhere
            scale = factor(trust * weight / (slope + decay * weight + EPS), step) if weight and slope else 1.0
            yield g, w, decay, scale

    def update(gradient: Tensor, state: State, theta: Tensor, step: int) -> tuple[Tensor, State]:
        parts = [((g + decay * w) * scale).reshape(-1) for g, w, decay, scale in layers(gradient, theta, step)]
        return torch.cat(parts), state

    def linear(gradient: Tensor, state: State, theta: Tensor, step: int) -> Linear:
        rows = [(torch.full_like(g, scale), torch.full_like(g, decay))
                for g, _, decay, scale in layers(gradient, theta, step)]  # fmt: skip
        factors, decays = zip(*rows, strict=True)
        return Linear(*(torch.cat([part.reshape(-1) for part in parts]) for parts in (factors, decays)))

    return Transform(f"{name}({trust:g})", lambda theta: {}, update, linear=linear)


def _norms(rows: Tensor) -> Tensor:
    """L2 norms of `[units, ...]`, float64 `[units, 1]`."""
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)


def _final_layer(space: ParameterSpace) -> set[str]:
    """Names of the last parameter of two or more dimensions, frozen or not, and of the others in its layer."""
    large = [name for name, dimensions in space.dimensions.items() if dimensions > 1]
    if not large:
        return set()
    layer = large[-1].rpartition(".")[0]
    return {name for name in space.dimensions if name.rpartition(".")[0] == layer}
