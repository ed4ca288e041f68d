"""Transforms: changes of the full gradient, in an explicit ordered chain. Step 6 of a training step.

A transform is a value `(name, init, update)`; its settings are plain arguments of the function that makes it. The
paper's order is norm bias, clip, noise; weight decay is applied by the optimizer, after the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from noiseless import keyed

State = Mapping[str, Any]


@dataclass(frozen=True)
class Linear:
    """How a transform passes on a small change of the gradient: `change -> factor (change + decay dtheta)`.

    Ratios that a transform computes from the gradient or the parameters (of a clip, of a layer's rate) count as
    constants. So this is exact for changes that leave these norms as they are.
    """

    factor: Tensor
    """`[P]`"""
    decay: Tensor
    """weight decay that the transform adds to the gradient, before the factor, `[P]`"""


@dataclass(frozen=True)
class Transform:
    """A change of the gradient."""

    name: str
    """name, as printed in the chain"""
    init: Callable[[Tensor], State]
    """theta `[P]` -> state"""
    update: Callable[[Tensor, State, Tensor, int], tuple[Tensor, State]]
    """(gradient `[P]`, state, theta `[P]`, step) -> (gradient `[P]`, state). It must not modify its arguments"""
    remembers: bool = False
    """whether its result holds gradients of earlier steps, which may reach parameters that this step's does not"""
    linear: Callable[[Tensor, State, Tensor, int], Linear | None] = lambda gradient, state, theta, step: None
    """(as `update`) -> how it passes on a small change of the gradient; None: not known"""


def chain(*transforms: Transform) -> Transform:
    """Applies transforms from left to right; its state holds their states by position and name."""
    keys = [f"{position}.{t.name}" for position, t in enumerate(transforms)]

    def init(theta: Tensor) -> State:
        return {key: t.init(theta) for key, t in zip(keys, transforms, strict=True)}

    def update(gradient: Tensor, state: State, theta: Tensor, step: int) -> tuple[Tensor, State]:
        after = {}
        for key, t in zip(keys, transforms, strict=True):
            gradient, after[key] = t.update(gradient, state[key], theta, step)
        return gradient, after

    def linear(gradient: Tensor, state: State, theta: Tensor, step: int) -> Linear | None:
        factor, decay = torch.ones_like(gradient), torch.zeros_like(gradient)
        for key, t in zip(keys, transforms, strict=True):
            part = t.linear(gradient, state[key], theta, step)
            if part is None:
                return None
            # f2 (f1 (g + w1 theta) + w2 theta) = f2 f1 (g + (w1 + w2 / f1) theta)
            decay = torch.where(part.decay == 0, decay, decay + part.decay / factor)
            factor = factor * part.factor
            gradient, _ = t.update(gradient, state[key], theta, step)
        return Linear(factor, decay)

    name = " -> ".join(t.name for t in transforms) or "none"
    return Transform(name, init, update, any(t.remembers for t in transforms), linear)


def scaled(gradient: Tensor, factor: Tensor | float) -> Linear:
    """The linear part of a transform that multiplies the gradient by a factor, a number or `[P]`."""
    return Linear(torch.ones_like(gradient) * factor, torch.zeros_like(gradient))


def aggregate(counts: Sequence[int]) -> Transform:
    """The incremental aggregated gradient: the mean of the newest gradients of all parts of the data set.

    Update t gets g_k, the gradient of the mean loss of part k = t mod K, at the current parameters. With n_k the number
    of examples of part k and h_k its newest gradient, the direction is `sum_k n_k h_k / sum_k n_k` over the parts seen
    so far. From the K-th update on, these are all parts, and each gradient is at most K - 1 updates old. So the
    direction is 0 where the full gradient is 0 and nothing moves, and a constant rate converges (Blatt, Hero and
    Gauchman, SIAM Journal on Optimization 18, 2007). Sums are computed in float64, in the order of the parts.

    Args:
        counts: n_k, number of examples of each part.

    Returns:
        A transform whose state holds the K gradients, `[P]` each.

    Raises:
        ValueError: if there is no part, or one without examples.
    """
    if not counts or min(counts) < 1:
        raise ValueError(f"each part must have an example, and there must be a part, but they have {list(counts)}")

    def update(gradient: Tensor, state: State, theta: Tensor, step: int) -> tuple[Tensor, State]:
        before, seen = state["gradients"], state["seen"]
        k = seen % len(counts)
        newest = (*before[:k], gradient, *before[k + 1 :])
        total = torch.zeros_like(gradient, dtype=torch.float64)
        for count, part_gradient in zip(counts, newest, strict=False):  # in the first K - 1 updates some are missing
            total.add_(part_gradient.to(gradient.device), alpha=count)
        mean = total.div_(sum(counts[: len(newest)])).to(gradient.dtype)
        return mean, {"gradients": newest, "seen": seen + 1}

    return Transform(
        f"aggregate({len(counts)} parts)", lambda theta: {"gradients": (), "seen": 0}, update, True, _passed_on
    )


def clip_norm(limit: float, norm: Literal["l2", "max"] = "l2") -> Transform:
    """Shortens a gradient that is longer than a limit: `g * limit / (||g|| + 1e-6)` if `||g|| > limit`.

    Args:
        limit: largest norm, positive.
        norm: `"l2"`, the Euclidean norm of the full gradient, or `"max"`, its largest absolute element.

    Returns:
        A transform; `clipped` in its state is whether it has shortened the gradient.

    Raises:
        ValueError: if the limit is not positive or the norm is unknown.
    """
    if not limit > 0:
        raise ValueError(f"the clip must be a positive norm, not {limit}")
    if norm not in ("l2", "max"):
        raise ValueError(f'the norm of a clip is "l2" or "max", not {norm!r}')
    order = 2.0 if norm == "l2" else float("inf")

    def factor(gradient: Tensor) -> float | None:
        length = torch.linalg.vector_norm(gradient, order, dtype=torch.float64).item()
        return limit / (length + 1e-6) if length > limit else None  # None also for NaN, which is reported elsewhere

    def update(gradient: Tensor, state: State, theta: Tensor, step: int) -> tuple[Tensor, State]:
        shorter = factor(gradient)
        return (gradient, {"clipped": False}) if shorter is None else (gradient * shorter, {"clipped": True})

    def linear(gradient: Tensor, state: State, theta: Tensor, step: int) -> Linear:
        shorter = factor(gradient)
        return scaled(gradient, 1.0 if shorter is None else shorter)

    return Transform(f"clip_norm({limit:g}, {norm})", lambda theta: {"clipped": False}, update, linear=linear)


def additive_noise(scale: float, seed: int) -> Transform:
    """Adds `scale * xi` with xi standard normal in each element, keyed by (seed, step)."""
    return _stateless(
        f"additive_noise({scale:g})",
        lambda g, theta, step: g + scale * _noise(g, seed, "additive-noise", step),
        _passed_on,
    )


def multiplicative_noise(scale: float, seed: int) -> Transform:
    """Multiplies each element by `1 + scale * xi` with xi standard normal, keyed by (seed, step)."""

    def factor(g: Tensor, step: int) -> Tensor:
        return 1 + scale * _noise(g, seed, "multiplicative-noise", step)

    return _stateless(
        f"multiplicative_noise({scale:g})",
        lambda g, theta, step: g * factor(g, step),
        lambda g, state, theta, step: scaled(g, factor(g, step)),
    )


def norm_bias(strength: float, target: float, norm: Literal["l1", "l2"] = "l2") -> Transform:
    """Pulls the parameters' norm towards a target: adds the gradient of `(strength / 2) (||theta|| - target)**2`.

    Args:
        strength: factor of the pull.
        target: the norm towards which it pulls.
        norm: `"l2"`: adds `strength (||theta|| - target) theta / ||theta||`; `"l1"`: `... sign(theta)`.

    Returns:
        The transform.

    Raises:
        ValueError: if the norm is unknown or the target negative.
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f'the norm of a norm bias is "l1" or "l2", not {norm!r}')
    if not target >= 0:
        raise ValueError(f"the target of a norm bias must be at least 0, not {target}")

    def change(gradient: Tensor, theta: Tensor, step: int) -> Tensor:
        length = torch.linalg.vector_norm(theta, 1 if norm == "l1" else 2, dtype=torch.float64).item()
        slope = theta.sign() if norm == "l1" else theta / max(length, torch.finfo(theta.dtype).tiny)
        return gradient + strength * (length - target) * slope

    return _stateless(f"norm_bias({strength:g}, {target:g}, {norm})", change)


def _passed_on(gradient: Tensor, state: State, theta: Tensor, step: int) -> Linear:
    """The linear part of a transform that passes on changes as they are."""
    return scaled(gradient, 1.0)


def _stateless(
    name: str,
    change: Callable[[Tensor, Tensor, int], Tensor],
    linear: Callable[[Tensor, State, Tensor, int], Linear | None] = lambda g, state, theta, step: None,
) -> Transform:
    return Transform(
        name, lambda theta: {}, lambda g, state, theta, step: (change(g, theta, step), state), linear=linear
    )


def _noise(gradient: Tensor, seed: int, stream: str, step: int) -> Tensor:
    index = torch.arange(gradient.numel(), device=gradient.device)
    return keyed.normal(seed, stream, step, index).to(gradient.dtype)
