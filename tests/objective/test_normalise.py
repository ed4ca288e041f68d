"""Batch norm of norm blocks: values and gradients, and how far float32 is from float64 in every layout."""

from __future__ import annotations

import float32_errors
import numpy as np
import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from float32_errors import relative_error
from torch.func import grad, vmap

from noiseless.objective.normalise import NormBlocks

EPS = 1e-5
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
SHAPES = [((3, 5, 4), "contiguous"), ((2, 5, 4, 6), "contiguous"), *(((2, 3, 4, 3, 5), name) for name in LAYOUTS)]
"""[G, n, C, ...]: norm blocks, examples, channels and places"""


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=problems.generator(seed), dtype=dtype)


def norm_blocks(shape, layout, dtype=torch.float64):
    """A block that is cut into norm blocks, as `BlockNorm` does it: a view of its layout."""
    block = gaussian(shape[0] * shape[1], *shape[2:], dtype=dtype) * 2 + 1
    if layout == "channels last":
        block = block.contiguous(memory_format=torch.channels_last)
    x = block.reshape(shape)
    assert x.data_ptr() == block.data_ptr()
    return x


def torch_batch_norm(x, weight=None, bias=None):
    """torch's batch norm, one norm block after the other."""
    return torch.stack([F.batch_norm(part, None, None, weight, bias, training=True, eps=EPS) for part in x])


@pytest.mark.parametrize("affine", [(), ("weight",), ("bias",), ("weight", "bias")], ids=str)
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_values_and_gradients_equal_torchs(shape, layout, affine):
    channels = {name: (gaussian(shape[2], seed=n + 1) + 1.5).requires_grad_() for n, name in enumerate(affine)}
    weight, bias = (channels.get(name) for name in ("weight", "bias"))
    x, direction = norm_blocks(shape, layout).requires_grad_(), gaussian(*shape, seed=3)
    y, first, rest, variance = NormBlocks.apply(x, weight, bias, EPS)
    mean = first + rest
    expected = torch_batch_norm(x, weight, bias)
    torch.testing.assert_close(y, expected, **oracles.ROUNDING)
    dims = (1, *range(3, x.ndim))
    torch.testing.assert_close(mean, x.detach().mean(dims), **oracles.ROUNDING)
    torch.testing.assert_close(variance, x.detach().var(dims, correction=0), **oracles.ROUNDING)
    assert not mean.requires_grad and not variance.requires_grad
    inputs = [x, *channels.values()]
    gradients, expected_gradients = (torch.autograd.grad(out, inputs, direction) for out in (y, expected))
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, **oracles.ROUNDING)
        assert float(other.norm()) > 0.1


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_gradients_equal_differences_of_values(shape, layout, affine):
    inputs = [norm_blocks(shape, layout), *([gaussian(shape[2], seed=n) for n in (1, 2)] if affine else [])]
    # gradcheck's own tolerance: differences with step 1e-6 have truncation 1e-12 and rounding 1e-10 of values near 1
    assert torch.autograd.gradcheck(
        lambda x, weight=None, bias=None: NormBlocks.apply(x, weight, bias, EPS)[0],
        [t.requires_grad_() for t in inputs],
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_under_vmap_it_equals_the_loop(layout, shared):
    """Three blocks at once, with one weight and bias for all, or one for each block."""
    x = torch.stack([norm_blocks((2, 3, 4, 3, 5), layout) + k for k in range(3)])
    weight, bias = ((gaussian(3, 4, seed=n) + 1).select(0, 0) if shared else gaussian(3, 4, seed=n) + 1 for n in (1, 2))
    direction = gaussian(*x.shape[1:], seed=3)

    def value(x, weight, bias):
        return (NormBlocks.apply(x, weight, bias, EPS)[0] * direction).sum()

    def reference(x, weight, bias):
        return (torch_batch_norm(x, weight, bias) * direction).sum()

    dims = (0, None, None) if shared else (0, 0, 0)
    actual = vmap(grad(value, argnums=(0, 1, 2)), dims)(x, weight, bias)
    inputs_by_block = [(x[k], *(p if shared else p[k] for p in (weight, bias))) for k in range(3)]
    expected = [grad(reference, argnums=(0, 1, 2))(*inputs) for inputs in inputs_by_block]
    for one, other in zip(actual, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(one, torch.stack(other), **oracles.ROUNDING)


def test_the_variance_is_that_about_the_mean_before_it_is_rounded():
    # in float32 the mean of numbers near 1e4 is wrong by up to 5e-4, a third of their deviation
    x = 1e4 + 1e-3 * torch.randint(0, 5, (2, 64, 8, 3, 3), generator=problems.generator(0))
    _, _, rest, variance = NormBlocks.apply(x.float(), None, None, EPS)
    expected = x.float().double().var((1, 3, 4), correction=0)
    assert float((rest.double().square() / expected).min()) > 0.3
    torch.testing.assert_close(variance.double(), expected, rtol=1e-6, atol=0)


# A rounding is 2**-24 = 6e-8. An output has four (of x - mean, its statistics, the product and the result), and a sum
# of 2**17 values some more, whose errors partly cancel: five of them.
ACCURATE = 3e-7


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("channels last", (128, 64, 32, 32)),  # of shared/cases/19-channels-last-loses-digits.py
        ("channels last", (5000, 32, 4, 4)),
        ("contiguous", (128, 64, 32, 32)),
        ("contiguous", (5000, 32, 4, 4)),
    ],
)
def test_float32_is_as_accurate_as_its_rounding(layout, shape):
    x = (gaussian(*shape, dtype=torch.float32) + 1).contiguous(memory_format=LAYOUTS[layout])
    direction = gaussian(*shape, seed=1, dtype=torch.float32).contiguous(memory_format=LAYOUTS[layout])
    # on these data the way to sum matters: one value after the other in float32 is worse than the bound
    serial = x.permute(0, 2, 3, 1).reshape(-1, shape[1]).numpy().cumsum(0, dtype=np.float32)[-1]
    serial_mean = torch.from_numpy(serial / np.float32(x[:, 0].numel()))[:, None, None]

    point = x.double().requires_grad_()
    expected = torch_batch_norm(point[None])[0]
    (expected_gradient,) = torch.autograd.grad(expected, point, direction.double())
    deviation = x.double().std((0, 2, 3), correction=0)[:, None, None]
    assert relative_error((x - serial_mean) / deviation, expected.detach()) > 3 * ACCURATE

    x.requires_grad_()
    y = NormBlocks.apply(x[None], None, None, EPS)[0][0]
    (gradient,) = torch.autograd.grad(y, x, direction)
    assert relative_error(y.detach(), expected.detach()) < ACCURATE
    assert relative_error(gradient, expected_gradient) < ACCURATE


