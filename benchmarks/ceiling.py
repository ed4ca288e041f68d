"""Limits of this machine: the fastest dense kernels, and what a model's convolutions and products take by themselves.

No sweep is faster than the sum of its convolutions and products.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.cost.bench import wait
from noiseless.recipes.config import Config
from noiseless.run.build import build
from noiseless.run.speed import keep_memory

ROUNDS = 5
"""of timing each kernel"""
SIZES = (1024, 2048)
"""of the square matrices whose product is timed"""


@dataclass(frozen=True)
class _Kernel:
    """A layer as the machine sees it; layers of one shape are timed once."""

    kind: str
    shape: tuple[int, ...]
    """of its input, for one block"""
    weight: tuple[int, ...]
    settings: tuple[Any, ...]
    """stride, padding, dilation, groups of a convolution"""
    first: bool
    """whether its input is the image, which asks for no gradient"""


def peaks(threads: int) -> dict[str, float]:
    """FLOP/s of the fastest dense kernel here, by dtype.

    The larger of square matrix products and of a 3x3 convolution of 128 images with 128 channels of 16x16.

    Args:
        threads: of torch.

    Returns:
        The median of several, for `none` (float32) and `bfloat16`; and of the matrix products alone, for
        `none product` and `bfloat16 product`.
    """
    keep_memory()
    torch.set_num_threads(threads)
    fastest = {}
    for name, dtype in (("none", torch.float32), ("bfloat16", torch.bfloat16)):
        rates = []
        for n in SIZES:
            a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
            seconds = _median(lambda a=a, b=b: a @ b)  # type: ignore[misc]
            rates.append(2 * n**3 / seconds)
            if seconds > 1:  # a dtype that this machine has no fast kernel for
                break
        fastest[f"{name} product"] = max(rates)
        x = torch.randn(128, 128, 16, 16).to(dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
        rates.append(2 * 9 * 128**3 * 16**2 / _median(lambda x=x, w=w: F.conv2d(x, w, padding=1)))  # type: ignore[misc]
        fastest[name] = max(rates)
    return fastest


def ceiling(model: nn.Module, image: Tensor, block: int, dtype: torch.dtype, rounds: int = ROUNDS) -> float:
    """Seconds of forward and backward of all convolutions and linear layers of a block, each kernel alone.

    Args:
        model: with its modules called in its forward.
        image: one example `[1, C, H, W]`.
        block: examples.
        dtype: in which the kernels compute.
        rounds: of each kernel; their median counts.

    Returns:
        The seconds; inputs are ready in memory, in the layout that the kernels like best.
    """
    return sum(count * _seconds(kernel, dtype, image.device, rounds) for kernel, count in _kernels(model, image, block))


def of(config: Config, autocast: str, images: int, rounds: int = ROUNDS) -> float:
    """Seconds that a sweep's convolutions and products take by themselves, with one gradient a block.

    Args:
        config: of the run.
        autocast: none or bfloat16.
        images: of the sweep, in whole blocks.
        rounds: of timing each kernel.

    Returns:
        The seconds, at as many blocks at once as the run's chunks have.
    """
    keep_memory()
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    block = min(experiment.config.recipe.objective.block * (experiment.config.settings.chunk or 1), images)
    dtype = torch.bfloat16 if autocast == "bfloat16" else getattr(torch, config.recipe.model.dtype)
    image = experiment.train.take(torch.zeros(1, dtype=torch.int64))[0].to(experiment.space.theta)
    return images / block * ceiling(experiment.model, image, block, dtype, rounds)


def _kernels(model: nn.Module, image: Tensor, block: int) -> list[tuple[_Kernel, int]]:
    found: Counter[_Kernel] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        shape = (block, *x.shape[1:])
        settings: tuple[Any, ...] = ()
        if isinstance(module, nn.Conv2d):
            settings = (module.stride, module.padding, module.dilation, module.groups)
        weight = tuple(module.weight.shape)  # type: ignore[arg-type]
        found[_Kernel(type(module).__name__, shape, weight, settings, x.data_ptr() == image.data_ptr())] += 1

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(note) for m in layers]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return list(found.items())


def _seconds(kernel: _Kernel, dtype: torch.dtype, device: torch.device, rounds: int) -> float:
    x = torch.randn(kernel.shape, device=device).to(dtype)
    w = torch.randn(kernel.weight, device=device).to(dtype)
    if kernel.settings:
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        stride, padding, dilation, groups = kernel.settings
        y = F.conv2d(x, w, None, stride, padding, dilation, groups)
        mask = [not kernel.first, True, False]

        def both() -> None:
            F.conv2d(x, w, None, stride, padding, dilation, groups)
            torch.ops.aten.convolution_backward(
                y, x, w, None, stride, padding, dilation, False, [0, 0], groups, mask
            )  # y stands for its own gradient
    else:
        y = x @ w.T

        def both() -> None:
            torch.mm(x, w.T)
            torch.mm(y.T, x)
            if not kernel.first:
                torch.mm(y, w)

    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        both()
        wait()
        found.append(time.perf_counter() - began)
    return median(found[1:])


def _median(call: Callable[[], object], rounds: int = 7, enough: float = 5.0) -> float:
    """Seconds of a call, the first left out if there are others; of fewer rounds where they take more than enough."""
    seconds: list[float] = []
    while len(seconds) <= rounds and sum(seconds) < enough:
        began = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:] or seconds)
