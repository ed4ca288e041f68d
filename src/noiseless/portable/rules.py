"""What replaces operations of ATen in portable arithmetic: name -> function with the operation's arguments.

A function is called outside the mode, so it calls exact operations (`exact`) and functions of this package only. It
returns NotImplemented for arguments that it does not support; the operation is then refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from noiseless.portable import algebra, draws, functions, layers, norms, small, sums

BITS = frozenset({"random", "randint", "randperm"})
"""draws of whole numbers from the generator's bits"""


def add(x: Tensor, y: Any, alpha: float = 1) -> Tensor:
    """`x + alpha y`, the product rounded by itself: ATen's kernels fuse the two where the processor can."""
    return torch.add(x, y * alpha)


def subtract(x: Tensor, y: Any, alpha: float = 1) -> Tensor:
    """`x - alpha y`."""
    return torch.sub(x, y * alpha)


def reverse_subtract(x: Tensor, y: Any, alpha: float = 1) -> Tensor:
    """`y - alpha x`."""
    return y - x * alpha


def add_product(x: Tensor, y: Tensor, z: Tensor, *, value: float = 1) -> Tensor:
    """`x + value (y z)`."""
    return _added(x, y * z, value)


def add_quotient(x: Tensor, y: Tensor, z: Tensor, *, value: float = 1) -> Tensor:
    """`x + value (y / z)`."""
    return _added(x, y / z, value)


def _added(x: Tensor, own: Tensor, value: float) -> Tensor:
    """`x + value own`, in the memory of `own` where it has the result's shape and dtype."""
    own = own if value == 1 else own.mul_(value)
    fits = own.dtype == x.dtype and torch.broadcast_shapes(own.shape, x.shape) == own.shape
    return own.add_(x) if fits else x + own


def interpolate(x: Tensor, y: Tensor, weight: Any) -> Tensor:
    """`x + weight (y - x)`, `torch.lerp`."""
    return x + (y - x) * weight


def reciprocal(x: Tensor) -> Tensor:
    """`1 / x`."""
    return torch.ones_like(x) / x


def reciprocal_root(x: Tensor) -> Tensor:
    """`1 / sqrt(x)`."""
    return torch.ones_like(x) / functions.sqrt(x)


def power(x: Any, exponent: Any) -> Tensor:
    """`x**exponent`, see `functions.pow`; of a tensor of exponents, by logarithm."""
    if not isinstance(exponent, Tensor):
        return functions.pow(x, float(exponent))
    if isinstance(x, Tensor) and exponent.ndim == 0:
        return functions.pow(x, float(exponent))
    base = x.double() if isinstance(x, Tensor) else torch.tensor(float(x), dtype=torch.float64)
    dtype = x.dtype if isinstance(x, Tensor) else exponent.dtype
    return functions.exp(functions.log(base) * exponent.double()).to(dtype)


