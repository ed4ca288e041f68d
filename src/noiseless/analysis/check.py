"""Checks Hessian products on one block at the start of an analysis: are they symmetric, and the gradient's derivative?

An operation whose second derivative is wrong, or does not follow from its first, gives wrong products without an error.
torch has had such operations, and a `torch.autograd.Function` of one's own may be one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from noiseless import keyed
from noiseless.errors import DerivativeError
from noiseless.objective import EmpiricalRisk, GradientPenalty, Objective
from noiseless.objective.base import Wrapper
from noiseless.objective.execution import Execution
from noiseless.objective.products import any_order, in_float64

EXAMPLES = 4
"""number of examples in the block; if the loss or the module does not take so few, the first block of the objective"""
ASYMMETRIC = {torch.float64: 1e-8, torch.float32: 1e-3}
"""smallest `|u.Hv - v.Hu|`, with standard normal u and v, as a share of `||Hu|| + ||Hv||`; rounding gives some 1e-6 in
float32 (measured on the built-in models)"""
ASYMMETRIC_COARSE = 0.2
"""the same with lower precision or autocast; rounding gives up to 0.02"""
WRONG = 1e-3
"""smallest error of a product, as a share of its length, in float64; rounding gives some 1e-6"""
STEP = 1e-9
"""length of the central difference's steps, as a share of `1 + ||theta||`: so short that kinks are rarely crossed"""
REPRODUCED = 0.1
"""largest change of the error with the step's length, as a share of the error: kinks and rounding change it by half"""

_checked: WeakKeyDictionary[nn.Module, set[Hashable]] = WeakKeyDictionary()


def check_products(objective: Objective) -> None:
    """Checks Hessian products on one block, once for a module, its mode, the loss and the kind of objective.

    With keyed random vectors u and v, `u.Hv = v.Hu` is checked in the objective's arithmetic. Then Hv is compared with
    the central difference of the block's gradient along v, both in float64; that is left out where the module or the
    loss cannot be computed in float64, and does not count where kinks (ReLU) lie within the step.

    Args:
        objective: a risk, or one that wraps it; other objectives are not checked. Each worker checks by itself, with
            the same result.

    Raises:
        DerivativeError: naming the check, its numbers and the likely reason.
        ValueError: as the product would.
        RuntimeError: as the product would.
    """
    while isinstance(objective, Wrapper):
        objective = objective.wrapped
    risk = objective.risk if isinstance(objective, GradientPenalty) else objective
    if not isinstance(risk, EmpiricalRisk) or (isinstance(objective, GradientPenalty) and objective.full_strength):
        return
    key = (type(objective), risk.autocast, risk.space.theta.dtype, *risk.block_loss.key())
    if key in _checked.get(risk.module, set()):
        return
    size = risk.blocks.size
    few = min(size, EXAMPLES)
    try:
        _check(objective, risk, few)
    except DerivativeError:
        raise
    except (ValueError, RuntimeError):  # fewer examples than the loss compares with each other, or the norm needs
        if few == size:
            raise
        _check(objective, risk, size)
    _checked.setdefault(risk.module, set()).add(key)


def check_symmetric(risk: EmpiricalRisk, kind: Hashable, product: Callable[[EmpiricalRisk, Tensor], Tensor]) -> None:
    """Checks `u.Av = v.Au` on one block, with keyed random u and v, once for a module, its mode, loss and kind.

    Args:
        risk: of which A is a curvature matrix. Each worker checks by itself, with the same result.
        kind: which matrix.
        product: (risk, V `[K, P]`) -> the products with that risk's matrix, `[K, P]`.

    Raises:
        DerivativeError: with both numbers and the likely reason.
        ValueError: as the product would.
        RuntimeError: as the product would.
    """
    key = (kind, risk.autocast, risk.space.theta.dtype, *risk.block_loss.key())
    if key in _checked.get(risk.module, set()):
        return
    u, v = _vectors(risk)
    size = risk.blocks.size
    for examples in (min(size, EXAMPLES), size):
        try:
            images = product(_part(risk, examples), torch.stack([u, v]))
            break
        except DerivativeError:
            raise
        except (ValueError, RuntimeError):  # as in `check_products`
            if examples == size:
                raise
    if images.isfinite().all():
        _check_symmetry(risk, u.double(), v.double(), images.double(), "curvature products")
    _checked.setdefault(risk.module, set()).add(key)


