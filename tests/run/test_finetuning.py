"""Fine-tuning: a new head, frozen parameters, rates by layer; after a resume and for workers the same bits."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import small_runs
import torch
from small_runs import CLASSES, call, copy, npz, prepare, read_config, record, refused, resume, run, words

from noiseless import from_pretrained, models
from noiseless.analysis import Hessian
from noiseless.ask.state import load_state
from noiseless.cost.sizes import sizes
from noiseless.data import extent, home
from noiseless.files import checkpoint
from noiseless.files.address import StateAddress
from noiseless.files.parameters import adapted, load_parameters, write_parameters
from noiseless.models.freezing import freeze
from noiseless.optim.groups import LR_FACTOR, parameter_groups
from noiseless.recipes.config import Config
from noiseless.recipes.flags import with_flags
from noiseless.run.train import train

small_recipe = partial(small_runs.small_recipe, model="resnet8")  # which has layers to freeze
FROZEN = ("stem", "layers.0")
TUNED = {"freeze": FROZEN, "lr_factors": "fc=1,layers.2=0.5,*=0.1", "decay_biases": False}


@pytest.fixture(scope="module")
def practice(data, tmp_path_factory):
    """A finished run of fb-practice with a checkpoint after each step."""
    path = tmp_path_factory.mktemp("runs") / "practice"
    return run(path, small_recipe(data), checkpoint_seconds=0, keep=9, evaluate_every=2)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The value of --data for the tiny data set with 7 classes."""
    labels = {f"y_{part}": np.arange(count) % 7 for part, count in (("train", 48), ("test", 20))}
    return npz(tmp_path_factory.mktemp("other") / "other.npz", **labels)


@pytest.fixture(scope="module")
def tuned(practice, other, tmp_path_factory):
    """A finished run that began with the parameters of `practice`, and has a checkpoint after each step."""
    recipe = small_recipe(other, "fb-clipped", init=str(practice.path), **TUNED)
    return run(tmp_path_factory.mktemp("tuned") / "run", recipe, checkpoint_seconds=0, keep=9)


def test_the_head_is_new_and_the_rest_of_the_file(tuned, practice):
    _, state = checkpoint.read(tuned.checkpoints / "step-00000000.json")
    new = prepare(with_flags(tuned.config().recipe, init=None)).model.state_dict()
    for name, tensor in state["model"].items():
        assert torch.equal(tensor, new[name] if name.startswith("fc.") else practice.state()[name]), name
    assert state["model"]["fc.weight"].shape == (7, 64)
    assert tuned.config().recipe.model.init == f"{practice.path}@3"


def test_frozen_parameters_stay_and_their_batch_norm_goes_on(tuned, practice):
    before, after = practice.state(), tuned.state()
    for name, tensor in after.items():
        if name.startswith(("stem.", "layers.0.")):
            assert torch.equal(tensor, before[name]) == ("running" not in name and "num" not in name), name


def test_theta_has_the_trainable_parameters_only(tuned):
    state = load_state(StateAddress(tuned, None))
    model = state.experiment.model
    free = [p for name, p in model.named_parameters() if not name.startswith(("stem.", "layers.0."))]
    assert len(state.experiment.space) == sum(p.numel() for p in free)
    vector = torch.zeros(1, len(state.experiment.space))
    vector[0, -1] = 1  # the last bias
    product = Hessian(state.risk).product(vector)[0]
    loss = state.risk.measure().loss  # by differences of the gradient, in float32
    assert product.shape == vector[0].shape
    assert 0 < float(product[-1]) < 1  # p (1 - p), a mean over the examples
    assert loss > 0
    counts = sizes(tuned.config().recipe, extent(tuned.config().recipe.data.name, home(None), None))
    assert counts.work.parameters == len(state.experiment.space)


@pytest.mark.parametrize("stop_after", [0, 1])
def test_a_resumed_run_has_the_same_bits(tuned, practice, other, tmp_path, stop_after):
    recipe = small_recipe(other, "fb-clipped", init=str(practice.path), **TUNED)
    directory = run(tmp_path / "run", recipe, stop_after=stop_after)
    resume(directory)
    assert record(directory)[0] == record(tuned)[0]


