"""The change of a Hessian eigenvalue along a step, split into its causes. One derivative more than a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.krylov import dots
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.objective import Objective, hessian_gradient, hessian_gradient_passes, risk_of


def eigenvalue_gradient(objective: Objective, vector: Tensor, batch_norm: BatchNorm | None = None) -> Tensor:
    """The gradient of a Hessian eigenvalue with respect to the parameters, exact over all blocks.

    For an eigenvector u of length 1 of H(theta), with an eigenvalue that no other one equals,

        grad lambda = grad (u . H(theta) u)  at fixed u,

    as the first-order change of u is orthogonal to u. Each block is differentiated three times by reverse mode, and the
    blocks' vectors are added exactly.

    Args:
        objective: whose value has the Hessian H; a penalty on block gradients counts.
        vector: u, `[P]`.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: its present mode.

    Returns:
        `[P]`.

    Raises:
        ValueError: if the vector has another shape, the full gradient is penalised, or torch lacks a derivative.
    """
    with module_mode(risk_of(objective).module, batch_norm):
        return hessian_gradient(objective, vector[None], torch.ones(1, 1, dtype=torch.float64))


def eigenvalue_gradient_passes(objective: Objective) -> float:
    """Cost of `eigenvalue_gradient`, in passes, see `objective.hessian_gradient_passes`."""
    return hessian_gradient_passes(objective, torch.ones(1, 1))


@dataclass(frozen=True)
class Sharpening:
    """The change of an eigenvalue lambda in one step d, to first order, as a sum over causes. All are per step."""

    causes: Mapping[str, float]
    """cause -> its part of `grad lambda . d`"""
    total: float
    """`grad lambda . d`, the sum of the causes"""
    flow: float
    """`-grad lambda . g`: the rate along gradient flow, per unit of lr times steps"""
    offset: float
    """x, the estimated distance along u from where the gradient along u is zero: `u . g / lambda`"""
    gradient_square: float
    """`|grad lambda|^2` outside u, the strength of the self-stabilisation"""
    alignment: float
    """cosine of `-g` and `grad lambda`"""


def sharpening(
    slope: Tensor,
    vector: Tensor,
    value: float,
    gradient: Tensor,
    parts: Mapping[str, Tensor],
    displacement: Tensor,
    applied: Tensor | None = None,
) -> Sharpening:
    """Splits the first-order change of an eigenvalue along a step into its causes.

    The gradient's own part of the step, `d_g = -B g` with a positive diagonal B (lr for gradient descent), is split
    along Taylor's series of g along u, which is around the point where the gradient along u is zero, x back along u
    (Damian, Nichani and Lee, arXiv 2209.15594): `g = g_0 + x lambda u + (x^2 / 2) grad lambda + ...`, x = u . g /
    lambda. With `s = grad lambda - (u . grad lambda) u`:

        oscillation         -(u . g) grad lambda . B u          alternates its sign at the edge
        self-stabilisation  -(x^2 / 2) grad lambda . B s        never positive for B = lr
        gradient drift      -grad lambda . B g, less the two     progressive sharpening where it is positive

    Further parts of the step (penalty, weight decay) each give `grad lambda . part`, and what is left of the step
    (momentum, and the correction of an optimizer's first steps) gives `memory`.

    Args:
        slope: `grad lambda`, `[P]`.
        vector: u, of length 1, `[P]`.
        value: lambda.
        gradient: g, of the loss, `[P]`.
        parts: further parts of the step by name, `[P]` each.
        displacement: d, the step, `[P]`.
        applied: the diagonal of B, `[P]`; None: it is not known, and the step is not split.

    Returns:
        The causes; `{"step": total}` where B is not known.
    """
    total = _dot(slope, displacement)
    along, tilt = _dot(vector, gradient), _dot(vector, slope)
    offset = along / value if value else 0.0
    outside = slope.double() - tilt * vector.double()
    norms = float(slope.double().norm() * gradient.double().norm())
    flow = -_dot(slope, gradient)
    causes: dict[str, float] = {}
    if applied is None:
        causes["step"] = total
    else:
        of_gradient = -_dot(slope, applied * gradient)
        causes["oscillation"] = -along * _dot(slope, applied * vector)
        causes["self-stabilisation"] = -(offset**2) / 2 * _dot(slope, applied * outside)
        causes["gradient drift"] = of_gradient - causes["oscillation"] - causes["self-stabilisation"]
        causes |= {name: _dot(slope, part) for name, part in parts.items()}
        causes["memory"] = total - of_gradient - sum(_dot(slope, part) for part in parts.values())
    return Sharpening(causes, total, flow, offset, float(outside.square().sum()), flow / norms if norms else 0.0)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(dots(a[None], b[None])[0, 0])