def _part(risk: EmpiricalRisk, examples: int) -> EmpiricalRisk:
    """The risk over the first examples, computed by this process alone."""
    part = risk.at(replace(risk.selection.head(examples), examples_per_pass=len(risk.selection)))
    part.execution = Execution()
    part.block_loss = replace(risk.block_loss, compiler=None)
    return part


def _check(objective: Objective, risk: EmpiricalRisk, examples: int) -> None:
    """Checks the products on the first examples."""
    part = _part(risk, examples)
    whole = objective.over(part)
    u, v = _vectors(risk)
    images = whole.hvp(torch.stack([u, v]))
    if not images.isfinite().all():
        return  # the analysis says so
    _check_symmetry(risk, u.double(), v.double(), images.double())
    _check_difference(whole, part, v.double())


def _vectors(risk: EmpiricalRisk) -> Tensor:
    """Two keyed standard normal vectors, `[2, P]`."""
    theta = risk.space.theta
    with keyed.torch_generators(0, "check", 0, 0, torch.device("cpu")):
        return torch.randn(2, len(theta), dtype=theta.dtype).to(theta.device)


def _check_symmetry(risk: EmpiricalRisk, u: Tensor, v: Tensor, images: Tensor, what: str = "Hessian products") -> None:
    """Raises unless `u.Hv = v.Hu`, where `images` are `[Hu, Hv]`."""
    one, other, lengths = float(u @ images[1]), float(v @ images[0]), float(images.norm(dim=1).sum())
    precise = risk.autocast is None
    tolerance = ASYMMETRIC.get(risk.space.theta.dtype, ASYMMETRIC_COARSE) if precise else ASYMMETRIC_COARSE
    if abs(one - other) > tolerance * lengths:
        raise DerivativeError(
            f"the {what} of this module and loss are not symmetric: on one block u.Hv = {one:.6g}, but"
            f" v.Hu = {other:.6g}, for random u and v with ||Hu|| + ||Hv|| = {lengths:.3g}, {_REASON}"
        )


def _check_difference(whole: Objective, part: EmpiricalRisk, v: Tensor) -> None:
    """Raises unless Hv is the central difference of the gradient along v, in float64."""
    space, theta, v = part.space, part.space.theta.double(), v / v.norm()
    step = STEP * (1 + float(theta.norm()))
    penalised = isinstance(whole, GradientPenalty)
    try:
        loss = in_float64(part.block_loss, part._batch(part.blocks.chunks(1)[0]))

        def gradient(at: Tensor, twice: bool) -> tuple[Tensor, Tensor]:
            at = at.detach().requires_grad_()
            value = loss(at)
            if isinstance(whole, GradientPenalty):
                value = whole.penalised(value, _gradient(value, at, True))
            return at, _gradient(value, at, twice)

        def difference(h: float) -> Tensor:
            with any_order(part.block_loss) if penalised else nullcontext():
                ahead, behind = (gradient(theta + sign * h * v, False)[1] for sign in (1, -1))
            return (ahead - behind) / (2 * h)

        with part.block_loss.in_sweep():
            with any_order(part.block_loss):
                at, slope = gradient(theta, True)
                image = _gradient(slope, at, False, v)
            first = difference(step)
            error, length = float((first - image).norm()), max(float(first.norm()), float(image.norm()))
            if not error > WRONG * length or float((difference(2 * step) - first).norm()) > REPRODUCED * error:
                return
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return  # it cannot be computed in float64, or not as a function of theta
    errors = {name: float(x.norm()) for name, x in space.split(first - image).items()}
    raise DerivativeError(
        f"the Hessian products of this module and loss are not the derivative of their gradient: on one block, along a"
        f" random v of length 1, Hv of length {float(image.norm()):.6g} differs by {error:.6g} from the central"
        f" difference of the gradient, of length {float(first.norm()):.6g}, most of all in"
        f" {max(errors, key=lambda name: errors[name])}, {_REASON}"
    )


def _gradient(value: Tensor, at: Tensor, create_graph: bool, along: Tensor | None = None) -> Tensor:
    """The gradient of a value, or of `value . along`; 0 where it does not depend on theta."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(
        value, at, along, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return gradient


_REASON = (
    "so an operation has a second derivative that is not that of its first: compute it by elementary operations of"
    " torch, also in the backward of a torch.autograd.Function of your own (Hessian(objective, check=False) leaves this"
    " check out)"
)
