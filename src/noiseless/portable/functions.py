"""Square roots and transcendental functions from float64 additions, products, quotients and whole-number steps alone.

IEEE 754 rounds each of these operations in one way, so the results have the same bits on every machine, for every
number of threads, and wherever an element stands in its tensor. float32 tensors are computed in float64 and rounded
once: the error is 0.500001 units in the last place at most where tests/portable/test_functions.py measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, wraps

import torch
from torch import Tensor

from noiseless.portable import constants

SLICE = 2**15
"""elements computed at once: the temporaries stay in the cache; it changes no bit, as all operations are elementwise"""


def in_float64(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorates an elementwise function of float64 tensors, so that it takes float32 as well, and returns the dtype.

    The function's last argument says whether its tensors hold float32 numbers and its result will be rounded to
    float32: then it may leave out what serves float64's range and last bits. It must not write into its tensors.

    Args:
        function: of float64 tensors of one shape, and of that truth value.

    Returns:
        The function of tensors of one shape, float32 or float64.
    """

    @wraps(function)
    def computed(*tensors: Tensor) -> Tensor:
        first = tensors[0]
        if not first.is_floating_point():
            first = first.to(torch.get_default_dtype())
        flat = [t.to(first.dtype).contiguous().reshape(-1) for t in tensors]
        result, single = torch.empty_like(flat[0]), first.dtype == torch.float32
        for start in range(0, len(result), SLICE):
            wide = [t[start : start + SLICE].double() for t in flat]
            result[start : start + SLICE] = function(*wide, single)
        return result.reshape(first.shape)

    return computed


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """`sum_k c_k x^k` by Horner's rule."""
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total.mul_(x).add_(c)
    return total


def power_of_two(exponent: Tensor) -> Tensor:
    """`2.0**exponent` in float64 for int64 exponents within -1022 ... 1023."""
    return (exponent + 1023).bitwise_left_shift_(52).view(torch.float64)


def _scaled(x: Tensor, exponent: Tensor, single: bool) -> Tensor:
    """`x 2**exponent`; unless single in two exact factors, so that results below 2**-1022 are rounded once."""
    if single:
        return x * power_of_two(exponent)
    half = exponent >> 1
    return x * power_of_two(half) * power_of_two(exponent - half)


def _reduced(x: Tensor) -> tuple[Tensor, Tensor]:
    """Whole k and r with `x = k ln 2 + r`, |r| <= 0.35, for x within +-760; where x is not a number, r is none."""
    k = (x * (1 / math.log(2))).round_()
    high, low = constants.split_log2()
    r = k * high
    torch.sub(x, r, out=r)
    return k.long(), r.sub_(k.mul_(low))


_EXP = constants.inverse_factorials(1, 14)


def _bounded(x: Tensor, single: bool) -> Tensor:
    """x, with what lies beyond the range of the exponential function replaced by a number there."""
    return x.clamp(-700, 700) if single else x.clamp(-760, 720)  # 2**k of the first range is a normal float64


def _exp(x: Tensor, single: bool) -> Tensor:
    k, r = _reduced(_bounded(x, single))
    return _scaled(_polynomial(r, _EXP).mul_(r).add_(1), k, single)


def _expm1(x: Tensor, single: bool) -> Tensor:
    k, r = _reduced(_bounded(x, single))
    small = _polynomial(r, _EXP).mul_(r)  # exp(r) - 1
    scale = _scaled(torch.ones_like(r), k, single)
    result = torch.where(k == 0, small, (scale - 1).add_(small * scale))
    return result if single else torch.where(x > 710, math.inf, result)


def _sqrt(x: Tensor, single: bool) -> Tensor:
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


def _log(x: Tensor, single: bool) -> Tensor:
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


def _log1p(x: Tensor, single: bool) -> Tensor:
    u = 1 + x
    correction = (x - (u - 1)) / u  # of the rounding of u; 0 where u is exact
    result = torch.where(u == 1, x, _log(u, single) + torch.where(u.isfinite() & (u > 0), correction, 0.0))
    return torch.where(x.isinf() & (x > 0), x, result)


