"""The ResNet family: parameter counts, output shapes, stems, shortcuts, norms, branches that begin at zero."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torchvision.models import resnet as torchvision_resnet

from noiseless import EmpiricalRisk, cross_entropy, models
from noiseless.errors import UnknownNameError
from noiseless.models import Form
from noiseless.models.resnet import Basic, Bottleneck, Residual, ResNet

DEPTHS = {
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3), "resnet2": (0,) * 3, "resnet8": (1,) * 3, "resnet20": (3,) * 3, "resnet32": (5,) * 3,
    "resnet56": (9,) * 3, "resnet110": (18,) * 3,
}  # fmt: skip
CHEAP = ["resnet8", "resnet20"]


def _on_paper(name, channels=3, classes=10, norm="batch"):
    return models.outline(name, channels, classes, Form(norm))


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


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, "batch") for name in DEPTHS), ("resnet50", "group"), ("resnet50", "skipinit")]
)
def test_outlines_have_the_output_shape(name, norm):
    module = _on_paper(name, norm=norm)
    assert module(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("norm", ["batch", "group", "none", "skipinit"])
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
    block = Basic(4, 6, 2, Form("none")).double()
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)  # the other branch is silent
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    pooled = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    projection = block.downsample[1]
    expected = torch.einsum("oc,nchw->nohw", projection.weight[..., 0, 0], pooled) + projection.bias[:, None, None]
    torch.testing.assert_close(block(x), expected.relu(), rtol=1e-12, atol=1e-12)  # rounding


def test_norms_are_those_of_the_form():
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
    with_batch_norm = models.build("resnet8", 1, 10)
    assert all(m.bias is None for m in with_batch_norm.modules() if isinstance(m, nn.Conv2d))


def test_an_unknown_norm_is_refused():
    with pytest.raises(UnknownNameError, match=r"unknown norm 'layer'; known: batch, group, none, skipinit$"):
        models.build("resnet8", 1, 10, models.Form("layer"))


def test_convolutions_are_kaiming_normal():
    module = models.build("resnet20", 3, 10)
    weight = module.layers[2][1].conv1.weight.detach()
    # fan out: 64 channels of 9 pixels; the deviation of n numbers has relative error 1 / sqrt(2 n), five of them
    expected, n = math.sqrt(2 / (64 * 9)), weight.numel()
    assert float(weight.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
    assert abs(float(weight.mean())) < 5 * expected / math.sqrt(n)
    assert float(weight.abs().max()) > 3 * expected  # a uniform one of this deviation ends at 1.73


# what torchvision's documentation gives for its ResNets: its form has the standard stem and shortcut B
LITERATURE = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}  # fmt: skip


@pytest.mark.parametrize("name", LITERATURE)
def test_the_form_for_large_images_has_the_literatures_parameters(name):
    assert _count(models.outline(name, 3, 1000, Form(stem="standard", shortcut="B"))) == LITERATURE[name]


@pytest.mark.parametrize(("block", "size"), [(Basic, 33), (Bottleneck, 48)])
def test_the_form_for_large_images_equals_torchvisions_model(block, size):
    reference_block = {Basic: torchvision_resnet.BasicBlock, Bottleneck: torchvision_resnet.Bottleneck}[block]
    depths = (2, 1, 1, 1) if block is Basic else (1, 1, 1, 1)
    torch.manual_seed(0)
    reference = torchvision_resnet.ResNet(reference_block, depths, num_classes=7).double()
    model = ResNet(block, depths, (64, 128, 256, 512), 3, 7, Form(stem="standard", shortcut="B")).double()
    # the layers stand in the same order, under other names
    model.load_state_dict(dict(zip(model.state_dict(), reference.state_dict().values(), strict=True)))
    x = torch.randn(3, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(x), reference(x), rtol=1e-9, atol=1e-9)  # the same operations, in training mode


@pytest.mark.parametrize(
    ("stem", "extra", "shrinks"),
    # parameters of the stem at width 16 and 3 channels: weights, and two numbers a channel for each norm
    [
        ("small", 3 * 16 * 9 + 32, 1),
        ("standard", 3 * 16 * 49 + 32, 4),
        ("efficient", 3 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + 8 * 16 * 9 + 32, 4),
    ],
)
def test_stems_have_the_expected_parameters_and_output(stem, extra, shrinks):
    module = models.build("resnet8", 3, 10, Form(stem=stem))
    assert _count(module.stem) == extra
    assert module.stem(torch.zeros(2, 3, 32, 32)).shape == (2, 16, 32 // shrinks, 32 // shrinks)
    assert isinstance(module.stem[2], nn.ReLU)
    assert not (module.stem(torch.randn(2, 3, 32, 32)) < 0).any()


def test_shortcuts_are_those_of_the_form():
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for shortcut, layers in (("A", [nn.Conv2d]), ("B", [nn.Conv2d, nn.BatchNorm2d])):
        block = Basic(4, 6, 2, Form(shortcut=shortcut)).double()
        assert [type(layer) for layer in block.downsample] == layers
        # 1x1 with stride 2: every other pixel
        expected = torch.einsum("oc,nchw->nohw", block.downsample[0].weight[..., 0, 0], x[..., ::2, ::2])
        torch.testing.assert_close(block.downsample[0](x), expected, rtol=1e-12, atol=1e-12)
        assert block.downsample[0].bias is None
        assert block(x).shape == (2, 6, 3, 3)
    assert isinstance(Basic(4, 4, 1, Form(shortcut="A")).downsample, nn.Identity)


def _two_steps(module, x, y):
    """Two steps of plain gradient descent; the gradients of the first."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    first = {}
    for step in range(2):
        risk = EmpiricalRisk(module, cross_entropy, (x, y))
        risk.space.set_gradient(risk.evaluate().gradient)
        if not step:
            first = {name: p.grad.clone() for name, p in module.named_parameters()}
        optimizer.step()
    return first


