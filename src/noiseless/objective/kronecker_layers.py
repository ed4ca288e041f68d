"""The layers that have Kronecker factors, and what they multiply with their weights: linear layers and convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.objective.space import ParameterSpace

Convolution = nn.Conv1d, nn.Conv2d, nn.Conv3d


@dataclass(frozen=True)
class Layer:
    """A layer that has factors."""

    module: nn.Module
    """linear or convolutional"""
    parameters: tuple[str, ...]
    """names of the weight and, if it is trained, the bias"""

    @property
    def sizes(self) -> tuple[int, int]:
        """d, with a bias one more, and o."""
        weight: Any = self.module.weight
        return weight[0].numel() + len(self.parameters) - 1, len(weight)

    def inputs(self, x: Tensor) -> Tensor:
        """What a call's input puts before the weights: `[rows, places, d]`."""
        images = isinstance(self.module, Convolution)
        x = _patches(self.module, x) if images else x.reshape(len(x), -1, x.shape[-1])
        return F.pad(x, (0, 1), value=1.0) if len(self.parameters) > 1 else x

    def outputs(self, z: Tensor) -> Tensor:
        """Outputs of a call, or gradients there, by place: `[rows, places, o]`."""
        if isinstance(self.module, Convolution):
            return z.flatten(2).transpose(1, 2)
        return z.reshape(len(z), -1, z.shape[-1])


def kronecker_layers(space: ParameterSpace) -> dict[str, Layer]:
    """The layers of a module that have Kronecker factors.

    Args:
        space: of the module.

    Returns:
        Name -> layer, for linear layers and convolutions in one group, whose weight is trained, and is a parameter of
        this layer alone.
    """
    module, found = space.module, {}
    holders: dict[int, int] = {}
    for _, p in module.named_parameters(remove_duplicate=False):
        holders[id(p)] = holders.get(id(p), 0) + 1
    own = {id(p) for p in space.parameters if holders[id(p)] == 1}
    for name, layer in module.named_modules():
        if not isinstance(layer, (nn.Linear, *Convolution)) or getattr(layer, "groups", 1) != 1:
            continue
        prefix = f"{name}." if name else ""
        if id(layer.weight) in own and (layer.bias is None or not layer.bias.requires_grad or id(layer.bias) in own):
            names = [f"{prefix}weight", *([f"{prefix}bias"] if id(layer.bias) in own else [])]
            found[name] = Layer(layer, tuple(names))
    return found


def _patches(layer: Any, x: Tensor) -> Tensor:
    """The patches that a convolution multiplies with its weights: `[n, places, channels * kernel]`."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, _padding(layer), mode=mode)
    dims = len(layer.kernel_size)
    for k, (size, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + k, dilation * (size - 1) + 1, stride)[..., ::dilation]
    order = (0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
    x = x.permute(order)
    return x.reshape(len(x), x.shape[1 : 1 + dims].numel(), -1)


def _padding(layer: Any) -> list[int]:
    """The padding of a convolution, from the last dimension to the first, as `torch.nn.functional.pad` takes it."""
    if layer.padding == "valid":
        return [0] * (2 * len(layer.kernel_size))
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [side for width in reversed(layer.padding) for side in (width, width)]
