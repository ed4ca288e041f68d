"""Compiled code for what costs time: a chunk's forward and backward.

A function is traced once into one graph of tensor operations, forward and backward together, for one shape of its
arguments, and made into machine code by torch's inductor, which fuses what stands between convolutions. The code is
a pure function of graph, shapes, thread count and processor: the same on each worker and after each restart, and so
are its bits. They are not those of uncompiled code, which rounds in other places.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., tuple[Tensor, ...]]


class Compiler:
    """Compiles functions at their first call, and keeps them.

    Args:
        tell: gets a line where something cannot be compiled, and is computed without.

    Attributes:
        tell: see above.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.tell = tell
        self._kept: dict[Hashable, Function | None] = {}

    def call(self, key: Hashable, function: Function, *arguments: Tensor) -> tuple[Tensor, ...] | None:
        """Calls the compiled form of a function.

        Args:
            key: what the function depends on besides its arguments.
            function: of tensors alone, without side effects; gives a tuple of tensors.
            arguments: contiguous tensors.

        Returns:
            What the function returns, up to rounding; None where it cannot be compiled, as with random numbers, which
            would not be keyed.

        Raises:
            ValueError: without a C++ compiler: to compute without would change the bits of a run that has begun.
        """
        place = (key, torch.get_num_threads(), *((a.shape, a.dtype, a.device) for a in arguments))
        if place not in self._kept:
            self._kept[place] = self._compiled(function, arguments)
        made = self._kept[place]
        with torch.no_grad():
            return None if made is None else tuple(made(*arguments))

    def _compiled(self, function: Function, arguments: tuple[Tensor, ...]) -> Function | None:
        lacking = missing() if arguments[0].device.type == "cpu" else None
        if lacking:
            raise ValueError(
                f"this is to be computed by compiled code, but {lacking}. Install g++; or start a new run with"
                " --compile off, which gives other last bits"
            )
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_kept_code()))
        try:
            graph = make_fx(function, _DECOMPOSED, tracing_mode="fake")(*arguments)
        except Exception as error:  # whatever a model's own Python raises when its tensors have no values
            self.tell(f"the model cannot be traced into one graph, so it is not compiled ({_first_line(error)})")
            return None
        if _draws(graph):
            self.tell("the model draws random numbers (dropout), which compiled code would not key: it is not compiled")
            return None
        return torch._inductor.standalone_compile(
            graph, list(arguments), dynamic_shapes="from_example_inputs", donate_graph_module=True
        )


def missing() -> str | None:
    """What this machine lacks for compiling.

    Returns:
        A few words, or None where nothing is missing.
    """
    named = os.environ.get("CXX")
    if named:
        return None if shutil.which(named) else f"CXX names {named}, which is not there"
    return None if any(shutil.which(name) for name in ("g++", "clang++", "c++")) else "no C++ compiler is found"


def _kept_code() -> Path:
    """Where compiled code is kept: with the user, as code, unlike runs, is not to be taken from others."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "noiseless" / "compiled"


def _draws(graph: GraphModule) -> bool:
    return any(
        isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        for node in graph.graph.nodes
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _avg_pool2d(x: Tensor, kernel: list[int], stride: list[int] | None = None, *rest: Any) -> Tensor:
    """Pooling of windows that tile the image, as a mean over reshaped axes, which fuses with its neighbours."""
    if not _tiles(x, kernel, stride, rest):
        return NotImplemented
    n, c, h, w = x.shape
    a, b = kernel if len(kernel) == 2 else kernel * 2
    return x.reshape(n, c, h // a, a, w // b, b).mean((3, 5))


def _avg_pool2d_backward(gradient: Tensor, x: Tensor, kernel: list[int], stride: list[int], *rest: Any) -> Tensor:
    if not _tiles(x, kernel, stride, rest):
        return NotImplemented
    a, b = kernel if len(kernel) == 2 else kernel * 2
    return torch.ops.aten.upsample_nearest2d.default(gradient / (a * b), list(x.shape[2:]))


def _tiles(x: Tensor, kernel: list[int], stride: list[int] | None, rest: tuple[Any, ...]) -> bool:
    """Whether pooling windows neither overlap, nor leave or add pixels."""
    padding = rest[0] if rest else [0]
    sizes = kernel if len(kernel) == 2 else kernel * 2
    plain = not any(padding) and (len(rest) < 4 or rest[3] is None)
    steps = list(stride or kernel)
    same = (steps if len(steps) == 2 else steps * 2) == list(sizes)
    return x.ndim == 4 and plain and same and not any(n % k for n, k in zip(x.shape[2:], sizes, strict=True))


_DECOMPOSED: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.avg_pool2d.default: _avg_pool2d,
    torch.ops.aten.avg_pool2d_backward.default: _avg_pool2d_backward,
}