@pytest.mark.parametrize("block", [Basic, Bottleneck])
@pytest.mark.parametrize("form", [Form(zero_init=True), Form("group", zero_init=True), Form("skipinit")])
def test_branches_that_begin_at_zero_contribute_after_two_steps(form, block):
    torch.manual_seed(0)
    module = ResNet(block, (2, 1), (4, 8), 1, 3, form)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 1, 8, 8, generator=rng), torch.arange(12) % 3
    branches = {name: m for name, m in module.named_modules() if isinstance(m, Residual)}
    assert len(branches) == 3

    def contributions():
        """Largest absolute value that each branch adds to its shortcut."""
        largest, hooks = {}, []
        for name, m in branches.items():

            def note(unit, inputs, output, name=name):
                shortcut = unit.downsample(inputs[0])
                if unit.skip_scale is None:
                    largest[name] = float((output - shortcut.relu()).abs().max())
                else:
                    inactive = isinstance(unit.downsample, nn.Identity)
                    shortcut = shortcut if inactive else unit.downsample(inputs[0].relu())
                    largest[name] = float((output - shortcut).abs().max())

            hooks.append(m.register_forward_hook(note))
        with torch.no_grad():
            module.eval()(x)
        module.train()
        for hook in hooks:
            hook.remove()
        return largest

    assert contributions() == dict.fromkeys(branches, 0.0)
    last = {"Basic": "bn2.weight", "Bottleneck": "bn3.weight"}[block.__name__]
    scale = "skip_scale" if form.norm == "skipinit" else last
    gradients = _two_steps(module, x, y)
    for name, added in contributions().items():
        assert float(gradients[f"{name}.{scale}"].abs().max()) > 1e-6
        assert added > 1e-6


def test_without_zero_init_branches_contribute_from_the_start():
    scales = [m.last_norm().weight for m in models.build("resnet8", 1, 10).modules() if isinstance(m, Residual)]
    assert all(bool((weight == 1).all()) for weight in scales)


def test_skipinit_is_a_preactivated_network_without_norms():
    module = models.build("resnet8", 3, 10, Form("skipinit"))
    assert not [m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert all(m.bias is not None for m in module.modules() if isinstance(m, nn.Conv2d))
    scales = [p for name, p in module.named_parameters() if name.endswith("skip_scale")]
    assert len(scales) == 3 and all(p.shape == () and p == 0 for p in scales)
    # at the beginning only stem, shortcuts and head act: y = fc(mean(relu(...)))
    x = torch.randn(2, 3, 8, 8)
    state = module.stem[0](x)
    for stage in module.layers:
        for unit in stage:
            state = state if isinstance(unit.downsample, nn.Identity) else unit.downsample(state.relu())
    torch.testing.assert_close(module(x), module.fc(state.relu().mean((2, 3))))


def test_group_norms_divide_their_widths():
    module = models.outline("pyramidnet110", form=Form("group"))
    groups = {m.num_channels: m.num_groups for m in module.modules() if isinstance(m, nn.GroupNorm)}
    assert groups[16] == 4 and groups[256] == 32 and groups[31] == 1 and groups[66] == 11
    assert all(width % count == 0 for width, count in groups.items())
