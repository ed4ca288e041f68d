"""What a model's layers take in: the second moments of their inputs, which a sweep can sum beside the gradient.

They are the input factor of Kronecker-factored curvature (Martens and Grosse 2015, arXiv 1503.05671; for convolutions
Grosse and Martens 2016, arXiv 1602.01407), here over the full data set and exactly summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.objective.space import ParameterSpace


class InputMoments:
    """The second moments of the inputs of a module's linear layers and convolutions.

    For a layer with weight `[out, d]` (a convolution's kernel as `[out, in * height * width]`), which meets the inputs
    x_t of T places an example (the patches under the kernel; 1 of a linear layer on vectors),

        A = (1 / (N T)) sum_i sum_t x_it x_it^T,   `[d, d]`.

    Of a layer that is called often in one forward, A is the mean over its calls. Left out are weights that are not
    trained, grouped and transposed convolutions, and those whose padding is not of zeros, or is given as a word.

    Args:
        module: the model.
        space: its parameter space.
    """

    def __init__(self, module: nn.Module, space: ParameterSpace):
        names = {id(p): name for name, p in zip(space.names, space.parameters, strict=True)}
        self._layers: dict[str, nn.Module] = {}
        self._sizes: list[int] = []
        for layer in module.modules():
            weight = layer.weight if _known(layer) else None
            if isinstance(weight, nn.Parameter) and names.get(id(weight), "") not in ("", *self._layers):
                self._layers[names[id(weight)]] = layer
                self._sizes.append(weight[0].numel())
        self._recorded: dict[str, list[Tensor]] | None = None

    @property
    def length(self) -> int:
        """M: numbers that are summed, the upper triangle of each A, `d (d + 1) / 2`."""
        return sum(d * (d + 1) // 2 for d in self._sizes)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it, the layers note what they take in, between `start` and `collect`.

        Yields:
            Nothing.
        """
        with ExitStack() as hooks:
            for name, layer in self._layers.items():
                hooks.callback(layer.register_forward_pre_hook(self._noting(name)).remove)
            yield

    def start(self) -> None:
        """Begins to record: what the next forward of one block takes in is kept for `collect`."""
        self._recorded = {}

    def collect(self, like: Tensor) -> Tensor:
        """Ends recording.

        Args:
            like: gives dtype and device.

        Returns:
            The block's A, row by row and layer by layer, one vector of all `d * d`; 0 of a layer that was not called.
        """
        recorded, self._recorded = self._recorded or {}, None
        parts = [like.new_zeros(0)]
        for name, d in zip(self._layers, self._sizes, strict=True):
            calls = recorded.get(name)
            if calls:
                whole = calls[0] if len(calls) == 1 else torch.stack(calls).mean(0)
                parts.append(whole.to(like.dtype).flatten())
            else:
                parts.append(like.new_zeros(d * d))
        return torch.cat(parts)

    def packed(self, collected: Tensor) -> Tensor:
        """What is summed of it: `[..., sum of d * d]` to the upper triangles, `[..., M]`."""
        return collected[..., _triangles(tuple(self._sizes), collected.device)]

    def matrices(self, summed: Tensor) -> dict[str, Tensor]:
        """The symmetric matrices.

        Args:
            summed: `[M]`.

        Returns:
            A `[d, d]` by the name of the layer's weight.
        """
        whole = summed.new_zeros(sum(d * d for d in self._sizes))
        whole[_triangles(tuple(self._sizes), summed.device)] = summed
        uppers = (
            part.view(d, d) for d, part in zip(self._sizes, whole.split([d * d for d in self._sizes]), strict=True)
        )
        return {name: upper + upper.triu(1).T for name, upper in zip(self._layers, uppers, strict=True)}

    def _noting(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(layer: nn.Module, given: tuple[Any, ...]) -> None:
            if self._recorded is not None:
                self._recorded.setdefault(name, []).append(_moment(layer, given[0].detach()))

        return note


def _known(layer: nn.Module) -> bool:
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    return isinstance(layer, nn.Linear) or (plain and not isinstance(layer.padding, str))


def _moment(layer: nn.Module, x: Tensor) -> Tensor:
    """The mean of `x_t x_t^T` over the places and examples of one block, `[d, d]`."""
    assert isinstance(layer.weight, Tensor)
    x = x.to(layer.weight.dtype)
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        x = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = x.transpose(0, 1).flatten(1)
    else:
        rows = x.flatten(0, -2).T
    with torch.autocast(x.device.type, enabled=False):
        return rows @ rows.T / rows.shape[1]


@lru_cache(maxsize=4)
def _triangles(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Places of the upper triangles in matrices `[d, d]` one after the other, flattened; the same for all steps."""
    places, start = [torch.zeros(0, dtype=torch.int64, device=device)], 0
    for d in sizes:
        row, column = torch.triu_indices(d, d, device=device)
        places.append(start + row * d + column)
        start += d * d
    return torch.cat(places)
