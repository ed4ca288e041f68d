"""Hessian products of single blocks, by double backward: the only place that differentiates a loss more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vjp
from torch.utils._pytree import tree_flatten, tree_unflatten

from noiseless import keyed
from noiseless.examples.blocks import Batch
from noiseless.examples.trees import mapped
from noiseless.objective import layout
from noiseless.objective.compiled import Compiler
from noiseless.objective.elementary import AnyOrder
from noiseless.objective.gradients import BlockLoss
from noiseless.objective.usercode import PRODUCTS, Need, refuse_once, user_code


def block_products(block_loss: BlockLoss, batch: Batch, V: Tensor, compiles: bool) -> tuple[Tensor, Tensor]:
    """The products `H v` of the Hessian H of a block's mean loss.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        batch: of one block.
        V: vectors `[K, P]`, of the parameters' dtype.
        compiles: whether its compiler, if there is one, compiles them.

    Returns:
        `[K, P]`, and the block's weight.
    """
    if compiles and block_loss.compiler is not None and batch.regular and block_loss.follows():
        compiled = compiled_products(block_loss, block_loss.compiler, batch, V, ("products",), _hessian_products)
        if compiled is not None:
            return compiled
    return products(block_loss, partial(block_loss.value, batch, 0), V, PRODUCTS)


def products(
    block_loss: BlockLoss, value: Callable[[], tuple[Tensor, Tensor]], V: Tensor, need: Need
) -> tuple[Tensor, Tensor]:
    """The products `H v` of a value's Hessian H at the module's parameters.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        value: () -> the value, a scalar, and its weight; it runs `block_loss.value`, and may itself be made of
            gradients.
        V: vectors `[K, P]`, of the parameters' dtype.
        need: what needs the products, for the message where a derivative is missing.

    Returns:
        `[K, P]`, and the value's weight.

    Raises:
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    with any_order(block_loss), user_code(block_loss.module, need):
        at, weight = value()
        gradient = block_loss.space.gradient(at, create_graph=True)
        refuse_once(at, gradient, need)
        return torch.stack([block_loss.space.gradient(gradient, v) for v in V]), weight


def hessian_gradients(
    block_loss: BlockLoss, value: Callable[[], tuple[Tensor, Tensor]], U: Tensor, weights: Tensor, need: Need
) -> tuple[Tensor, Tensor]:
    """The gradients of `sum_ij W_ij u_i . H u_j` by the parameters, at fixed vectors u, with H a value's Hessian.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        value: as in `products`.
        U: vectors `[K, P]`, of the parameters' dtype.
        weights: matrices W `[M, K, K]`.
        need: what needs the gradients, for the message where a derivative is missing.

    Returns:
        `[M, P]`, and the value's weight.

    Raises:
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    space = block_loss.space
    with any_order(block_loss), user_code(block_loss.module, need):
        at, weight = value()
        gradient = space.gradient(at, create_graph=True)
        refuse_once(at, gradient, need)
        images = [space.gradient(gradient, u, create_graph=True) for u in U]
        for image in images:
            refuse_once(at, image, need)
        rows = []
        for W in upper(weights).to(U):
            forms = [image @ (w @ U) for image, w in zip(images, W, strict=True) if w.any()]
            total = torch.stack(forms).sum() if forms else gradient.new_zeros(())
            rows.append(space.gradient(total, torch.ones_like(total)))
        return torch.stack(rows), weight


def upper(weights: Tensor) -> Tensor:
    """The upper triangular matrices with the quadratic forms of matrices `[M, K, K]`: they need fewer products."""
    return weights.triu() + weights.tril(-1).mT


def gradient_product(block_loss: BlockLoss, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The product of a block's Hessian with the block's gradient.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        batch: of one block.

    Returns:
        The gradient g_b of the block's mean loss, `[P]`; `H_b g_b`, `[P]`; the block's weight.

    Raises:
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    with any_order(block_loss), user_code(block_loss.module, PRODUCTS):
        at, weight = block_loss.value(batch, 0)
        gradient = block_loss.space.gradient(at, create_graph=True)
        refuse_once(at, gradient, PRODUCTS)
        return gradient.detach(), block_loss.space.gradient(gradient, gradient.detach()), weight


BlockValue = Callable[[Tensor], tuple[Tensor, Tensor]]
"""parameters `[P]` -> value of a block, and its weight"""


def _hessian_products(mean: BlockValue, theta: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """`H v` for each row of V, reverse mode over reverse mode, and the weight."""
    _, product, weight = vjp(grad(mean, has_aux=True), theta, has_aux=True)  # type: ignore[misc]
    return torch.stack([product(v)[0] for v in V]), weight


def compiled_products(
    block_loss: BlockLoss, compiler: Compiler, batch: Batch, V: Tensor, name: tuple[str, ...],
    products: Callable[[BlockValue, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Products of a matrix of a block's value with vectors, by compiled code.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        compiler: keeps the compiled code.
        batch: of one block.
        V: vectors `[K, P]`.
        name: of the matrix, by which its code is kept.
        products: (the block's value, parameters, V) -> products `[K, P]`, and the block's weight.

    Returns:
        `[K, P]`, and the block's weight; None if the module cannot be compiled.
    """
    space, held, examples = block_loss.space, block_loss.held(), batch.size
    leaves, form = tree_flatten((batch.target, batch.inputs))
    names, count = tuple(held), len(leaves)

    def function(theta: Tensor, V: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        target, inputs = mapped(lambda t: t[0], tree_unflatten(tensors[:count], form))
        inputs = layout.preferred(block_loss.module, inputs, block_loss.autocast)
        state = dict(zip(names, tensors[count:], strict=True))

        def value(t: Tensor) -> tuple[Tensor, Tensor]:
            at, (_, weight, *_) = block_loss.as_function(t, inputs, target, examples, False, state)
            return at, weight

        return products(value, theta, V)

    settings = block_loss.norm.norm_block, block_loss.autocast
    key = (*name, block_loss.module, *settings, *block_loss.key(), names, form)
    arguments = (x.contiguous() for x in (space.theta.detach(), V, *leaves))
    keeps = layout.splits_sums(block_loss.module, block_loss.autocast)
    with any_order(block_loss):
        parts = compiler.call(key, function, *arguments, *held.values(), keep_layout=keeps)
    return None if parts is None else (parts[0], parts[1])


@contextmanager
def any_order(block_loss: BlockLoss) -> Iterator[None]:
    """A context in which block losses can be differentiated to any order, and have to be.

    Args:
        block_loss: of the objective.

    Yields:
        Nothing.
    """
    block_loss.norm.any_order = True
    try:
        with AnyOrder():
            yield
    finally:
        block_loss.norm.any_order = False


def in_float64(block_loss: BlockLoss, batch: Batch) -> Callable[[Tensor], Tensor]:
    """The mean loss of a batch's first block as a function of theta, in float64 as far as the module follows it.

    Args:
        block_loss: of the objective; it has to be in a sweep when the function is called.
        batch: of the block.

    Returns:
        theta float64 `[P]` -> the loss, a scalar.
    """
    state = {name: _wide(tensor) for name, tensor in block_loss.held().items()}
    wide = replace(block_loss, scoring=block_loss.scoring.double(), autocast=None, compiler=None)
    inputs, target = mapped(lambda x: _wide(x[0]), (batch.inputs, batch.target))

    def value(theta: Tensor) -> Tensor:
        with keyed.torch_generators(batch.seed, "module", batch.step, batch.first, block_loss.space.device):
            return wide.as_function(theta, inputs, target, batch.size, False, state)[0]

    return value


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