def test_a_checkpoint_holds_the_factors_of_the_rates(tuned):
    step, state = checkpoint.read(tuned.checkpoints / "step-00000002.json")
    groups = state["optimizer"]["param_groups"]
    assert [(group.get(LR_FACTOR, 1.0), group["weight_decay"]) for group in groups] == [
        (0.1, 5e-4), (0.5, 5e-4), (1.0, 5e-4), (0.1, 0.0), (0.5, 0.0), (1.0, 0.0),
    ]  # fmt: skip
    lr = tuned.rows()[1]["lr"]
    assert [group["lr"] for group in groups] == [lr * group.get(LR_FACTOR, 1.0) for group in groups]
    assert step == 2


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Muon"])
def test_a_factor_of_the_rate_is_that_rate(data, name):
    """With all layers at half the rate, a run is that of half the rate, to the bit."""
    flags = {"model": "linear", "optimizer": name, "lr": 0.5, "weight_decay": 0.25, "warmup": 0, "steps": 2}
    states = []
    for changes in ({"lr_factors": "*=0.5"}, {"lr": 0.25}):
        experiment = prepare(small_recipe(data, "fb-clipped", **(flags | changes)))
        train(experiment, None)
        states.append(checkpoint.digest(experiment.model.state_dict()))
    assert states[0] == states[1]


def test_groups_are_by_factor_and_decay():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(2, 3), "b": torch.nn.Bilinear(2, 2, 2), "n": torch.nn.LayerNorm(3)}
    )
    model["n"].bias = torch.nn.Parameter(torch.zeros(3, 1))  # a bias of two dimensions, as timm counts it
    named = dict(model.named_parameters())
    factors = {"a.weight": 0.5, "a.bias": 0.5}
    groups = parameter_groups(named.items(), factors, decay_biases=False)
    names = {id(p): name for name, p in named.items()}
    listed = [(sorted(names[id(p)] for p in g.pop("params")), g) for g in groups]
    assert listed == [
        (["a.weight"], {LR_FACTOR: 0.5}),
        (["b.weight"], {}),
        (["a.bias"], {LR_FACTOR: 0.5, "weight_decay": 0.0}),
        (["b.bias", "n.bias", "n.weight"], {"weight_decay": 0.0}),
    ]


def test_the_command_tells_what_is_new_and_what_is_frozen(practice, other, tmp_path):
    flags = ("--data", other, "--model", "resnet8", "--block", 16, "--steps", 1, "--threads", 1, "--lr", 0.1)
    answer = call(
        "train", "fb", *flags, "--init", f"{practice.path}@2", "--freeze", "stem", "--lr-factors", "fc=1,*=0.1",
        "--freeze=layers.?.*.weight", "--run-dir", tmp_path / "run", "--warmup", 0,
    )  # fmt: skip
    assert answer.code == 0, answer
    assert "initial values are new: fc.weight ([4, 64] there, [7, 64] here), fc.bias ([4] there, [7] here)" in words(
        answer.out
    )
    assert "frozen: 19 of 29 parameter tensors" in answer.out
    assert "the batch norm of stem.1 still normalises by blocks" in words(answer.out)
    recipe = read_config(tmp_path / "run")["recipe"]
    assert recipe["model"]["freeze"] == ["stem", "layers.?.*.weight"]
    assert call("digest", tmp_path / "run").code == 0
    sharp = call("sharpness", tmp_path / "run", "--most", 5, "--tolerance", 0.5)
    assert "no eigenvalue of the Hessian alone decides whether steps grow, as --lr-factors gives" in words(sharp.out), (
        sharp
    )


