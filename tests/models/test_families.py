"""Every family: output shapes, sweeps under vmap, Hessian products, keyed initialisation, refused forms and options."""

from __future__ import annotations

import re

import oracles
import pytest
import torch
from small_models import MEMBERS, images, member, perturbed

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, models
from noiseless.errors import UnknownNameError
from noiseless.models import Form

FORMS = [
    *((name, Form()) for name in [*MEMBERS, "linear"]),
    ("resnet", Form(stem="standard", shortcut="B")),
    ("resnet", Form(stem="efficient", shortcut="A")),
    ("resnet", Form("group", zero_init=True)),
    ("resnet", Form("none")),
    ("resnet", Form("skipinit")),
    ("bottleneck", Form("skipinit")),
    ("resnet", Form(padding_mode="replicate")),
    ("resnet", Form(padding_mode="reflect")),
    ("resnet", Form(padding_mode="circular")),
    ("resnet", Form(convolution="weight-standardized")),
    ("densenet", Form("group", stem="standard")),
    ("densenet", Form(convolution="weight-standardized", padding_mode="replicate")),
    ("vgg", Form("none")),
    ("vgg", Form("group", padding_mode="circular")),
    ("pyramidnet", Form("group", zero_init=True)),
    ("nfnet", Form(stem="standard")),
    ("nfnet", Form(padding_mode="replicate")),
    ("speednet", Form("group")),
    ("speednet", Form("none", padding_mode="replicate")),
    ("speednet", Form(convolution="weight-standardized")),
]


def _label(value):
    if not isinstance(value, Form):
        return str(value)
    return "-".join(str(v) for k, v in vars(value).items() if v != getattr(Form(), k)) or "default"


SIZES = [8, 28, *(pytest.param(size, marks=pytest.mark.soak) for size in (14, 32, 64))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "form"), FORMS, ids=_label)
def test_scores_are_finite_for_images_of_any_size(name, form, size):
    for channels in (1, 3):
        module = member(name, channels, 7, form, size)
        for training in (True, False):
            with torch.no_grad():
                scores = module.train(training)(images(3, channels, size)[0].float())
            assert scores.shape == (3, 7)
            assert scores.isfinite().all()
            assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "vgg19", "pyramidnet110", "nfnet", "speednet128", "linear"])
def test_outlines_accept_the_smallest_images(name):
    module = models.outline(name, 1, size=(8, 8))
    assert module(torch.empty(2, 1, 8, 8, device="meta")).shape == (2, 10)


# Float64: a sweep's operations in another order. Batch norm over two or three values divides by small deviations,
# which amplifies a rounding of 1e-16 by some powers of ten.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


@pytest.mark.parametrize(("name", "form"), FORMS, ids=_label)
def test_a_sweep_equals_the_loop_over_blocks_for_any_chunk(name, form):
    module, data = perturbed(member(name, 1, 3, form)), images(11, 1, 8)
    expected = oracles.block_loop(perturbed(member(name, 1, 3, form)), cross_entropy, data, 3)
    for chunk in (1, 2):
        evaluation = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=chunk)).evaluate()
        assert evaluation.loss == pytest.approx(expected.loss, rel=1e-9)
        torch.testing.assert_close(evaluation.gradient, expected.gradient, **CLOSE)
    assert float(expected.gradient.norm()) > 1e-3


