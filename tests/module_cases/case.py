"""A case of the sweep over modules: a module as users have it, with data, loss, mode and block size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

COUNT = 8
Column = Literal["value", "gradient", "exact", "central", "product"]


def curved(output: Tensor, target: Tensor) -> Tensor:
    """A loss of each example whose derivatives of all orders up to the third are not 0."""
    return (output.sin() + 0.3 * (output - target.reshape(-1, *[1] * (output.ndim - 1))).square()).flatten(1).mean(1)


def reals(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(below: int, *shape: int, seed: int = 5) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    make: Callable[[], nn.Module]
    """makes the module; random numbers are seeded before"""
    data: Any
    """the module's inputs and the target, by position or by name"""
    loss: Callable[[Any, Any], Any] = curved
    """of the objective and the oracle: returns values, values and weights, or (if it is torch's) a mean"""
    weight: Callable[[Any], Any] = len
    """(target of a block) -> the block's weight"""
    train: bool = True
    block: int = 3
    jitter: float = 0.1
    """what is added to each parameter, times standard normal numbers: none stays 0 or 1"""
    doubly: bool = True
    """whether torch's second derivative exists and is right; otherwise the oracle has differences of the gradient"""
    for_oracle: Callable[[nn.Module], nn.Module] = nn.Module.double
    """changes the module for the oracle, to the same function in float64"""
    smooth: bool = True
    """whether differences of the gradient, too, must agree with the products; if not, less is compared"""
    rounding: float = 1
    """times the tolerances: small norm blocks in deep nets multiply rounding"""
    float32: float = 1e-4
    """largest relative error of value and gradient in float32"""
    refused: Mapping[Column, str] = field(default_factory=dict)
    """column -> words of the sentence with which it is refused; "value": all of it"""

    def loss_in(self, dtype: torch.dtype) -> Callable[[Any, Any], Any]:
        """The loss; one with weights has them in this dtype."""
        return copy.deepcopy(self.loss).to(dtype) if isinstance(self.loss, nn.Module) else self.loss

    def module(self) -> nn.Module:
        """The module in float32; each call makes another one with the same values."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = self.make().train(self.train)
            with torch.no_grad():
                for p in module.parameters():
                    if p.requires_grad and not isinstance(p, nn.UninitializedParameter):
                        p.add_(self.jitter * torch.randn_like(p))
        return module


def wide(tree: Any) -> Any:
    """A copy in float64 of what is real."""
    return tree_map(lambda x: x.double() if x.is_floating_point() else x.clone(), tree)


class Shifted(nn.Module):
    """A layer behind a parameter that is added to its input, so that the layer's derivative by its input counts."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]):
        super().__init__()
        self.layer, self.shift = layer, nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x + self.shift)
        return output[0] if isinstance(output, tuple) else output


class Call(nn.Module):
    """A function of inputs and of parameters in these shapes."""

    def __init__(self, function: Callable[..., Any], *shapes: tuple[int, ...]):
        super().__init__()
        self.function, self.weights = function, nn.ParameterList([nn.Parameter(torch.randn(s)) for s in shapes])

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *self.weights)


def layer(name: str, make: Callable[[], nn.Module], *shape: int, **options: Any) -> Case:
    """A case of a layer whose input has this shape for each example."""
    return Case(name, lambda: Shifted(make(), shape), (reals(COUNT, *shape), reals(COUNT)), **options)


def function(name: str, call: Callable[..., Any], inputs: tuple[Tensor, ...], *shapes: tuple[int, ...], **options: Any):
    """A case of a function of inputs and parameters."""
    return Case(name, lambda: Call(call, *shapes), (*inputs, reals(COUNT)), **options)