def test_mistakes_are_sentences(data, practice, tmp_path):
    flags = ("--data", data, "--model", "resnet8", "--block", 16, "--run-dir", tmp_path / "run")
    for extra, names in (
        (("--freeze", "layer1"), ("--freeze 'layer1' matches no parameter", "near it are layers.1")),
        (("--freeze", "*"), ("--freeze * freezes all 29 parameter tensors",)),
        (("--freeze",), ("--freeze must be followed by at least one value",)),
        (("--freeze", "stem", "--lr-factors", "stem=2"), ("'stem' matches only parameters that are frozen",)),
        (("--lr-factors", "lars"), ("must be PATTERN=FACTOR", "'lars'")),
        (("--lr-factors", "fc=2", "--optimizer", "DampedLBFGS"), ("DampedLBFGS learns from its steps",)),
        (("--lr-factors", "fc=2", "--optimizer", "LBFGS"), ("LBFGS learns from its steps",)),
        (
            ("--lr-factors", "fc=2", "--optimizer", "Muon", "--optimizer-options", "last_lr_ratio=0.1"),
            ("last_lr_ratio and --lr-factors",),
        ),
        (("--init", f"{practice.path}@9"), (f"{practice.path} has no state of step 9", "0, 1, 2, 3")),
        (("--init", tmp_path / "none"), ("there is no file", "none")),
    ):
        refused("train", "fb", *flags, *extra, names=names)
    assert not (tmp_path / "run" / "config.json").exists()


def body_of_another_width(state):
    return state | {"stem.0.weight": torch.zeros(CLASSES, *state["stem.0.weight"].shape[1:])}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (body_of_another_width, r"stem.0.weight has shape \[4, 1, 3, 3\]"),
        (lambda s: s | {"fc.weight": torch.zeros(4, 32)}, r"fc.weight has shape \[4, 32\]"),
        (lambda s: s | {"fc.weight": torch.zeros(4, 64)}, r"fc.(weight|bias) has shape"),  # the bias is of 5
        (lambda s: {k: v for k, v in s.items() if not k.startswith("fc")}, "missing fc.bias, fc.weight"),
        (lambda s: s | {"head": torch.zeros(1)}, "unknown head"),
    ],
)
def test_only_the_head_may_differ(tmp_path, change, problem):
    state = dict(models.build("resnet8", 1, 5).state_dict())
    write_parameters(tmp_path / "a.safetensors", change(state))
    with pytest.raises(ValueError, match=problem):
        load_parameters(models.build("resnet8", 1, 7), tmp_path / "a.safetensors", 7)


def test_files_from_before_the_counters_of_batch_norm_are_read(tmp_path):
    source, model = models.build("resnet8", 1, 5, seed=3), models.build("resnet8", 1, 5)
    state = {name: t for name, t in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert adapted(model, state, None)[0].keys() == model.state_dict().keys()
    torch.save(state, tmp_path / "a.pth")
    assert load_parameters(model, tmp_path / "a.pth") == []
    assert checkpoint.digest(model.state_dict()) == checkpoint.digest(source.state_dict())


def test_a_run_from_before_these_flags_is_read(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    values = json.loads(json.dumps(directory.config().as_json()))
    del values["recipe"]["model"]["freeze"], values["recipe"]["optimizer"]["lr_factors"]
    assert Config.from_json(values) == directory.config()


def test_an_export_of_a_tuned_run_is_a_model(tuned, tmp_path, capsys):
    assert call("export", tuned.path, tmp_path / "model").code == 0
    model = from_pretrained(tmp_path / "model")
    assert checkpoint.digest(model.state_dict()) == checkpoint.digest(tuned.state())
    assert all(p.requires_grad for p in model.parameters())
    capsys.readouterr()
    other = from_pretrained(tmp_path / "model", classes=3)
    assert "initial values are new: fc.weight ([7, 64] there, [3, 64] here)" in words(capsys.readouterr().err)
    assert other(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert torch.equal(other.layers[2][0].conv1.weight, model.layers[2][0].conv1.weight)


def test_frozen_norms_are_named_and_shared_parameters_are_one():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    model[2].weight = model[0].weight
    message = freeze(model, ["0", "1"])
    assert message.startswith("frozen: 4 of 5 parameter tensors, 10 of 12 parameters; in training mode, the batch norm")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["2.bias"]
    assert freeze(model, []) is None