def _converted(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x if dtype is None else x.to(dtype)


def total(x: Tensor, dims: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.sum`; sums of whole numbers are torch's."""
    x = _converted(x, dtype)
    dims = [dims] if isinstance(dims, int) else dims
    if not x.is_floating_point():
        return x.sum(dtype=dtype) if dims is None else torch.sum(x, dims, keepdim, dtype=dtype)
    return sums.total(x, dims, keepdim)


def mean(x: Tensor, dims: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.mean`."""
    dims = [dims] if isinstance(dims, int) else dims
    return sums.mean(_converted(x, dtype), dims, keepdim)


def variance_and_mean(
    x: Tensor, dims: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """`torch.var_mean`."""
    return sums.variance_and_mean(x, dims, 1.0 if correction is None else correction, keepdim)


def variance(x: Tensor, dims: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """`torch.var`."""
    return variance_and_mean(x, dims, correction=correction, keepdim=keepdim)[0]


def deviation(x: Tensor, dims: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """`torch.std`."""
    return functions.sqrt(variance(x, dims, correction=correction, keepdim=keepdim))


def norm(x: Tensor, order: Any = 2, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`torch.linalg.vector_norm` of order 1, 2 or infinity."""
    x = _converted(x, dtype)
    dims = [dims] if isinstance(dims, int) else dims
    order = 2 if order is None else order
    if order == 2:
        wide = x.double()
        return functions.sqrt(sums.total(wide * wide, dims, keepdim)).to(x.dtype)
    if order == 1:
        return sums.total(x.abs(), dims, keepdim)
    if order == math.inf:
        return x.abs().amax(list(dims) if dims else list(range(x.ndim)), keepdim)
    return NotImplemented


def embedding_backward(
    gradient: Tensor, index: Tensor, count: int, padding_index: int, scale_by_frequency: bool
) -> Tensor:
    """The gradient of an embedding; torch's kernel adds the rows in their order."""
    if scale_by_frequency:
        return NotImplemented
    return torch.ops.aten.embedding_dense_backward(gradient, index, count, padding_index, False)


def index_put(x: Tensor, index: Any, values: Tensor, accumulate: bool = False, unsafe: bool = False) -> Tensor:
    """`x[index] = values`; sums are refused."""
    return NotImplemented if accumulate else torch.ops.aten.index_put(x, index, values)


def scatter(x: Tensor, dim: int, index: Tensor, source: Any, *, reduce: str | None = None) -> Tensor:
    """`torch.scatter` without a reduction."""
    return NotImplemented if reduce is not None else torch.scatter(x, dim, index, source)


def scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`torch.scatter_add` along a dimension, one layer of the source after the other."""
    dim, result = dim % x.ndim, x.clone()
    places = [slice(0, n) for n in index.shape]
    for k in range(index.shape[dim]):
        layer = index.narrow(dim, k, 1)
        part = tuple(slice(None) if d == dim else places[d] for d in range(x.ndim))
        region = result[part]
        picked = region.gather(dim, layer) + source[tuple(places)].narrow(dim, k, 1)
        result[part] = region.scatter(dim, layer, picked)
    return result


def cumulative_sum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.cumsum`, one addition after the other."""
    parts, running = [], None
    for part in _converted(x, dtype).unbind(dim):
        running = part if running is None else running + part
        parts.append(running)
    return torch.stack(parts, dim) if parts else x.clone()


def multiply_transcendental(x: Tensor, y: Any) -> Tensor:
    """`x log y`, `torch.xlogy`."""
    y = y if isinstance(y, Tensor) else torch.full_like(x, y)
    return torch.where((x == 0) & ~y.isnan(), 0.0, x * functions.log(y))


def ordered(x: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> tuple[Tensor, Tensor]:
    """`torch.sort`, always stable: equal elements keep their order."""
    return torch.sort(x, dim=dim, descending=descending, stable=True)


def largest(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """`torch.topk`; of equal elements the first ones."""
    values, index = torch.sort(x, dim=dim, descending=largest, stable=True)
    return values.narrow(dim, 0, k), index.narrow(dim, 0, k)


TIES = frozenset({"sort", "topk"})
"""operations whose order of equal elements is the processor's, of whole numbers too"""
RULES: Mapping[str, Callable[..., Any]] = {
    "add": add, "sub": subtract, "rsub": reverse_subtract, "addcmul": add_product, "addcdiv": add_quotient,
    "lerp": interpolate, "reciprocal": reciprocal, "rsqrt": reciprocal_root, "pow": power, "sqrt": functions.sqrt,
    "square": lambda x: x * x, "exp": functions.exp, "expm1": functions.expm1, "log": functions.log,
    "log1p": functions.log1p, "log2": functions.log2, "log10": functions.log10, "tanh": functions.tanh,
    "sigmoid": functions.sigmoid, "erf": functions.erf, "sin": functions.sin, "cos": functions.cos,
    "cosh": functions.cosh, "sinh": functions.sinh,
    "xlogy": multiply_transcendental, "logaddexp": layers.logaddexp,
    "tanh_backward": lambda g, y: g * (1 - y * y), "sigmoid_backward": lambda g, y: g * ((1 - y) * y),
    "silu": layers.silu, "silu_backward": layers.silu_backward, "gelu": layers.gelu,
    "gelu_backward": layers.gelu_backward, "sum": total, "mean": mean, "var": variance, "std": deviation,
    "var_mean": variance_and_mean, "linalg_vector_norm": norm, "norm": norm, "cumsum": cumulative_sum,
    "logsumexp": layers.logsumexp, "_softmax": layers.softmax, "_softmax_backward_data": layers.softmax_backward,
    "_log_softmax": layers.log_softmax, "_log_softmax_backward_data": layers.log_softmax_backward,
    "mm": algebra.mm, "bmm": algebra.bmm, "addmm": algebra.addmm, "baddbmm": algebra.baddbmm,
    "dot": algebra.dot, "vdot": algebra.dot, "mv": algebra.mv, "addmv": algebra.addmv,
    "convolution": algebra.convolution, "convolution_backward": algebra.convolution_backward,
    "avg_pool2d": layers.average_pool,
    "avg_pool2d_backward": layers.average_pool_backward, "embedding_dense_backward": embedding_backward,
    "index_put": index_put, "_index_put_impl": index_put, "scatter": scatter, "scatter_add": scatter_add,
    "native_batch_norm": norms.batch_norm, "_native_batch_norm_legit": norms.legitimate_batch_norm,
    "native_batch_norm_backward": norms.batch_norm_backward, "native_layer_norm": norms.layer_norm,
    "native_layer_norm_backward": norms.layer_norm_backward, "native_group_norm": norms.group_norm,
    "native_group_norm_backward": norms.group_norm_backward, "linalg_eigh": small.eigenvectors,
    "_linalg_eigh": small.eigenvectors, "linalg_qr": small.orthonormal, "sort": ordered, "topk": largest,
    "_efficientzerotensor": lambda size, **of: torch.zeros(size, **of), "uniform": draws.uniform,
    "normal": draws.normal, "bernoulli": draws.bernoulli, "rand": draws.new_uniform,
    "randn": draws.new_normal,
}  # fmt: skip
"""by name of the operation, without the underscore of operations in place"""
