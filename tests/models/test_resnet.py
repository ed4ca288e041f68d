"""The ResNet family: parameter counts, state names, output shapes, norms, keyed initialisation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from noiseless import models
from noiseless.errors import UnknownNameError
from noiseless.models.resnet import RESNETS, Basic

# Names and shapes of the state of the published code's ResNet-18, as a published checkpoint has them
PUBLISHED = json.loads((Path(__file__).parent / "resnet18.json").read_text())
DEPTHS = {
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3), "resnet8": (1,) * 3, "resnet20": (3,) * 3, "resnet32": (5,) * 3, "resnet56": (9,) * 3,
    "resnet110": (18,) * 3,
}  # fmt: skip
CHEAP = ["resnet8", "resnet20"]


def _on_paper(name, channels=3, classes=10, norm="batch"):
    """The model without memory for its parameters."""
    with torch.device("meta"):
        return RESNETS[name](channels, classes, norm)


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _expected(name, channels, classes):
    """Weights of the convolutions, two numbers a channel for each batch norm, and the linear layer, added up."""
    widths = (64, 128, 256, 512) if len(DEPTHS[name]) == 4 else (16, 32, 64)
    bottleneck = name in {"resnet50", "resnet101", "resnet152"}
    total, incoming = channels * widths[0] * 9 + 2 * widths[0], widths[0]
    for stage, (depth, w) in enumerate(zip(DEPTHS[name], widths, strict=True)):
        for position in range(depth):
            out = 4 * w if bottleneck else w
            if bottleneck:
                total += incoming * w + w * w * 9 + w * out + 2 * (w + w + out)
            else:
                total += incoming * w * 9 + w * w * 9 + 2 * (w + w)
            if incoming != out or (stage and not position):
                total += incoming * out + 2 * out
            incoming = out
    return total + incoming * classes + classes


@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 100)])
@pytest.mark.parametrize("name", DEPTHS)
def test_parameters_are_those_of_the_architecture(name, channels, classes):
    assert _count(_on_paper(name, channels, classes)) == _expected(name, channels, classes)


def test_resnet18_has_the_papers_parameters():
    assert _count(_on_paper("resnet18")) == 11_173_962


def test_resnet18_has_the_published_state():
    state = {name: list(t.shape) for name, t in _on_paper("resnet18").state_dict().items()}
    assert list(state.items()) == list(PUBLISHED.items())


def test_names_are_in_order_of_depth():
    assert models.names() == sorted(DEPTHS, key=lambda name: int(name[6:]))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", DEPTHS)
def test_output_shapes_on_paper(name, norm):
    module = _on_paper(name, norm=norm)
    assert module(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [7, 8, 28, 32])
@pytest.mark.parametrize("name", CHEAP)
def test_scores_of_real_images_are_finite(name, size, channels, norm):
    module = models.build(name, channels, 7, models.Form(norm))
    scores = module(torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0)))
    assert scores.shape == (2, 7)
    assert scores.isfinite().all()
    assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
def test_stages_halve_the_image(name):
    module = _on_paper(name)
    x = module.stem(torch.empty(1, 3, 32, 32, device="meta"))
    sizes = [x.shape[-1]]
    for stage in module.layers:
        x = stage(x)
        sizes.append(x.shape[-1])
    assert sizes == [32 // 2 ** max(k - 1, 0) for k in range(len(sizes))]


def test_the_shortcut_is_an_average_pool_and_a_projection():
    torch.manual_seed(0)
    block = Basic(4, 6, 2, "none").double()
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)  # the other branch is silent
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    pooled = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    projection = block.downsample[1]
    expected = torch.einsum("oc,nchw->nohw", projection.weight[..., 0, 0], pooled) + projection.bias[:, None, None]
    torch.testing.assert_close(block(x), expected.relu(), rtol=1e-12, atol=1e-12)  # rounding


def test_norms_are_what_was_asked_for():
    kinds = {
        norm: [type(m) for m in models.build("resnet8", 1, 10, models.Form(norm)).modules()]
        for norm in ("batch", "group", "none")
    }
    layers = 1 + 3 * 2 + 2  # stem, two a block, two projections
    assert kinds["batch"].count(nn.BatchNorm2d) == kinds["group"].count(nn.GroupNorm) == layers
    assert nn.GroupNorm not in kinds["batch"]
    assert nn.BatchNorm2d not in kinds["group"]
    assert not {nn.BatchNorm2d, nn.GroupNorm} & set(kinds["none"])
    bare = models.build("resnet8", 1, 10, models.Form("none"))
    assert all(m.bias is not None and not m.bias.any() for m in bare.modules() if isinstance(m, nn.Conv2d))
    normed = models.build("resnet8", 1, 10)
    assert all(m.bias is None for m in normed.modules() if isinstance(m, nn.Conv2d))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm"):
        models.build("resnet8", 1, 10, models.Form("layer"))


def test_initialisation_is_keyed():
    def bits(seed):
        return torch.cat([p.detach().flatten() for p in models.build("resnet8", 1, 10, seed=seed).parameters()])

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = bits(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(bits(0), first)
    assert not torch.equal(bits(1), first)


def test_convolutions_are_kaiming_normal():
    module = models.build("resnet20", 3, 10)
    weight = module.layers[2][1].conv1.weight.detach()
    # fan out: 64 channels of 9 pixels; the deviation of n numbers has relative error 1 / sqrt(2 n), five of them
    expected, n = math.sqrt(2 / (64 * 9)), weight.numel()
    assert float(weight.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
    assert abs(float(weight.mean())) < 5 * expected / math.sqrt(n)
    assert float(weight.abs().max()) > 3 * expected  # a uniform one of this deviation ends at 1.73


@pytest.mark.parametrize(
    ("wrong", "near"), [("resnet9", "resnet8"), ("ResNet-18", "resnet18"), ("reset20", "resnet20")]
)
def test_unknown_names_get_the_nearest(wrong, near):
    with pytest.raises(UnknownNameError, match=f"unknown model '{wrong}'; did you mean .*{near}.*known: resnet8,"):
        models.build(wrong, 3, 10)
