"""The families against published states and counts, and against the models of torchvision and timm."""

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
from torchvision.models import densenet as torchvision_densenet
from torchvision.models import vgg as torchvision_vgg

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


def _fill(model, reference):
    """Gives a model the parameters and buffers of another whose layers stand in the same order."""
    values = zip(model.state_dict(), reference.state_dict().values(), strict=True)
    model.load_state_dict(dict(values))


# Names and shapes of the states of the published code, as in a published checkpoint; the counts are also those of the
# code of arXiv 2109.14119
@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_173_962), ("densenet121", 6_956_298), ("vgg16", 14_728_266)]
)
def test_states_and_counts_are_the_published_ones(name, count):
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
        reference = timm.create_model("dm_nfnet_f0", num_classes=10)
    assert _count(models.outline("nfnet")) == _count(reference) == 68_447_014
    assert len(models.outline("nfnet", options={"variant": 1}).layers[2]) == 2 * len(reference.stages[2])


@pytest.mark.parametrize("size", [32, 40])
def test_densenet_equals_torchvisions(size):
    torch.manual_seed(0)
    reference = torchvision_densenet.DenseNet(4, (2, 3, 1, 1), 8, num_classes=5).double()
    model = DenseNet((2, 3, 1, 1), 8, 4, 3, 5, Form(stem="standard")).double()
    assert list(model.state_dict()) == list(reference.state_dict())
    _fill(model, reference)
    x = _images(3, 3, size, size)
    torch.testing.assert_close(model(x), reference(x), **SAME)


def test_the_features_of_vgg_equal_torchvisions():
    torch.manual_seed(0)
    reference = torchvision_vgg.make_layers([4, "M", 8, 8, "M", 8, "M"], batch_norm=True).double()
    model = VGG((1, 2, 1), (4, 8, 8), 3, 5, Form()).double()
    assert list(model.features.state_dict()) == list(reference.state_dict())
    _fill(model.features, reference)
    x = _images(3, 3, 18, 18)
    torch.testing.assert_close(model.features(x), reference(x), **SAME)
    torch.testing.assert_close(model(x), model.classifier(reference(x).mean((2, 3))), **SAME)


def test_nfnet_equals_timms():
    shape = {"depths": (1, 2, 1, 2), "channels": (16, 32, 32, 48)}
    settings = NfCfg(
        **shape, stem_type="deep_quad", stem_chs=8, group_size=4, bottle_ratio=0.5, extra_conv=True, ch_div=4,
        gamma_in_act=True, skipinit=True, num_features=96, act_layer="gelu", attn_layer="se",
        attn_kwargs={"rd_ratio": 0.5, "rd_divisor": 1},
    )  # fmt: skip
    reference = perturbed(NormFreeNet(settings, num_classes=5))
    model = NFNet(*shape.values(), 4, 3, 5, Form(stem="standard")).double()
    for module in reference.modules():
        if hasattr(module, "gain"):
            module.eps = 1e-14  # added to a variance of 0.04; our model bounds it from below
    state = reference.state_dict()
    # timm has shortcuts first and the scale of a branch before its convolutions: pair layers by their kind
    for block, reference_block in zip(_blocks(model), [b for stage in reference.stages for b in stage], strict=True):
        for layer, reference_layer in zip(
            _layers(block.branch), _layers(reference_block, skip=reference_block.downsample), strict=True
        ):
            _copy(layer, reference_layer)
        if block.downsample is not None:
            _copy(_layers(block.downsample)[0], reference_block.downsample.conv)
        block.skip_gain.data.copy_(reference_block.skipinit_gain.data)
    for layer, reference_layer in zip(_layers(model.stem), _layers(reference.stem), strict=True):
        _copy(layer, reference_layer)
    _copy(model.head[0], reference.final_conv)
    _copy(model.fc, reference.head.fc)
    assert _count(model) == sum(t.numel() for t in state.values())
    x = _images(2, 3, 33, 33)
    torch.testing.assert_close(model(x), reference(x), **SAME)


def _blocks(module):
    return [block for stage in module.layers for block in stage]


def _layers(module, skip=None):
    skipped = set() if skip is None else set(skip.modules())
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in skipped]


def _copy(layer, reference):
    with torch.no_grad():
        layer.weight.copy_(reference.weight.reshape(layer.weight.shape))
        layer.bias.copy_(reference.bias)
        if hasattr(layer, "gain"):
            layer.gain.copy_(reference.gain)


def test_a_unit_of_a_pyramidnet_equals_its_formula():
    torch.manual_seed(0)
    unit, x = perturbed(Unit(4, [(6, 3, 2), (6, 3, 1)], Form())), _images(3, 4, 5, 5)

    def batch_norm(y, layer):
        mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (p[:, None, None] for p in (layer.weight, layer.bias))
        return (y - mean) / (variance + 1e-5).sqrt() * scale + shift

    b = unit.branch
    y = nn.functional.conv2d(batch_norm(x, b.bn1), b.conv1.weight, stride=2, padding=1)
    y = batch_norm(nn.functional.conv2d(batch_norm(y, b.bn2).relu(), b.conv2.weight, padding=1), b.bn3)
    shortcut = torch.zeros(3, 6, 3, 3, dtype=torch.float64)
    for row in range(3):
        for column in range(3):
            window = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            shortcut[:, :4, row, column] = window.mean((2, 3))
    torch.testing.assert_close(unit(x), y + shortcut, **SAME)


def test_initial_parameters_have_the_expected_deviations():
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
