"""The families against what is known elsewhere: published states and counts, torchvision's and timm's functions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import timm
import torch
from small_models import perturbed
from timm.models.nfnet import NfCfg, NormFreeNet
from torch import nn
from torchvision.models import densenet as their_densenet
from torchvision.models import vgg as their_vgg

from noiseless import models
from noiseless.models import Form
from noiseless.models.densenet import DenseNet
from noiseless.models.nfnet import NFNet
from noiseless.models.pyramidnet import Unit
from noiseless.models.vgg import VGG

# The same operations in the same order, up to fused or unfused ones, in float64
SAME = {"rtol": 1e-9, "atol": 1e-9}


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _fill(ours, theirs):
    """Gives a model the parameters and buffers of another whose layers stand in the same order."""
    values = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(values))


# Names and shapes of the published code's states, as a published checkpoint has them; the counts are arXiv 2109.14119's
# code's, too
@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_173_962), ("densenet121", 6_956_298), ("vgg16", 14_728_266)]
)
def test_published_states(name, count):
    published = json.loads((Path(__file__).parent / "published" / f"{name}.json").read_text())
    module = models.outline(name)
    assert [(key, list(t.shape)) for key, t in module.state_dict().items()] == list(published.items())
    assert _count(module) == count


# torchvision's documentation of its weights for ImageNet, whose stem is 7x7 with norm and pool
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("densenet121", 7_978_856), ("densenet161", 28_681_000), ("densenet169", 14_149_480),
        ("densenet201", 20_013_928),
    ],
)  # fmt: skip
def test_densenets_have_the_literatures_parameters(name, count):
    assert _count(models.outline(name, classes=1000, form=Form(stem="standard"))) == count


# torchvision's documentation of its VGGs with batch norm, less the three linear layers that small images do not have
@pytest.mark.parametrize(
    ("name", "count"),
    [("vgg11", 132_868_840), ("vgg13", 133_053_736), ("vgg16", 138_365_992), ("vgg19", 143_678_248)],
)
def test_vggs_have_the_literatures_parameters(name, count):
    large = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    assert _count(models.outline(name)) == count - large + 513 * 10


def _pyramid(depth, alpha, bottleneck):
    """Weights of the convolutions, two numbers a channel for each norm, and the linear layer, added up."""
    units = (depth - 2) // (3 if bottleneck else 2)
    total, incoming = 3 * 16 * 9 + 2 * 16, 16
    for k in range(1, units + 1):
        width = math.floor(16 + alpha * k / units)
        total += 2 * incoming  # the norm at the beginning
        if bottleneck:
            total += incoming * width + 2 * width + width * width * 9 + 2 * width + width * 4 * width + 2 * 4 * width
        else:
            total += incoming * width * 9 + 2 * width + width * width * 9 + 2 * width
        incoming = 4 * width if bottleneck else width
    return total + 2 * incoming + incoming * 10 + 10


@pytest.mark.parametrize(
    ("name", "alpha", "count"),
    [
        ("pyramidnet110", 270, 28_485_477), ("pyramidnet110", 48, 1_739_730), ("pyramidnet272", 200, 26_049_562),
    ],
)  # fmt: skip
def test_pyramidnets_have_the_parameters_of_the_papers_formula(name, alpha, count):
    default = {"pyramidnet110": 270, "pyramidnet272": 200}[name]
    options = {} if alpha == default else {"alpha": alpha}
    assert _count(models.outline(name, options=options)) == _pyramid(int(name[10:]), alpha, name == "pyramidnet272")
    assert _count(models.outline(name, options=options)) == count


def test_nfnet_has_the_parameters_of_f0():
    with torch.device("meta"):
        theirs = timm.create_model("dm_nfnet_f0", num_classes=10)
    assert _count(models.outline("nfnet")) == _count(theirs) == 68_447_014
    assert len(models.outline("nfnet", options={"variant": 1}).layers[2]) == 2 * len(theirs.stages[2])


@pytest.mark.parametrize("size", [32, 40])
def test_densenet_is_torchvisions_function(size):
    torch.manual_seed(0)
    theirs = their_densenet.DenseNet(4, (2, 3, 1, 1), 8, num_classes=5).double()
    ours = DenseNet((2, 3, 1, 1), 8, 4, 3, 5, Form(stem="standard")).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    _fill(ours, theirs)
    x = _images(3, 3, size, size)
    torch.testing.assert_close(ours(x), theirs(x), **SAME)


def test_vgg_has_torchvisions_features():
    torch.manual_seed(0)
    theirs = their_vgg.make_layers([4, "M", 8, 8, "M", 8, "M"], batch_norm=True).double()
    ours = VGG((1, 2, 1), (4, 8, 8), 3, 5, Form()).double()
    assert list(ours.features.state_dict()) == list(theirs.state_dict())
    _fill(ours.features, theirs)
    x = _images(3, 3, 18, 18)
    torch.testing.assert_close(ours.features(x), theirs(x), **SAME)
    torch.testing.assert_close(ours(x), ours.classifier(theirs(x).mean((2, 3))), **SAME)


def test_nfnet_is_timms_function():
    shape = {"depths": (1, 2, 1, 2), "channels": (16, 32, 32, 48)}
    settings = NfCfg(
        **shape, stem_type="deep_quad", stem_chs=8, group_size=4, bottle_ratio=0.5, extra_conv=True, ch_div=4,
        gamma_in_act=True, skipinit=True, num_features=96, act_layer="gelu", attn_layer="se",
        attn_kwargs={"rd_ratio": 0.5, "rd_divisor": 1},
    )  # fmt: skip
    theirs = perturbed(NormFreeNet(settings, num_classes=5))
    ours = NFNet(*shape.values(), 4, 3, 5, Form(stem="standard")).double()
    for module in theirs.modules():
        if hasattr(module, "gain"):
            module.eps = 1e-14  # added to a variance of 0.04, where ours bounds it from below
    state = theirs.state_dict()
    # theirs names shortcuts first and the scale of a branch before its convolutions: pair by what they are
    for block, other in zip(_blocks(ours), [b for stage in theirs.stages for b in stage], strict=True):
        for mine, their in zip(_layers(block.branch), _layers(other, skip=other.downsample), strict=True):
            _take(mine, their)
        if block.downsample is not None:
            _take(_layers(block.downsample)[0], other.downsample.conv)
        block.skip_gain.data.copy_(other.skipinit_gain.data)
    for mine, their in zip(_layers(ours.stem), _layers(theirs.stem), strict=True):
        _take(mine, their)
    _take(ours.head[0], theirs.final_conv)
    _take(ours.fc, theirs.head.fc)
    assert _count(ours) == sum(t.numel() for t in state.values())
    x = _images(2, 3, 33, 33)
    torch.testing.assert_close(ours(x), theirs(x), **SAME)


def _blocks(module):
    return [block for stage in module.layers for block in stage]


def _layers(module, skip=None):
    skipped = set() if skip is None else set(skip.modules())
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in skipped]


def _take(mine, their):
    with torch.no_grad():
        mine.weight.copy_(their.weight.reshape(mine.weight.shape))
        mine.bias.copy_(their.bias)
        if hasattr(mine, "gain"):
            mine.gain.copy_(their.gain)


def test_a_unit_of_a_pyramidnet_written_out():
    torch.manual_seed(0)
    unit, x = perturbed(Unit(4, [(6, 3, 2), (6, 3, 1)], Form())), _images(3, 4, 5, 5)

    def normed(y, layer):
        mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (p[:, None, None] for p in (layer.weight, layer.bias))
        return (y - mean) / (variance + 1e-5).sqrt() * scale + shift

    b = unit.branch
    y = nn.functional.conv2d(normed(x, b.bn1), b.conv1.weight, stride=2, padding=1)
    y = normed(nn.functional.conv2d(normed(y, b.bn2).relu(), b.conv2.weight, padding=1), b.bn3)
    shortcut = torch.zeros(3, 6, 3, 3, dtype=torch.float64)
    for row in range(3):
        for column in range(3):
            window = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            shortcut[:, :4, row, column] = window.mean((2, 3))
    torch.testing.assert_close(unit(x), y + shortcut, **SAME)


def test_initial_parameters():
    def deviation(weight, expected):
        # the deviation of n numbers has the relative error 1 / sqrt(2 n); five of them
        assert float(weight.detach().std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))

    vgg = models.build("vgg11", 3, 10)
    deviation(vgg.classifier.weight, 0.01)
    deviation(vgg.features[4].weight, math.sqrt(2 / (128 * 9)))  # fan out
    assert not vgg.classifier.bias.any() and not vgg.features[0].bias.any()
    dense = models.build("densenet121", 3, 10)
    deviation(dense.features.denseblock1.denselayer1.conv2.weight, math.sqrt(2 / (128 * 9)))  # fan in
    assert not dense.classifier.bias.any()
    free = models.build("nfnet", 3, 10, options={"width": 1 / 16})
    deviation(free.head[0].weight, free.head[0].in_channels ** -0.5)
    assert not any(bool(gain) for name, gain in free.named_parameters() if name.endswith("skip_gain"))
