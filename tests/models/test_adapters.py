"""External models, of torchvision, timm and the user: in sweeps, in runs, and the ones that are refused."""

from __future__ import annotations

import sys

import numpy as np
import oracles
import pytest
import small_runs
import torch
from small_models import images, perturbed
from small_runs import call, refused, small_recipe
from timm.layers import BatchNormAct2d
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, models
from noiseless.errors import UnknownNameError
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory
from noiseless.models import Form
from noiseless.run.build import rebuild
from noiseless.trust import trusting

SOURCE = """
import torch
from torch import nn

def small(channels, classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, width), nn.Tanh(), nn.Linear(width, classes))

class Holder:
    @staticmethod
    def make(channels, classes):
        return small(channels, classes)

def needs(channels, classes, depth):
    return small(channels, classes)

def nothing(channels, classes):
    return "a model"

def other(channels, classes):
    return small(channels, classes + 1)

def bad(inputs):
    return small(1, 1)

def fails(channels, classes, width=4):
    return small(channels, classes)[width]

def lazy(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

class Refuses(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return {}["no such key"]

def tied(channels, classes):
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Linear(64, classes))
    made[3].weight = made[1].weight
    return made

number = 3
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """The name of a Python module in the current directory, which is not on Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (tmp_path / "noiseless_own.py").write_text(SOURCE)
    (tmp_path / "noiseless_broken.py").write_text("import no_such_package\n")
    (tmp_path / "noiseless_wrong.py").write_text("\nx = 1 / 0\n")
    (tmp_path / "noiseless_syntax.py").write_text("def f(:\n")
    with trusting(f"noiseless_{name}" for name in ("own", "missing", "broken", "wrong", "syntax")):
        yield "noiseless_own"
    sys.modules.pop("noiseless_own", None)


def _digests_of_seeds(name, **settings):
    """Digests of a model's parameters from the seeds 0, 0 and 1."""
    return [digest(models.build(name, 1, 3, seed=seed, **settings).state_dict()) for seed in (0, 0, 1)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision:shufflenet_v2_x0_5", {}), ("timm:test_resnet", {}), ("timm:test_vit", {"img_size": 32}),
        ("timm:test_efficientnet", {"drop_rate": 0.1}),
    ],
)  # fmt: skip
def test_external_models_are_keyed_and_accept_any_channels(name, options):
    first, second, other = _digests_of_seeds(name, options=options, size=(32, 32))
    assert first == second != other
    for channels in (1, 3, 4):
        module = models.build(name, channels, 7, options=options)
        x = images(2, channels, 32)[0].float()
        assert module(x).shape == (2, 7)
        assert not torch.equal(module(x), module(x * torch.arange(1, channels + 1)[:, None, None] + 1))


def test_a_first_convolution_for_other_channels_keeps_its_outputs_variance():
    torch.manual_seed(0)
    three, one = (models.build("torchvision:resnet18", channels, 10).conv1 for channels in (3, 1))
    assert torch.equal(one.weight, three.weight[:, :1] * 3**0.5)
    assert (one.in_channels, three.in_channels) == (1, 3)
    # the sum over the inputs of independent, equal weights: 3 variance(w) = variance(sqrt(3) w)
    assert float(one.weight.detach().square().sum()) == pytest.approx(
        float(three.weight.detach().square().sum()), rel=0.1
    )


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("timm:test_efficientnet", {}, 11),
        ("timm:test_byobnet", {}, 11),
        ("timm:test_vit", {"img_size": 16, "patch_size": 8}, 11),
        # its last maps have one pixel, and of a block of two images batch norm leaves 1 and -1 there, whatever they
        # were: with 11 images two formulas of the norm differ by 2e-5 in float64
        ("torchvision:mobilenet_v3_small", {"dropout": 0.0, "width_mult": 0.1}, 12),
    ],
)
def test_sweeps_equal_the_loop_over_blocks_for_any_chunk(name, options, count):
    data = images(count, 1, 16)
    module = perturbed(models.build(name, 1, 3, options=options, size=(16, 16)))
    expected = oracles.block_loop(perturbed(models.build(name, 1, 3, options=options)), cross_entropy, data, 3)
    for chunk in (1, 2):
        evaluation = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=chunk)).evaluate()
        assert evaluation.loss == pytest.approx(expected.loss, rel=1e-9)
        # batch norm of two or three values, as in test_families
        torch.testing.assert_close(evaluation.gradient, expected.gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "size"), [("timm:test_efficientnet", 32), ("timm:test_vit", 16)])
