"""Dense curvature matrices by torch.func, block by block; they do not import the program."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev
from torch.nn.modules.batchnorm import _BatchNorm

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> values `[n]`"""


def blockwise(module: nn.Module) -> tuple[nn.Module, list[str], list[torch.Size], Tensor]:
    """A copy whose batch norms in training mode normalise whatever they are given; names, shapes and theta."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    named = dict(module.named_parameters())
    theta = torch.cat([p.detach().reshape(-1) for p in named.values()])
    return module, list(named), [p.shape for p in named.values()], theta


def forward(module: nn.Module, names: list[str], shapes: list[torch.Size], x: Tensor) -> Callable[[Tensor], Tensor]:
    """The outputs as a function of theta."""

    def outputs(theta: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes])
        state = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return functional_call(module, state, (x,))

    return outputs


def gauss_newton(module: nn.Module, loss: Loss, x: Tensor, y: Tensor, block: int) -> Tensor:
    """`(1 / N) sum_b J_b^T (d^2 sum_i v_i / df^2) J_b`."""
    module, names, shapes, theta = blockwise(module)
    total = theta.new_zeros(len(theta), len(theta))
    for xs, ys in zip(x.split(block), y.split(block), strict=True):
        outputs = forward(module, names, shapes, xs)
        f = outputs(theta)
        J = jacrev(outputs)(theta).reshape(f.numel(), -1)
        C = jacrev(grad(lambda flat, f=f, ys=ys: loss(flat.reshape(f.shape), ys).sum()))(f.reshape(-1))
        total += J.T @ C @ J
    return total / len(x)


def empirical_fisher(module: nn.Module, loss: Loss, x: Tensor, y: Tensor, block: int) -> Tensor:
    """`(1 / N) sum_i g_i g_i^T`."""
    module, names, shapes, theta = blockwise(module)
    rows = [
        jacrev(lambda t, xs=xs, ys=ys: loss(forward(module, names, shapes, xs)(t), ys))(theta)
        for xs, ys in zip(x.split(block), y.split(block), strict=True)
    ]
    G = torch.cat(rows)
    return G.T @ G / len(x)


def categorical_fisher(module: nn.Module, log_probabilities: bool, x: Tensor, block: int) -> Tensor:
    """`(1 / N) sum_i sum_k p_ik g_ik g_ik^T`, with g_ik the gradient of `-log p(k | x_i)`: the sum over all targets."""
    module, names, shapes, theta = blockwise(module)
    total = theta.new_zeros(len(theta), len(theta))
    for xs in x.split(block):

        def losses(t, xs=xs):
            f = forward(module, names, shapes, xs)(t)
            return f if log_probabilities else f.log_softmax(1)

        p = losses(theta).exp()
        G = jacrev(losses)(theta)
        total += torch.einsum("nk,nkp,nkq->pq", p, G, G)
    return total / len(x)
