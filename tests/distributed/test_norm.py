"""The norm of gradients against fractions, in any order and split; the clip against torch's."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from problems import generator

from noiseless.distributed import clip_grad_norm_, get_total_norm


def _exact(x):
    total = sum(Fraction(v) ** 2 for v in x.double().flatten().tolist())
    return math.sqrt(total)  # of a fraction: rounds it to float64 first, as the norm does


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_is_that_of_fractions_in_any_split(dtype):
    rng = generator()
    low, high = (-20, 10) if dtype == torch.float16 else (-140, 120)
    x = (torch.randn(700, generator=rng) * 2.0 ** torch.randint(low, high, (700,), generator=rng)).to(dtype)
    norms = {float(get_total_norm(parts)) for parts in (x, x.flip(0), x.split(7), x.view(7, 100), [x[:1], x[1:]])}
    assert norms == {_exact(x)}


def test_longer_than_a_slice():
    x = torch.randn(2**16 + 3, generator=generator()) * 1e-3
    y = x.clone()
    y[0] = 1e30
    assert float(get_total_norm(x)) == _exact(x)
    assert float(get_total_norm(y.split(1000))) == _exact(y)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 0.0), ([0.0, -0.0], 0.0), ([1e-45], 2.0**-149), ([3.0, -4.0], 5.0), ([math.inf, 1.0], math.inf),
     ([math.inf, math.nan], math.nan), ([-math.inf, math.inf], math.inf)],
)  # fmt: skip
def test_special_values(values, expected):
    norm = get_total_norm([torch.tensor(values), torch.zeros(3)])
    assert norm.dtype == torch.float64
    assert float(norm) == expected or (math.isnan(expected) and norm.isnan())


def test_float64_overflows_as_its_squares_do():
    assert float(get_total_norm(torch.tensor([1e200], dtype=torch.float64))) == math.inf
    assert float(get_total_norm(torch.full((9,), 1e154, dtype=torch.float64))) == math.inf  # the sum, not a square
    assert float(get_total_norm(torch.tensor([3e-160, 4e-160], dtype=torch.float64))) == pytest.approx(5e-160, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, math.inf, math.nan])
def test_the_clip_is_torchs_up_to_rounding(scale):
    ours, theirs = ([torch.nn.Parameter(torch.zeros(n)) for n in (5, 300, 1)] for _ in range(2))
    for k, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        p.grad = torch.randn(p.shape, generator=generator(k))
        p.grad[0] *= scale
        q.grad = p.grad.clone()
    ours.append(torch.nn.Parameter(torch.zeros(2)))  # no gradient
    norm, expected = clip_grad_norm_(ours, 1.0), torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    assert float(norm) == pytest.approx(float(expected), rel=1e-5, nan_ok=True)  # torch's is rounded in float32
    for p, q in zip(ours, theirs, strict=False):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=0, equal_nan=True)


def test_a_norm_below_the_largest_changes_no_bit():
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([0.1, 0.2, 0.3])
    clip_grad_norm_(p, 1.0)
    assert p.grad.tolist() == torch.tensor([0.1, 0.2, 0.3]).tolist()


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
def test_a_largest_norm_below_zero_is_refused(wrong):
    with pytest.raises(ValueError, match=r"max_norm is .*: give a number of 0 or more"):
        clip_grad_norm_(torch.nn.Parameter(torch.zeros(1)), wrong)