def test_the_exact_penalty_equals_that_of_central_differences(name, size):
    options = {"img_size": size} if "vit" in name else {}
    module, data = perturbed(models.build(name, 1, 3, options=options, size=(size, size))), images(8, 1, size)
    risk = EmpiricalRisk(module, cross_entropy, data, block=4, execution=Execution(chunk=2))
    exact, central = (
        GradientPenalty(risk, 0.5, lr=1.0, method=method, eps=1e-6).evaluate().gradient
        for method in ("exact", "central")
    )
    assert float((exact - central).norm() / exact.norm()) < 1e-5  # see test_families
    assert float((exact - risk.evaluate().gradient).norm() / exact.norm()) > 1e-3


def _colours(path):
    """The tiny data in three channels of 16 x 16 pixels."""
    grey = small_runs.arrays()
    return small_runs.npz(
        path,
        **{f"x_{part}": np.tile(grey[f"x_{part}"], (1, 2, 2))[..., None].repeat(3, -1) for part in ("train", "test")},
    )


def _assert_first_row(directory, model, norm_block):
    """Asserts that a run begins with this model: accuracy, loss and gradient of its first step, by a loop over norm
    blocks.
    """
    (examples,) = small_runs.examples_of_step(rebuild(directory), 0)
    expected, row = oracles.block_loop(model, cross_entropy, examples, norm_block), directory.rows()[0]
    assert row["train_accuracy"] == expected.hits / len(examples[1])
    # float32: roundings of 6e-8, through some twenty layers with batch norm of 12 images
    assert row["train_loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert row["gradient_norm"] == pytest.approx(float(expected.gradient.norm()), rel=1e-4)


@pytest.mark.parametrize("name", ["timm:test_efficientnet", "timm:test_resnet"])
def test_two_runs_of_a_timm_model_give_the_same_bits(tmp_path, name):
    recipe = small_recipe(_colours(tmp_path / "colours.npz"), model=name, block=24, norm_block=12)
    first, second = (small_runs.run(tmp_path / f"run{k}", recipe, chunk=2) for k in range(2))
    assert small_runs.record(first) == small_runs.record(second)
    state = first.state()
    assert any(name.endswith("running_var") and not torch.equal(t, torch.ones_like(t)) for name, t in state.items())
    if "efficientnet" in name:
        assert any(isinstance(m, BatchNormAct2d) for m in models.build(name, 3, 4).modules())
    start = models.build(name, 3, small_runs.CLASSES, seed=recipe.seed)
    assert not any(torch.equal(p, state[key]) for key, p in start.named_parameters())
    _assert_first_row(first, start, 12)


def test_a_users_model_runs_and_wrong_options_are_refused(tmp_path, user_module):
    data = small_runs.npz(tmp_path / "data.npz")
    arguments = [
        "train", "fb", "--steps", 2, "--data", data, "--block", 16, "--threads", 1, "--model", f"{user_module}:small",
    ]  # fmt: skip
    answer = call(*arguments, "--model-options", "width=5", "--run-dir", tmp_path / "run")
    assert answer.code == 0, answer.err
    directory = RunDirectory(tmp_path / "run")
    assert [row["step"] for row in directory.rows()] == [0, 1]
    start = models.build(f"{user_module}:small", 1, small_runs.CLASSES, options={"width": 5})  # the recipe's seed is 0
    state = directory.state()
    assert state["1.weight"].shape == (5, 64)
    assert not any(torch.equal(p, state[key]) for key, p in start.named_parameters())
    _assert_first_row(directory, start, 16)
    refused(*arguments, "--model-options", "depth=5", names=(f"{user_module}:small", "depth", "width"))
    refused(
        *arguments, "--norm", "group", names=(f"{user_module}:small cannot be built with norm group", "options only")
    )


def test_a_model_that_uses_a_tensor_twice_runs(tmp_path, user_module):
    recipe = small_recipe(small_runs.npz(tmp_path / "data.npz"), model=f"{user_module}:tied", block=16)
    directory = small_runs.run(tmp_path / "run", recipe)
    state = directory.state()
    assert torch.equal(state["1.weight"], state["3.weight"])
    assert call("evaluate", directory.path).code == 0
    start = models.build(f"{user_module}:tied", 1, small_runs.CLASSES, seed=recipe.seed).state_dict()
    assert not torch.equal(state["1.weight"], start["1.weight"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("noiseless_own:smal", "unknown function of noiseless_own 'smal'; did you mean small"),
        ("noiseless_own:number", "noiseless_own:number is of type int; it must be a function"),
        ("noiseless_own:nothing", "returned a value of type str; it must return a torch.nn.Module"),
        ("noiseless_own:other", r"one score per class, \[2, 3\] for two images, not \[2, 4\]: see its options"),
        ("noiseless_own:bad", r"noiseless_own:bad\(inputs\) cannot be called with channels, classes: .*'inputs'"),
        ("noiseless_own:needs", "cannot be called with channels, classes: missing a required argument: 'depth'"),
        ("noiseless_missing:f", r"noiseless_missing cannot be imported \(No module named 'noiseless_missing'"),
        ("noiseless_broken:f", r"noiseless_broken cannot be imported \(No module named 'no_such_package'\)"),
        ("noiseless_wrong:f", "noiseless_wrong cannot be imported: ZeroDivisionError: .*noiseless_wrong.py, line 2"),
        ("noiseless_syntax:f", "noiseless_syntax cannot be imported: SyntaxError: "),
        ("noiseless_own:fails", r"own:fails failed: IndexError: .* \(.*, line \d+\)"),
        ("noiseless_own:lazy", r"lazy layers \(1.weight, 1.bias\): give them their sizes"),
        ("noiseless_own:Refuses", "does not take images of 1 x 8 x 8 in training: KeyError: 'no such key'"),
        ("./own.py:f", "is no name of a function; write package.module:function"),
        (":", "is no name of a function"),
    ],
)
def test_functions_that_give_no_model_are_refused(user_module, function, message):
    with pytest.raises(ValueError, match=message):
        models.build(function, 1, 3, size=(8, 8))


def test_a_function_within_a_class_gives_a_model(user_module):
    assert isinstance(models.build(f"{user_module}:Holder.make", 1, 3, size=(8, 8)), nn.Module)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision:resnet", {}, r"unknown torchvision model 'resnet'; did you mean .*list_models\(\) names all"),
        ("timm:test_resnot", {}, r"unknown timm model 'test_resnot'; did you mean test_resnet.*timm.list_models\(\)"),
        ("timm:hf-hub:someone/model", {}, "unknown timm model 'hf-hub:someone/model'"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "without the option weights: initial parameters are drawn"),
        ("timm:test_resnet", {"pretrained": True}, "without the option pretrained"),
        ("timm:test_resnet", {"checkpoint_path": "x.pth"}, "without the option checkpoint_path"),
        ("timm:test_resnet", {"num_classes": 3}, "without the option num_classes: the data give it"),
        ("torchvision:resnet18", {"depth": 3}, "unknown option of torchvision:resnet18 'depth'; .*known: .*norm_layer"),
        ("timm:test_resnet", {"depht": 3}, "unknown option of timm:test_resnet 'depht'; .*known: .*avg_down"),
        ("timm:test_vit", {"img_size": 32}, "timm:test_vit does not take images of 1 x 8 x 8 in training: .*options"),
        ("timm:test_vit", {"depth": "a"}, "test_vit cannot be built with {'depth': 'a'}: "),
        ("torchvision:resnet18", {"groups": 0}, "resnet18 cannot be built with {'groups': 0}: "),
        ("torchvision:squeezenet1_1", {}, "torchvision:squeezenet1_1 does not take images of 1 x 8 x 8"),
    ],
)  # fmt: skip
def test_unknown_models_and_options_of_the_libraries_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 1, 3, options=options, size=(8, 8))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:test_resnet", "somewhere:f"])
def test_external_models_have_no_choices_of_form(name):
    for form in (Form("group"), Form(stem="standard"), Form(zero_init=True)):
        with pytest.raises(ValueError, match=f"{name} cannot be built with .*has options only"):
            models.build(name, 3, 10, form)


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it fails
    with pytest.raises(ValueError, match=r"pip install noiseless\[timm\]"):
        models.build("timm:test_resnet", 3, 10)


def test_an_error_about_a_name_among_hundreds_is_short():
    with pytest.raises(UnknownNameError) as error:
        models.build("timm:resnet", 3, 10)
    assert len(str(error.value)) < 500


def test_the_command_models_counts_parameters():
    answer = call("models", "resnet18", "timm:test_resnet", "--classes", 10)
    assert answer.code == 0
    assert "11,173,962" in answer.out and "timm:test_resnet" in answer.out
    refused("models", "resnet", names=("unknown model 'resnet'", "resnet8"))
    refused("models", "resnet18", "--pixels", 0, names=("--pixels must be a finite number of at least 1, not 0",))