def _tanh(x: Tensor, single: bool) -> Tensor:
    e = _expm1(x.abs().clamp_(max=40).mul_(-2), single)
    return (e / (-2 - e)).copysign_(x)


def _cosh(x: Tensor, single: bool) -> Tensor:
    return 0.5 * (_exp(x.abs(), single) + _exp(-x.abs(), single))


def _sinh(x: Tensor, single: bool) -> Tensor:
    e = _expm1(x.abs(), single)
    return (0.5 * (e + torch.where(e.isinf(), 1.0, e / (1 + e)))).copysign_(x)


def _sigmoid(x: Tensor, single: bool) -> Tensor:
    e = _exp(-x.abs(), single)
    return torch.where(x < 0, e, 1.0).div_(e.add_(1))


def _erf(x: Tensor, single: bool) -> Tensor:
    cells, rows = _expansions(single)
    size = x.abs().clamp_(max=constants.ERF_END)
    nearest = (size * cells).round_()
    cell = nearest.long().clamp_(0, rows.shape[1] - 1)  # of what is not a number: any cell
    h = size.sub_(nearest.mul_(1 / cells))  # exact
    total = rows[-1].index_select(0, cell)
    coefficient = torch.empty_like(total)
    for row in reversed(rows[:-1].unbind()):
        total.mul_(h).add_(torch.index_select(row, 0, cell, out=coefficient))
    return total.copysign_(x)


@cache
def _expansions(single: bool) -> tuple[int, Tensor]:
    """Expansions of erf in a unit, and their coefficients `[power, expansion]`."""
    cells, degree = (64, 6) if single else (8, 13)
    return cells, torch.tensor(constants.erf_expansions(cells, degree), dtype=torch.float64).T.contiguous()


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


def _sin(x: Tensor, single: bool) -> Tensor:
    sine, cosine, k = _quadrant(x)
    result = torch.where((k & 1) == 0, sine, cosine)
    return torch.where(k >= 2, -result, result)


def _cos(x: Tensor, single: bool) -> Tensor:
    sine, cosine, k = _quadrant(x)
    result = torch.where((k & 1) == 0, cosine, sine)
    return torch.where((k == 1) | (k == 2), -result, result)


def _softplus(x: Tensor, single: bool) -> Tensor:
    return x.clamp(min=0) + _log1p(_exp(-x.abs(), single), single)


def _normal_share(x: Tensor, single: bool) -> Tensor:
    return _erf(x * 0.7071067811865476, single).add_(1).mul_(0.5)


def _normal_density(x: Tensor, single: bool) -> Tensor:
    return _exp((x * x).mul_(-0.5), single).mul_(0.3989422804014327)


def _gelu_backward(gradient: Tensor, x: Tensor, single: bool) -> Tensor:
    return _normal_density(x, single).mul_(x).add_(_normal_share(x, single)).mul_(gradient)


exp, expm1, log, log1p = in_float64(_exp), in_float64(_expm1), in_float64(_log), in_float64(_log1p)
tanh, sigmoid, erf = in_float64(_tanh), in_float64(_sigmoid), in_float64(_erf)
cosh, sinh = in_float64(_cosh), in_float64(_sinh)
sin, cos, sqrt = in_float64(_sin), in_float64(_cos), in_float64(_sqrt)
log2 = in_float64(lambda x, single: _log(x, single) * 1.4426950408889634)
log10 = in_float64(lambda x, single: _log(x, single) * 0.4342944819032518)
log_sigmoid = in_float64(lambda x, single: -_softplus(-x, single))
gelu, gelu_backward = in_float64(lambda x, single: _normal_share(x, single).mul_(x)), in_float64(_gelu_backward)


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
    return in_float64(lambda t, single: _exp(_log(t, single) * exponent, single))(x)
