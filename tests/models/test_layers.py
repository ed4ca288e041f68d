"""Layers that the families share, each against torch's own or a naive loop in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from noiseless.models import Form
from noiseless.models.layers import AvgPool, MaxPool, PaddedConv2d, StandardizedConv2d, conv, halving_pool, pad

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64 rounding of some hundred terms of size 1


def _images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@given(
    st.sampled_from(["reflect", "replicate", "circular"]),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(4, 6), st.integers(4, 6)),
)
def test_padding_equals_torchs(mode, padding, size):
    x = _images(2, 3, *size)
    rows, columns = padding
    assert torch.equal(pad(x, padding, mode), F.pad(x, (columns, columns, rows, rows), mode=mode))


@pytest.mark.parametrize(("mode", "size"), [("reflect", 1), ("circular", 0)])
def test_maps_that_are_too_small_to_pad_are_refused(mode, size):
    with pytest.raises(ValueError, match=rf"{mode} padding of 1 needs .* at least {size + 1} pixels, .* sees {size}"):
        pad(_images(1, 1, 4, size), (1, 1), mode)
    assert pad(_images(1, 1, 1, 1), (1, 1), "replicate").shape == (1, 1, 3, 3)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_convolutions_in_every_padding_mode_equal_torchs(mode):
    torch.manual_seed(0)
    layer = conv(Form(padding_mode=mode), 3, 5, 3, stride=2).double()
    assert type(layer) is (nn.Conv2d if mode == "zeros" else PaddedConv2d)
    reference = nn.Conv2d(3, 5, 3, 2, 1, bias=False, padding_mode=mode, dtype=torch.float64)
    reference.load_state_dict(layer.state_dict())  # the same state names
    x = _images(2, 3, 7, 7)
    torch.testing.assert_close(layer(x), reference(x), **EXACT)


def test_standardised_weights_equal_their_formula():
    torch.manual_seed(0)
    layer = conv(Form(convolution="weight-standardized", padding_mode="circular"), 3, 5, 3, bias=True).double()
    assert type(layer) is StandardizedConv2d
    assert list(layer.state_dict()) == ["weight", "bias"]
    expected = torch.empty_like(layer.weight)
    for k, weight in enumerate(layer.weight.detach()):  # one output channel after the other
        mean = weight.sum() / 27
        deviation = ((weight - mean).square().sum() / 27 + 1e-5).sqrt()
        expected[k] = (weight - mean) / deviation
    x = _images(2, 3, 6, 6)
    padded = F.pad(x, (1, 1, 1, 1), mode="circular")
    torch.testing.assert_close(layer(x), F.conv2d(padded, expected, layer.bias), **EXACT)
    # neither a shift nor (up to the 1e-5) a scale of the weight matters
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(3).add_(1)
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), MaxPool(3, 2, 1)])
def test_pools_do_not_change_maps_of_one_pixel_in_a_direction(pool):
    plain = {MaxPool: nn.MaxPool2d, AvgPool: nn.AvgPool2d}[type(pool)](pool.kernel_size, pool.stride, pool.padding)
    for shape in ((1, 1), (1, 4), (4, 1)):
        x = _images(2, 3, *shape)
        assert pool(x) is x
    x = _images(2, 3, 5, 4)
    assert torch.equal(pool(x), plain(x))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_a_halving_pool_has_the_size_of_a_strided_convolution(size):
    x = _images(1, 1, size, size)
    pooled = halving_pool(2)(x)
    assert pooled.shape == nn.Conv2d(1, 1, 3, 2, 1, dtype=torch.float64)(x).shape
    corner = x[0, 0, 2 * ((size - 1) // 2) :, 2 * ((size - 1) // 2) :]  # the part of the last window inside the image
    assert float(pooled[0, 0, -1, -1]) == pytest.approx(float(corner.mean()), rel=1e-12)
