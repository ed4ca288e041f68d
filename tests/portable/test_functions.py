"""Portable functions against torch's in float64: accuracy, special values, and independence of a tensor's length."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from noiseless.portable import constants, functions

NAMES = ("exp", "expm1", "tanh", "cosh", "sinh", "sigmoid", "erf", "sin", "cos", "log", "log1p", "log2", "log10")
POSITIVE = ("log", "log1p", "log2", "log10")


def _points(name: str) -> torch.Tensor:
    """float32 numbers of all sizes, and many between -6 and 6."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(-37, 2, 4000)
    x = torch.cat([torch.randn(40_000, generator=generator) * 3, spread, -spread])
    return x.abs() if name in POSITIVE else x


@pytest.mark.parametrize("name", NAMES)
def test_float32_results_are_rounded_once(name):
    x = _points(name)
    exact = getattr(torch, name)(x.double())
    computed = getattr(functions, name)(x)
    rounded = exact.float().abs()
    unit = (torch.nextafter(rounded, torch.tensor(math.inf)) - rounded).double()
    normal = rounded.isfinite() & (rounded > 1e-37)
    # torch's float64 functions are wrong by a few 2**-53, so 2**-29 times less than half a float32 unit
    assert ((computed.double() - exact).abs() / unit)[normal].max() <= 0.5 + 1e-6
    assert computed.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_float64_results_are_near_their_rounding(name):
    x = _points(name).double()
    exact = getattr(torch, name)(x)
    relative = ((getattr(functions, name)(x) - exact) / exact).abs()
    assert relative[exact.isfinite() & (exact != 0)].max() < 6e-16


def test_special_values_are_those_of_torch():
    x = torch.tensor(
        [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 800.0, -800.0, 1e-45, 1e300, 5e-324]
    ).double()
    for name in NAMES:
        if name in ("sin", "cos"):  # of arguments below 2**20
            continue
        expected, computed = getattr(torch, name)(x), getattr(functions, name)(x)
        torch.testing.assert_close(computed, expected, rtol=1e-15, atol=0, equal_nan=True, msg=name)


def test_square_roots_are_correctly_rounded():
    x = torch.cat([_points("log").double(), 10.0 ** torch.linspace(-307, 307, 20_000, dtype=torch.float64)])
    assert functions.sqrt(x).tolist() == [math.sqrt(number) for number in x.tolist()]
    single = x.float()
    assert functions.sqrt(single).tolist() == [float(np.sqrt(number)) for number in single.numpy()]
    special = torch.tensor([0.0, -0.0, 5e-324, math.inf, -1.0, -math.inf, math.nan], dtype=torch.float64)
    expected = [0.0, -0.0, math.sqrt(5e-324), math.inf, math.nan, math.nan, math.nan]
    torch.testing.assert_close(
        functions.sqrt(special), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 2, 3, 7, 0.9, 2.5])
def test_powers(exponent):
    x = torch.linspace(0.01, 30, 501, dtype=torch.float64)
    torch.testing.assert_close(functions.pow(x, exponent), x**exponent, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_an_element_does_not_depend_on_its_place(name):
    x = _points(name)[: 2 * functions.SLICE + 77]
    whole = getattr(functions, name)(x)
    for start, end in ((0, 1), (5, 12), (functions.SLICE - 3, functions.SLICE + 8), (len(x) - 1, len(x))):
        assert torch.equal(getattr(functions, name)(x[start:end]), whole[start:end])


def test_constants_are_those_of_exact_arithmetic():
    with localcontext() as context:
        context.prec = 60
        high, low = constants.split_log2()
        assert abs(Decimal(high) + Decimal(low) - Decimal(2).ln()) < Decimal(2) ** -84
        assert abs(sum(map(Decimal, constants.split_half_pi())) - constants.pi() / 2) < Decimal(2) ** -110
    assert float(constants.pi()) == math.pi
    for cells, degree in ((8, 13), (64, 6)):
        for k, row in enumerate(constants.erf_expansions(cells, degree)):
            assert row[0] == pytest.approx(math.erf(k / cells), abs=2e-16)
            assert len(row) == degree + 1


def test_gelu_and_its_derivative():
    x, gradient = _points("exp"), torch.linspace(-2, 2, 48_000)
    wide = x.double()
    share = 0.5 * torch.erfc(-wide / math.sqrt(2))
    slope = share + wide * (-wide * wide / 2).exp() / math.sqrt(2 * math.pi)
    # 1 + erf has an error of some 2**-53, which the negative side keeps
    torch.testing.assert_close(functions.gelu(x).double(), wide * share, rtol=2**-24 + 1e-12, atol=1e-15)
    torch.testing.assert_close(
        functions.gelu_backward(gradient, x).double(), gradient.double() * slope, rtol=2**-24 + 1e-12, atol=1e-15
    )


def test_the_slope_of_gelu_vanishes_far_below_zero():
    x = torch.tensor([-15.0, -1e3, -1e4, -1e10, -1e30])
    assert functions.gelu_backward(torch.ones(5), x).abs().tolist() == [0.0] * 5


@pytest.mark.parametrize("name", ["tanh", "sinh", "erf"])
def test_odd_functions_keep_the_sign_of_zero(name):
    computed = getattr(functions, name)(torch.tensor([0.0, -0.0]))
    assert computed.signbit().tolist() == [False, True]


def test_python_numbers():
    for x in (0.0, 0.3, 1.0, 2.0, math.pi):
        assert constants.cosine(x) == pytest.approx(math.cos(x), abs=2e-16)
    for base, exponent in ((0.9, 7.0), (0.999, 1000.0), (0.5, 0.5), (0.0, 3.0), (0.7, 0)):
        assert constants.power(base, exponent) == pytest.approx(base**exponent, rel=4e-16)
