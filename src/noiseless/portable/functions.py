"""Square roots and transcendental functions from float64 additions, products, quotients and whole-number steps alone.

IEEE 754 rounds each of these operations in one way, so the results have the same bits on every machine, for every
number of threads, and wherever an element stands in its tensor. float32 tensors are computed in float64 and rounded
once: the error is 0.500001 units in the last place at most where tests/portable/test_functions.py measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from noiseless.portable import constants

SLICE = 2**15
"""elements computed at once: the temporaries stay in the cache; it changes no bit, as all operations are elementwise"""


def in_float64(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Decorates an elementwise function of float64 tensors: it takes float32 as well, and returns the dtype."""

    @wraps(function)
    def computed(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            x = x.to(torch.get_default_dtype())
        flat = x.contiguous().reshape(-1)
        result = torch.empty_like(flat)
        for start in range(0, len(flat), SLICE):
            result[start : start + SLICE] = function(flat[start : start + SLICE].double())
        return result.reshape(x.shape)

    return computed


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """`sum_k c_k x^k` by Horner's rule."""
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total.mul_(x).add_(c)
    return total


def power_of_two(exponent: Tensor) -> Tensor:
    """`2.0**exponent` in float64 for int64 exponents within -1022 ... 1023."""
    return ((exponent + 1023) << 52).view(torch.float64)


def _scaled(x: Tensor, exponent: Tensor) -> Tensor:
    """`x 2**exponent`, in two exact factors, so that results below 2**-1022 are rounded once."""
    half = exponent >> 1
    return x * power_of_two(half) * power_of_two(exponent - half)


def _reduced(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole k and r with `x = k ln 2 + r`, |r| <= 0.35, for finite x within +-760."""
    k = (x * (1 / math.log(2))).round_()
    high, low = constants.split_log2()
    return k.long(), (x - k * high) - k * low


_EXP = constants.inverse_factorials(1, 14)


def _exp(x: Tensor) -> Tensor:
    bounded = x.clamp(-760, 720)
    k, r = _reduced(torch.where(bounded.isnan(), 0.0, bounded))
    result = _scaled(1 + r * _polynomial(r, _EXP), k)
    return torch.where(x.isnan(), x, result)


def _expm1(x: Tensor) -> Tensor:
    bounded = x.clamp(-760, 720)
    k, r = _reduced(torch.where(bounded.isnan(), 0.0, bounded))
    small = r * _polynomial(r, _EXP)  # exp(r) - 1
    scale = _scaled(torch.ones_like(r), k)
    result = torch.where(k == 0, small, torch.where(x > 710, math.inf, (scale - 1) + small * scale))
    return torch.where(x.isnan(), x, result)


def _sqrt(x: Tensor) -> Tensor:
    """Heron's iteration for the mantissa, and a last correction by its exact remainder."""
    usable = (x > 0) & x.isfinite()
    tiny = x < 2.0**-1022
    raised = torch.where(usable, torch.where(tiny, x * 2.0**54, x), 1.0)
    half = ((raised.view(torch.int64) >> 52) - 1023) >> 1
    m = raised * power_of_two(-2 * half)  # exact, 1 <= m < 4
    y = 0.59 + 0.417 * m
    y = torch.where(m > 2, 0.83 + 0.295 * m, y)  # within 2 % of the root
    for _ in range(4):
        y = 0.5 * (y + m / y)
    high = y * 134217729.0  # Dekker's splitting: y = high + low, each of 26 bits
    high = high - (high - y)
    low = y - high
    remainder = ((m - high * high) - 2 * high * low) - low * low  # of y^2, without rounding
    y = y + remainder / (2 * y)
    root = y * power_of_two(half) * torch.where(tiny, 2.0**-27, 1.0)
    return torch.where(usable, root, torch.where((x == 0) | (x > 0), x, torch.nan))


_ATANH = [1 / (2 * n + 1) for n in range(12)]


def _log(x: Tensor) -> Tensor:
    tiny = x < 2.0**-1022
    bits = torch.where(tiny, x * 2.0**54, x).view(torch.int64)
    exponent = (bits >> 52) - 1023 - torch.where(tiny, 54, 0)
    mantissa = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(torch.float64)  # 1 <= m < 2
    above = mantissa > 1.4142135623730951
    mantissa = torch.where(above, mantissa * 0.5, mantissa)
    k = (exponent + above).double()
    f = mantissa - 1  # exact
    s = f / (mantissa + 1)  # log m = 2 artanh s
    square = s * s
    tail = square * _polynomial(square, _ATANH[1:])
    high, low = constants.split_log2()
    result = k * high + (2 * s + (2 * s * tail + k * low))
    result = torch.where(x == 0, -math.inf, torch.where(x < 0, math.nan, result))
    return torch.where(x.isinf() & (x > 0) | x.isnan(), x, result)


def _log1p(x: Tensor) -> Tensor:
    u = 1 + x
    correction = (x - (u - 1)) / u  # of the rounding of u; 0 where u is exact
    result = torch.where(u == 1, x, _log(u) + torch.where(u.isfinite() & (u > 0), correction, 0.0))
    return torch.where(x.isinf() & (x > 0), x, result)


def _tanh(x: Tensor) -> Tensor:
    e = _expm1(-2 * x.abs().clamp(max=40))
    result = -e / (2 + e)
    return torch.where(x.isnan(), x, torch.where(x < 0, -result, result))


def _cosh(x: Tensor) -> Tensor:
    return 0.5 * (_exp(x.abs()) + _exp(-x.abs()))


def _sinh(x: Tensor) -> Tensor:
    e = _expm1(x.abs())
    result = 0.5 * (e + torch.where(e.isinf(), 1.0, e / (1 + e)))
    return torch.where(x < 0, -result, result)


def _sigmoid(x: Tensor) -> Tensor:
    e = _exp(-x.abs())
    return torch.where(x.isnan(), x, torch.where(x < 0, e, 1.0) / (1 + e))


def _erf(x: Tensor) -> Tensor:
    size = x.abs().clamp(max=constants.ERF_END)
    cell = torch.where(size.isnan(), 0.0, size * constants.CELL).round_().long()
    h = size - cell.double() / constants.CELL  # exact
    table = torch.tensor(constants.erf_expansions(), dtype=torch.float64).T
    total = table[-1][cell]
    for row in reversed(table[:-1].unbind()):
        total = total * h + row[cell]
    return torch.where(x.isnan(), x, torch.where(x < 0, -total, total))


def _quadrant(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sine and cosine of r, and k, for `x = k pi / 2 + r`, |r| <= pi / 4; accurate for |x| below 2**20."""
    k = (torch.where(x.isfinite(), x, 0.0) * (2 / math.pi)).round_()
    high, middle, low = constants.split_half_pi()
    r = ((x - k * high) - k * middle) - k * low
    square = r * r
    terms = constants.inverse_factorials(0, 19)
    signed = [(-1) ** (n // 2) * t for n, t in enumerate(terms)]
    sine = r + r * square * _polynomial(square, signed[3::2])
    cosine = 1 + square * _polynomial(square, signed[2:19:2])
    return sine, cosine, k.long() & 3


def _sin(x: Tensor) -> Tensor:
    sine, cosine, k = _quadrant(x)
    result = torch.where((k & 1) == 0, sine, cosine)
    return torch.where(k >= 2, -result, result)


def _cos(x: Tensor) -> Tensor:
    sine, cosine, k = _quadrant(x)
    result = torch.where((k & 1) == 0, cosine, sine)
    return torch.where((k == 1) | (k == 2), -result, result)


def _softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + _log1p(_exp(-x.abs()))


exp, expm1, log, log1p = in_float64(_exp), in_float64(_expm1), in_float64(_log), in_float64(_log1p)
tanh, sigmoid, erf = in_float64(_tanh), in_float64(_sigmoid), in_float64(_erf)
cosh, sinh = in_float64(_cosh), in_float64(_sinh)
sin, cos, sqrt = in_float64(_sin), in_float64(_cos), in_float64(_sqrt)
log2 = in_float64(lambda x: _log(x) * 1.4426950408889634)
log10 = in_float64(lambda x: _log(x) * 0.4342944819032518)
log_sigmoid = in_float64(lambda x: -_softplus(-x))
normal_density = in_float64(lambda x: _exp(x * x * -0.5) * 0.3989422804014327)
normal_share = in_float64(lambda x: 0.5 * (1 + _erf(x * 0.7071067811865476)))


def pow(x: Tensor, exponent: float) -> Tensor:
    """`x**exponent`: products for whole exponents up to 16, square roots for 0.5, else `exp(exponent log x)`."""
    if float(exponent).is_integer() and abs(exponent) <= 16:
        result, factor, count = None, x, int(abs(exponent))
        while count:
            if count & 1:
                result = factor if result is None else result * factor
            count >>= 1
            factor = factor * factor if count else factor
        result = torch.ones_like(x) if result is None else result
        return torch.ones_like(x) / result if exponent < 0 else result.clone() if result is x else result
    if exponent == 0.5:
        return sqrt(x)
    if exponent == -0.5:
        return torch.ones_like(x) / sqrt(x)
    return in_float64(lambda t: _exp(_log(t) * exponent))(x)
