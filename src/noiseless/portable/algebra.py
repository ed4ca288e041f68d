"""Products of vectors and matrices, and convolutions, with the arguments of ATen's operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from noiseless.portable import sums
from noiseless.portable.convolutions import Window, convolve, input_gradient, pair, weight_gradient
from noiseless.portable.products import product


def mm(a: Tensor, b: Tensor) -> Tensor:
    """`a b` for matrices."""
    return product(a[None], b[None])[0]


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """`a b` for batches of matrices."""
    return product(a, b)


def _combined(x: Tensor, y: Tensor, beta: float, alpha: float) -> Tensor:
    scaled = y if alpha == 1 else y * alpha
    return scaled if beta == 0 else (x if beta == 1 else x * beta) + scaled


def addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta x + alpha a b`."""
    return _combined(x, mm(a, b), beta, alpha)


def baddbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta x + alpha a b` for batches of matrices."""
    return _combined(x, product(a, b), beta, alpha)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """`x . y`: the products are added in float64."""
    return sums.total(x.double() * y.double()).to(x.dtype)


def mv(a: Tensor, x: Tensor) -> Tensor:
    """`a x`."""
    return product(a[None], x[None, :, None])[0, :, 0]


def addmv(x: Tensor, a: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta x + alpha a y`."""
    return _combined(x, mv(a, y), beta, alpha)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """One- and two-dimensional convolutions, transposed ones too."""
    if x.ndim not in (3, 4):
        return NotImplemented
    if x.ndim == 3:
        s, p, d, extra = _as_images(stride, padding, dilation, output_padding)
        return convolution(x[:, :, None], weight[:, :, None], bias, s, p, d, transposed, extra, groups)[:, :, 0]
    window = Window(pair(stride), pair(padding), pair(dilation), groups)
    if transposed:
        steps, around, apart, more = *window[:3], pair(output_padding)
        size = [
            (x.shape[2 + k] - 1) * steps[k] - 2 * around[k] + apart[k] * (weight.shape[2 + k] - 1) + more[k] + 1
            for k in (0, 1)
        ]
        y = input_gradient(x, weight, size, window)
    else:
        y = convolve(x, weight, window)
    return y if bias is None else y + bias[:, None, None]


def convolution_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int, mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of input, weight and bias, as far as they are asked for."""
    if x.ndim not in (3, 4):
        return NotImplemented
    if x.ndim == 3:
        s, p, d, extra = _as_images(stride, padding, dilation, output_padding)
        images = dy[:, :, None], x[:, :, None], weight[:, :, None]
        of_images = convolution_backward(*images, bias_sizes, s, p, d, transposed, extra, groups, mask)
        return (*(None if g is None else g[:, :, 0] for g in of_images[:2]), of_images[2])
    window = Window(pair(stride), pair(padding), pair(dilation), groups)
    kernel, dx, dw = (weight.shape[2], weight.shape[3]), None, None
    if mask[0]:
        dx = convolve(dy, weight, window) if transposed else input_gradient(dy, weight, x.shape[2:], window)
    if mask[1]:
        first, second = (dy, x) if transposed else (x, dy)
        dw = weight_gradient(first, second, kernel, window)
    return dx, dw, sums.total(dy, [0, 2, 3]) if mask[2] else None


def _as_images(*numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Stride, padding, dilation and output padding of a one-dimensional convolution as those of rows of images."""
    return [(neutral, values[0]) for values, neutral in zip(numbers, (1, 0, 1, 0), strict=True)]
