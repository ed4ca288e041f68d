"""Measures limits of this machine: its fastest dense kernels, and the time of a model's convolutions and products.

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
"""default number of timings of each kernel"""
SIZES = (1024, 2048)
"""sizes of the square matrices whose product is timed"""


@dataclass(frozen=True)
class _Kernel:
    """Kind and shapes of a convolution or linear layer; layers with equal ones are timed once."""

    kind: str
    shape: tuple[int, ...]
    """shape of the input of one block"""
    weight: tuple[int, ...]
    """shape of the weight"""
    settings: tuple[Any, ...]
    """stride, padding, dilation and groups of a convolution; empty for a linear layer"""
    first: bool
    """whether the input is the image, whose gradient is not computed"""


def peaks(threads: int) -> dict[str, float]:
    """Measures the FLOP/s of the fastest dense kernel on this machine, by dtype.

    The larger of square matrix products and of a 3x3 convolution of 128 images with 128 channels of 16x16.

    Args:
        threads: number of threads of torch.

    Returns:
        Autocast -> FLOP/s, from medians: `none` (float32) and `bfloat16` for the fastest kernel, `none product` and
        `bfloat16 product` for the fastest matrix product.
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
            if seconds > 1:  # this machine has no fast kernel for the dtype
                break
        fastest[f"{name} product"] = max(rates)
        x = torch.randn(128, 128, 16, 16).to(dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
        rates.append(2 * 9 * 128**3 * 16**2 / _median(lambda x=x, w=w: F.conv2d(x, w, padding=1)))  # type: ignore[misc]
        fastest[name] = max(rates)
    return fastest


def ceiling(model: nn.Module, image: Tensor, block: int, dtype: torch.dtype, rounds: int = ROUNDS) -> float:
    """Measures the seconds of forward and backward of all convolutions and linear layers of a block, each kernel alone.

    Args:
        model: its convolutions and linear layers must be called as modules.
        image: one example `[1, C, H, W]`.
        block: number of examples.
        dtype: of the kernels.
        rounds: number of timings of each kernel, of which the median is used.

    Returns:
        The seconds; inputs are in memory, in the channels-last layout.
    """
    return sum(count * _seconds(kernel, dtype, image.device, rounds) for kernel, count in _kernels(model, image, block))


def sweep_ceiling(config: Config, autocast: str, images: int, rounds: int = ROUNDS) -> float:
    """Measures the seconds of a sweep's convolutions and products alone, with one gradient a block.

    Args:
        config: of the run.
        autocast: `none` or `bfloat16`.
        images: number of images in the sweep, a multiple of the block.
        rounds: number of timings of each kernel.

    Returns:
        The seconds, with as many blocks at once as a chunk of the run has.
    """
    keep_memory()
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    block = min(experiment.config.recipe.objective.block * (experiment.config.settings.chunk or 1), images)
    dtype = torch.bfloat16 if autocast == "bfloat16" else getattr(torch, config.recipe.model.dtype)
    image = experiment.train.take(torch.zeros(1, dtype=torch.int64))[0].to(experiment.space.theta)
    return images / block * ceiling(experiment.model, image, block, dtype, rounds)


def _kernels(model: nn.Module, image: Tensor, block: int) -> list[tuple[_Kernel, int]]:
    """The kernels in a forward of the model, with the number of layers of each."""
    kernels: Counter[_Kernel] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        shape = (block, *x.shape[1:])
        settings: tuple[Any, ...] = ()
        if isinstance(module, nn.Conv2d):
            settings = (module.stride, module.padding, module.dilation, module.groups)
        weight = tuple(module.weight.shape)  # type: ignore[arg-type]
        kernels[_Kernel(type(module).__name__, shape, weight, settings, x.data_ptr() == image.data_ptr())] += 1

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
    return list(kernels.items())


def _seconds(kernel: _Kernel, dtype: torch.dtype, device: torch.device, rounds: int) -> float:
    """Median seconds of the forward and backward of a kernel; the first of `rounds + 1` calls is not counted."""
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
            )  # y takes the place of its gradient
    else:
        y = x @ w.T

        def both() -> None:
            torch.mm(x, w.T)
            torch.mm(y.T, x)
            if not kernel.first:
                torch.mm(y, w)

    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        both()
        wait()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def _median(call: Callable[[], object], rounds: int = 7, enough: float = 5.0) -> float:
    """Median seconds of a call, without the first if there are others; stops early after `enough` seconds."""
    seconds: list[float] = []
    while len(seconds) <= rounds and sum(seconds) < enough:
        began = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:] or seconds)
