"""Convolutions and their gradients as exact matrix products of patches, see `products`.

Images are laid out channels-last; patches are copied for a few images at a time, so that they stay in the cache. How
many is fixed by shapes where it enters a sum (the gradient of the weight), and changes no bit elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from noiseless.portable.products import LONGEST, anchor, bits, largest, product, rounded

BUFFER = 2**17
"""float64 elements of the patches that are copied at once"""
Pair = tuple[int, int]


class Window(NamedTuple):
    """How a convolution's kernel moves over its input; pairs are of height and width."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


def pair(values: Sequence[int]) -> Pair:
    """Two numbers: the last one for width, the one before it for height."""
    return (values[0], values[-1]) if len(values) > 1 else (values[0], values[0])


def _padded(x: Tensor, padding: Pair) -> Tensor:
    """`[n, C, H, W]` to `[n, H + 2 p, W + 2 q, C]`, contiguous, with zeros around."""
    n, channels, height, width = x.shape
    p, q = padding
    if p or q:
        result = x.new_zeros(n, height + 2 * p, width + 2 * q, channels)
        result[:, p : p + height, q : q + width].copy_(x.permute(0, 2, 3, 1))
        return result
    return x.permute(0, 2, 3, 1).contiguous()


def _patches(x: Tensor, kernel: Pair, out: Pair, window: Window) -> Tensor:
    """Patches of x `[n, H, W, C]`, contiguous, as a view `[groups, n, OH, OW, KH, KW, C / groups]`."""
    n, height, width, channels = x.shape
    stride, dilation, groups = window.stride, window.dilation, window.groups
    row, column, per_group = width * channels, channels, channels // groups
    size = (groups, n, *out, *kernel, per_group)
    strides = (
        per_group, height * row, stride[0] * row, stride[1] * column, dilation[0] * row, dilation[1] * column, 1,
    )  # fmt: skip
    return x.as_strided(size, strides)


def output_size(size: Sequence[int], kernel: Pair, window: Window) -> Pair:
    """Height and width of a convolution's output."""
    return tuple(  # type: ignore[return-value]
        (size[k] + 2 * window.padding[k] - window.dilation[k] * (kernel[k] - 1) - 1) // window.stride[k] + 1
        for k in (0, 1)
    )