def test_bfloat16_has_statistics_in_float32():
    x = (gaussian(1, 64, 4, 8, 8) + 3).bfloat16().requires_grad_()
    weight, bias = (gaussian(4, seed=n, dtype=torch.float32).requires_grad_() for n in (1, 2))
    y, first, rest, variance = NormBlocks.apply(x, weight, bias, EPS)
    mean = first + rest
    direction = gaussian(*x.shape, seed=3).bfloat16()
    gradients = torch.autograd.grad(y, (x, weight, bias), direction)
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = torch_batch_norm(*wide)
    expected_gradients = torch.autograd.grad(expected, wide, direction.double())
    assert [t.dtype for t in (y, *gradients)] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert mean.dtype == variance.dtype == torch.float32
    # float32 sums of 4096 values; a statistic in bfloat16 would be off by up to 2**-8 = 4e-3
    torch.testing.assert_close(mean.double(), wide[0].detach().mean((1, 3, 4)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), wide[0].detach().var((1, 3, 4), correction=0), rtol=1e-6, atol=0)
    for one, other in ((gradients[1], expected_gradients[1]), (gradients[2], expected_gradients[2])):
        assert relative_error(one, other) < 1e-6
    # y and the gradient of x are rounded once to bfloat16, by at most 2**-8, and a few 1e-7 before
    for one, other in ((y.detach(), expected.detach()), (gradients[0], expected_gradients[0])):
        torch.testing.assert_close(one.double(), other, rtol=2**-8 * 1.001, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_channels_last_sweep_is_as_accurate_as_contiguous_pytorch(shift):
    (plain_loss, plain), (loss, gradient) = float32_errors.errors(shift)
    assert loss <= 2 * plain_loss + float32_errors.ULP
    assert gradient <= 2 * plain
