"""What a published checkpoint must hold; a file that does not is refused with the reason."""

import pytest
import torch
from published_files import parts, write

from noiseless import models
from noiseless.exchange.recognise import classes_of, recognise, sizes
from noiseless.files.parameters import load_parameters
from noiseless.files.published import read_published, read_state


@pytest.fixture(scope="module")
def content():
    return parts()


def test_step_settings_and_momentum_are_read(content, tmp_path):
    published = read_published(write(tmp_path / "a.pth", content))
    assert published.step == 3
    assert (published.settings["lr"], published.settings["nesterov"]) == (content[0]["param_groups"][0]["lr"], True)
    assert published.momentum.keys() == content[0]["state"].keys()
    assert all(torch.equal(published.momentum[k], entry["momentum_buffer"]) for k, entry in content[0]["state"].items())


def test_names_of_a_data_parallel_model_lose_its_prefix(content, tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in content[1].items()}
    published = read_published(write(tmp_path / "a.pth", [content[0], wrapped, *content[2:]]))
    assert list(published.model) == list(content[1])
    # a model may have a part called module: it is a wrapper's only where all names have it
    state = {"module.weight": torch.ones(1), "bias": torch.ones(1)}
    assert read_state(write(tmp_path / "b.pth", state)).keys() == state.keys()


def test_half_precision_and_a_model_before_its_first_step_are_read(content, tmp_path):
    half = {name: t.half() if t.is_floating_point() else t for name, t in content[1].items()}
    published = read_published(write(tmp_path / "a.pth", [content[0] | {"state": {}}, half, None, {"scale": 1.0}, 0]))
    assert (published.momentum, published.step) == ({}, 0)


def nan(content):
    return content[1] | {"fc.bias": torch.tensor([0.0, float("nan"), 1.0, 2.0])}


def momentum_of(content, **entries):
    return content[0] | {"state": content[0]["state"] | {4: entries}}


WRONG = {
    "not a list": (lambda c: {"a": torch.ones(1)}, ("a dict of a", "--init")),
    "a number": (lambda c: 7, ("it holds 7",)),
    "four entries": (lambda c: c[:4], ("4 entries", "optimizer, model, scheduler, scaler, step")),
    "six entries": (lambda c: [*c, 1], ("6 entries",)),
    "step a text": (lambda c: [*c[:4], "3"], ("its step", "'3'")),
    "step a fraction": (lambda c: [*c[:4], 3.5], ("its step", "3.5")),
    "step negative": (lambda c: [*c[:4], -1], ("its step", "-1")),
    "step true": (lambda c: [*c[:4], True], ("its step", "True")),
    "order": (lambda c: [c[1], c[0], *c[2:]], ("'state' is a dict",)),
    "model empty": (lambda c: [c[0], {}, *c[2:]], ("model state", "nothing")),
    "model of numbers": (lambda c: [c[0], {"a": 1.5}, *c[2:]], ("'a' is 1.5",)),
    "model of numbered tensors": (lambda c: [c[0], {0: torch.ones(1)}, *c[2:]], ("0 is a tensor",)),
    "NaN": (lambda c: [c[0], nan(c), *c[2:]], ("fc.bias", "NaN")),
    "endless": (lambda c: [c[0], {"a": torch.ones(1).expand(10**13)}, *c[2:]], ("a has shape", "fewer numbers")),
    "sparse": (lambda c: [c[0], {"a": torch.ones(2).to_sparse()}, *c[2:]], ("refused",)),
    "optimizer none": (lambda c: [None, *c[1:]], ("optimizer state", "None")),
    "optimizer without groups": (lambda c: [{"state": {}}, *c[1:]], ("optimizer state", "a dict of state")),
    "two groups": (lambda c: [c[0] | {"param_groups": [{}, {}]}, *c[1:]], ("one group", "a list of 2", "--init")),
    "unnumbered": (lambda c: [c[0] | {"param_groups": [{"params": [[]]}]}, *c[1:]], ("number its parameters",)),
    "Adam": (lambda c: [momentum_of(c, exp_avg=torch.ones(1)), *c[1:]], ("exp_avg", "only the momentum of", "--init")),
    "momentum NaN": (
        lambda c: [momentum_of(c, momentum_buffer=torch.tensor(float("inf"))), *c[1:]],
        ("momentum of parameter 4", "infinity"),
    ),
    "momentum endless": (
        lambda c: [momentum_of(c, momentum_buffer=torch.ones(1).expand(10**13)), *c[1:]],
        ("momentum of parameter 4", "fewer numbers"),
    ),
    "momentum no tensor": (lambda c: [momentum_of(c, momentum_buffer="x"), *c[1:]], ("momentum of parameter 4", "'x'")),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_published_checkpoint_is_refused_with_the_reason(kind, content, tmp_path):
    make, names = WRONG[kind]
    path = write(tmp_path / "wrong.pth", make(content))
    with pytest.raises(ValueError, match=r"wrong\.pth") as caught:
        read_published(path)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("from_list", [False, True])
def test_a_model_is_filled_from_a_list_or_from_a_state(from_list, legacy, content, tmp_path):
    model = models.build("resnet8", 1, 4)
    load_parameters(model, write(tmp_path / "a.safetensors", content if from_list else content[1], legacy))
    assert all(torch.equal(tensor, content[1][name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "channels", "classes", "form"),
    [
        ("resnet8", 1, 4, models.Form()),
        ("resnet18", 3, 10, models.Form()),
        ("resnet34", 3, 100, models.Form()),
        ("resnet50", 3, 10, models.Form()),
        ("densenet121", 3, 10, models.Form()),
        ("vgg16", 3, 10, models.Form()),
        ("vgg13", 3, 10, models.Form(norm="none")),
        ("resnet20", 3, 10, models.Form(norm="group")),
        ("resnet20", 3, 10, models.Form(norm="none")),
    ],
)
def test_a_model_is_recognised_by_its_state(name, channels, classes, form):
    with torch.device("meta"):
        state = models.build(name, channels, classes, form).state_dict()
    assert sizes(state) == (channels, classes)
    assert recognise(state, form) == name
    shuffled = {key: state[key] for key in sorted(state)}  # as safetensors keeps it
    assert classes_of(shuffled, lambda n: models.build(name, channels, n, form)) == classes


def test_an_unknown_model_is_refused_with_the_nearest():
    with torch.device("meta"):
        state = models.build("resnet34", 3, 10).state_dict()
    state["layers.3.3.conv1.weight"] = torch.empty(1)
    with pytest.raises(ValueError, match=r"nearest is resnet34, .* 2 of them .*layers\.3\.3\.conv1\.weight.*--model"):
        recognise({**state, "head.bias": torch.empty(1)}, models.Form())
    with pytest.raises(ValueError, match="no convolution"):
        recognise({"a": torch.ones(2)}, models.Form())
    with pytest.raises(ValueError, match="no number of classes"):
        classes_of({"a": torch.ones(2, 2)}, lambda n: models.build("resnet8", 1, n))