def convolve(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The convolution of x `[n, C, H, W]` with a weight `[O, C / groups, KH, KW]`, both float32: `[n, O, OH, OW]`."""
    kernel: Pair = (weight.shape[2], weight.shape[3])
    out, groups = output_size(x.shape[2:], kernel, window), window.groups
    if groups == 1 and kernel[0] * kernel[1] > max(16, out[0] * out[1]):  # torch's double backward has such ones
        exchanged = window._replace(stride=window.dilation, dilation=window.stride)
        by_channel = weight_gradient(x.transpose(0, 1), weight.transpose(0, 1), out, exchanged)
        return by_channel.transpose(0, 1)
    filters = weight.reshape(groups, -1, *weight.shape[1:]).permute(0, 1, 3, 4, 2)  # [g, O / g, KH, KW, C / g]
    filters = filters.reshape(groups, filters.shape[1], -1)
    if x.dtype == torch.float64:
        return _simply(x, filters, kernel, out, window)
    n, outputs, length = len(x), filters.shape[1], filters.shape[2]
    parts = [(start, min(LONGEST, length - start)) for start in range(0, length, LONGEST)]
    of_x, of_w = bits(min(length, LONGEST))
    factors = [rounded(filters.narrow(2, *part), (2,), of_w).double() for part in parts]
    padded = _padded(x, window.padding)
    c = anchor(largest(padded, (1, 2, 3)), of_x)
    padded = padded.add_(c).sub_(c) if padded.data_ptr() != x.data_ptr() else (padded + c).sub_(c)
    result = x.new_empty(n, groups, outputs, *out)
    step = max(1, BUFFER // max(1, out[0] * out[1] * length * groups))
    for start in range(0, n, step):
        view = _patches(padded[start : start + step], kernel, out, window)
        rows = _contiguous(view).reshape(groups, -1, length)
        total = torch.bmm(factors[0], rows.narrow(2, *parts[0]).mT)  # this order is up to twice as fast as the other
        for part, factor in zip(parts[1:], factors[1:], strict=True):
            total.add_(torch.bmm(factor, rows.narrow(2, *part).mT))
        result[start : start + step] = total.reshape(groups, outputs, -1, *out).permute(2, 0, 1, 3, 4)
    return result.reshape(n, -1, *out)


def _simply(x: Tensor, filters: Tensor, kernel: Pair, out: Pair, window: Window) -> Tensor:
    """`convolve` of float64 tensors: patches of all images at once."""
    rows = _patches(_padded(x, window.padding), kernel, out, window).reshape(window.groups, -1, filters.shape[2])
    result = product(rows, filters.mT).reshape(window.groups, len(x), *out, -1)
    return result.permute(1, 0, 4, 2, 3).reshape(len(x), -1, *out)


def input_gradient(dy: Tensor, weight: Tensor, size: Sequence[int], window: Window) -> Tensor:
    """The gradient of a convolution's input, which has height and width `size`: `[n, C, H, W]`.

    It is also the transposed convolution of dy.

    Args:
        dy: gradient of the output, `[n, O, OH, OW]`.
        weight: `[O, C / groups, KH, KW]`.
        size: height and width of the input.
        window: of the convolution.

    Returns:
        The gradient.
    """
    kernel: Pair = (weight.shape[2], weight.shape[3])
    stride, padding, dilation, groups = window
    around: Pair = tuple(dilation[k] * (kernel[k] - 1) - padding[k] for k in (0, 1))  # type: ignore[assignment]
    if stride == (1, 1) and min(around) >= 0:
        turned = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flip(3, 4)
        return convolve(dy, turned.reshape(-1, *turned.shape[2:]), Window((1, 1), around, dilation, groups))
    n, channels = len(dy), weight.shape[1]
    filters = weight.reshape(groups, -1, channels, *kernel).permute(0, 1, 3, 4, 2)  # [g, O / g, KH, KW, C / g]
    filters, out = filters.reshape(groups, filters.shape[1], -1), dy.shape[2:]
    height, width = size[0] + 2 * padding[0], size[1] + 2 * padding[1]
    result = dy.new_empty(n, groups, channels, *size)
    step = max(1, BUFFER // max(1, out[0] * out[1] * filters.shape[2] * groups))
    for start in range(0, n, step):
        part = dy[start : start + step]
        rows = part.reshape(len(part), groups, -1, *out).permute(1, 0, 3, 4, 2).flatten(1, 3)  # [g, n OH OW, O / g]
        patches = product(rows, filters).double().reshape(groups, len(part), *out, *kernel, channels)
        total = torch.zeros(groups, len(part), height, width, channels, dtype=torch.float64)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                top, left = i * dilation[0], j * dilation[1]
                total[
                    :, :, top : top + (out[0] - 1) * stride[0] + 1 : stride[0],
                    left : left + (out[1] - 1) * stride[1] + 1 : stride[1],
                ] += patches[:, :, :, :, i, j]  # fmt: skip
        inner = total[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
        result[start : start + step] = inner.permute(1, 0, 4, 2, 3)
    return result.reshape(n, -1, *size)


def weight_gradient(x: Tensor, dy: Tensor, kernel: Pair, window: Window) -> Tensor:
    """The gradient of a convolution's weight: `[O, C / groups, KH, KW]`.

    The sum over images and positions is cut into parts of at most 1024 terms: whole images where they are smaller, rows
    of an image where it is larger. Parts are exact, and are added in their order in float64.

    Args:
        x: input, `[n, C, H, W]`.
        dy: gradient of the output, `[n, O, OH, OW]`.
        kernel: height and width.
        window: of the convolution.

    Returns:
        The gradient.
    """
    n, (height, width), groups = len(x), dy.shape[2:], window.groups
    channels, outputs = x.shape[1] // groups, dy.shape[1] // groups
    padded, gradients = _padded(x, window.padding), dy.permute(0, 2, 3, 1).contiguous()
    images = min(n, max(1, LONGEST // (height * width)))
    lines = height if height * width <= LONGEST else max(1, LONGEST // width)
    longest = min(LONGEST, images * lines * width)
    if x.dtype == torch.float32:
        of_x, of_dy = bits(longest)
        padded, gradients = _by_images(padded, images, of_x), _by_images(gradients, images, of_dy)
    gradients = gradients.double()
    total = torch.zeros(groups, outputs, kernel[0] * kernel[1] * channels, dtype=torch.float64)
    for start in range(0, n, images):
        patches = _patches(padded[start : start + images], kernel, (height, width), window)
        of_part = gradients[start : start + images]
        by_group = of_part.reshape(len(of_part), height, width, groups, outputs).permute(3, 0, 1, 2, 4)
        for top in range(0, height, lines):
            for left in range(0, width, LONGEST):
                part = slice(top, top + lines), slice(left, left + LONGEST)
                rows = _contiguous(patches[:, :, part[0], part[1]]).reshape(groups, -1, total.shape[2])
                columns = by_group[:, :, part[0], part[1]].reshape(groups, -1, outputs)
                if x.dtype == torch.float32:
                    total.add_(torch.bmm(columns.mT, rows))
                else:
                    total.add_(product(rows.mT.contiguous(), columns).mT)  # slices are added in this order
    by_kernel = total.reshape(groups, outputs, *kernel, channels).permute(0, 1, 4, 2, 3)
    return by_kernel.reshape(groups * outputs, channels, *kernel).to(x.dtype)


def _contiguous(x: Tensor) -> Tensor:
    return x.to(torch.float64, memory_format=torch.contiguous_format)


def _by_images(x: Tensor, images: int, width: int) -> Tensor:
    """Values `[n, H, W, C]` rounded in each channel of so many images to `width` bits below the largest one."""
    whole = len(x) // images * images
    parts = [x[:whole].reshape(-1, images, *x.shape[1:]), x[whole:][None]]
    done = [rounded(part, (1, 2, 3), width).flatten(0, 1) for part in parts if part.numel()]
    return done[0] if len(done) == 1 else torch.cat(done)