@pytest.mark.parametrize(("name", "form"), FORMS, ids=_label)
def test_hessian_products_and_the_exact_penalty_equal_differences_of_gradients(name, form):
    module, data = perturbed(member(name, 1, 3, form)), images(8, 1, 8)
    risk = EmpiricalRisk(module, cross_entropy, data, block=4, execution=Execution(chunk=2))
    v = torch.randn(len(risk.space), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    v /= v.norm()
    product, theta, h = risk.hvp(v[None])[0], risk.space.theta.clone(), 1e-6
    gradients = []
    for sign in (1, -1):
        risk.space.theta.copy_(theta + sign * h * v)
        gradients.append(risk.evaluate().gradient)
    risk.space.theta.copy_(theta)
    difference = (gradients[0] - gradients[1]) / (2 * h)
    # truncation h**2 = 1e-12 and rounding 1e-16 / h = 1e-10 of derivatives that batch norm of few values makes large
    assert float((product - difference).norm() / product.norm()) < 1e-5
    # the blocks' products along their own gradients, from gradients of both blocks at once, each at its own theta
    exact = GradientPenalty(risk, 0.5, lr=8.0, method="exact").evaluate().gradient
    central = GradientPenalty(risk, 0.5, lr=8.0, method="central", eps=1e-6).evaluate().gradient
    assert float((exact - central).norm() / exact.norm()) < 1e-5
    assert float((exact - risk.evaluate().gradient).norm()) > 1e-3


@pytest.mark.parametrize("name", ["densenet121", "nfnet"])
def test_dropout_is_an_option(name):
    small = {"width": 1 / 32} if name == "nfnet" else {}
    plain, dropping = (models.outline(name, options={"drop_rate": rate, **small}) for rate in (0.0, 0.3))
    assert {m.p for m in dropping.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    assert not [m for m in plain.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropping.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["resnet8", "vgg11", "linear", "pyramidnet110", "speednet128"])
def test_initialisation_is_keyed(name):
    options = {"alpha": 4} if name == "pyramidnet110" else {}

    def bits(seed):
        module = models.build(name, 1, 10, seed=seed, options=options, size=(8, 8))
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = bits(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(bits(0), first)
    assert not torch.equal(bits(1), first)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("resnet9", "resnet8"), ("ResNet-18", "resnet18"), ("reset20", "resnet20"), ("densenet120", "densenet121"),
        ("vgg15", "vgg1"), ("pyramid110", "pyramidnet110"),
    ],
)  # fmt: skip
def test_unknown_names_are_refused_with_a_suggestion(wrong, near):
    with pytest.raises(UnknownNameError, match=f"unknown model '{wrong}'; did you mean .*{near}.*known: densenet121,"):
        models.build(wrong, 3, 10)
    with pytest.raises(UnknownNameError, match=r"timm:NAME, package.module:function$"):
        models.build(wrong, 3, 10)


def test_names_are_sorted_by_family_and_depth():
    names = models.names()
    assert names.index("resnet8") < names.index("resnet18") < names.index("resnet110") < names.index("vgg11")
    assert {re.sub(r"\d", "", name) for name in names} == {
        "resnet",
        "densenet",
        "vgg",
        "pyramidnet",
        "nfnet",
        "speednet",
        "linear",
    }


@pytest.mark.parametrize(
    ("name", "form", "reason"),
    [
        ("vgg16", Form(shortcut="B"), "shortcut B: a VGG is one chain"),
        ("vgg16", Form(zero_init=True), "zero_init True: a VGG"),
        ("vgg16", Form("skipinit"), "norm skipinit"),
        ("linear", Form(stem="standard"), "stem standard: a linear model has neither"),
        ("linear", Form("group"), "norm group"),
        ("densenet121", Form("none"), "norm none: a DenseNet"),
        ("densenet121", Form(stem="efficient"), "stem efficient"),
        ("pyramidnet110", Form(stem="standard"), "leave it at small"),
        ("nfnet", Form("group"), "an NFNet has no norm"),
        ("nfnet", Form(convolution="weight-standardized"), "its own scaled convolutions"),
    ],
)
def test_choices_that_a_family_does_not_have_are_refused(name, form, reason):
    with pytest.raises(ValueError, match=f"{name} cannot be built with .*{reason}"):
        models.build(name, 3, 10, form, size=(8, 8))


def test_forms_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match=r"zero_init needs a scale .* use skipinit"):
        Form("none", zero_init=True)
    with pytest.raises(UnknownNameError, match=r"unknown shortcut 'D'; .*known: A, B, C"):
        Form(shortcut="D")
    with pytest.raises(ValueError, match="zero_init must be True or False, not 'yes'"):
        Form(zero_init="yes")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet8", {"width": 3}, "resnet8 takes no options, and width is given"),
        ("pyramidnet110", {"alpa": 3}, "unknown option of pyramidnet110 'alpa'; did you mean alpha.* known: alpha$"),
        ("densenet121", {"size": 3}, "unknown option of densenet121 'size'; .*known: drop_rate"),
        ("pyramidnet110", {"alpha": -1}, "alpha must be a finite number of at least 0, not -1"),
        ("densenet121", {"drop_rate": 1}, "drop_rate must be a probability below 1, not 1"),
        ("nfnet", {"variant": 0.5}, "variant must be a whole number"),
        ("nfnet", {"width": 0}, "width must be a positive factor"),
        ("nfnet", {"alpha": "big"}, "alpha must be a positive number"),
    ],
)
def test_wrong_options_of_a_model_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 3, 10, options=options)


def test_images_that_are_too_small_for_the_padding_are_refused_before_a_run():
    form = Form(padding_mode="reflect")
    with pytest.raises(
        ValueError, match=r"resnet18 does not take images of 3 x 8 x 8 .*needs a map of at least 2 pixels"
    ):
        models.build("resnet18", 3, 10, form, size=(8, 8))
    assert models.build("resnet8", 3, 10, form, size=(8, 8))(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_the_linear_model_needs_the_size():
    with pytest.raises(ValueError, match=r"linear needs the size of the images"):
        models.build("linear", 3, 10)
    module, x = models.build("linear", 3, 10, size=(4, 6)), torch.rand(2, 3, 4, 6)
    torch.testing.assert_close(module(x), x.flatten(1) @ module.fc.weight.T + module.fc.bias)
