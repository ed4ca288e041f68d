"""Losses, optimizers, policies and transforms of one's own by name: trained and resumed, or refused in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_runs import CLASSES, IMAGES, call, npz, read_config, record, refused, words, write_config

from noiseless import keyed
from noiseless.ask.state import StateAddress, load_state
from noiseless.files.directory import RunDirectory

SOURCE = """
import os, random
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from noiseless import keyed
from noiseless.optim import Transform


def focal(output, target, gamma=2.0):
    log_p = F.log_softmax(output, 1).gather(1, target[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma) * log_p

class Focal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma
    def forward(self, output, target):
        return focal(output, target, self.gamma)

class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 4]))
smooth = partial(F.cross_entropy, label_smoothing=0.1)
summed = nn.CrossEntropyLoss(reduction="sum")
def mean(output, target):
    return F.cross_entropy(output, target)
def random_loss(output, target):
    return F.cross_entropy(output, target, reduction="none") + random.random()
def constant_loss(output, target):
    return torch.ones(len(target))
def broken(output, target):
    raise KeyError("missing")


class Signum(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})
    @torch.no_grad()
    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["beta"])
                p.sub_(mean.sign(), alpha=group["lr"])
        return loss

class Hidden(Signum):
    count = 0
    def step(self, closure):
        self.count += 1
        self.param_groups[0]["beta"] = 1 / self.count
        return super().step(closure)

class Unstorable(Signum):
    def step(self, closure):
        self.state[self.param_groups[0]["params"][0]]["set"] = {1}
        return super().step(closure)

class Open(Signum):
    def step(self):
        pass

class Deaf(Signum):
    def step(self, closure=None):
        pass

class Rateless(torch.optim.Optimizer):
    def __init__(self, params, rate=0.1):
        super().__init__(params, {"lr": rate})

def factory(params, lr):
    return Signum(params, lr)


def invert(image, p=0.5):
    return 255 - image if torch.rand(()) < p else image

class Invert:
    def __init__(self, p):
        self.p = p
    def __call__(self, image):
        return invert(image, self.p)

rotate = v2.RandomRotation(30)
def python_random(image):
    return image if random.random() < 0.5 else 255 - image
def hidden_random(image):
    return (image ^ ord(os.urandom(1))).to(torch.uint8)
def halves(image):
    return image / 2


def average(beta=0.5):
    def init(theta):
        return {"mean": torch.zeros_like(theta), "count": 0}
    def update(gradient, state, theta, step):
        mean = beta * state["mean"] + (1 - beta) * gradient
        return mean, {"mean": mean, "count": state["count"] + 1}
    return Transform("average", init, update)

def centred(space, seed):
    def update(gradient, state, theta, step):
        xi = keyed.normal(seed, "centred", step, torch.arange(len(gradient)))
        parts = [part - part.mean() for part in space.split(gradient).values()]
        return torch.cat([part.flatten() for part in parts]) + 0.01 * xi.to(gradient), state
    return lambda theta: {}, update

sign = (lambda theta: {}, lambda gradient, state, theta, step: (gradient.sign(), state))
unkeyed = (lambda theta: {}, lambda gradient, state, theta, step: (gradient + torch.randn(len(gradient)), state))
inplace = (lambda theta: {}, lambda gradient, state, theta, step: (gradient.mul_(2), state))
short = (lambda theta: {}, lambda gradient, state, theta, step: (gradient[1:], state))
stateless = (lambda theta: None, lambda gradient, state, theta, step: (gradient, state))
kept = (lambda theta: {"set": {1}}, lambda gradient, state, theta, step: (gradient, state))
number = 3
"""
FLAGS = ("--model", "linear", "--steps", "4", "--block", "16", "--threads", "1", "--chunk", "1", "--compile", "off")
OWN = ("--loss", "own_names:focal", "--loss-options", "gamma=1.0", "--optimizer", "own_names:Signum", "--lr", "0.01",
       "--policy", "own_names:invert", "--transform", "own_names:average", "--transform", "own_names:centred",
       "--transform-options=beta=0.25", "--transform-options=")  # fmt: skip
TRUST = ("--trust", "own_names")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory, with a module of the user's own and a data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delitem(sys.modules, "own_names", raising=False)
    (tmp_path / "own_names.py").write_text(SOURCE)
    npz(tmp_path / "d.npz")
    yield tmp_path
    sys.modules.pop("own_names", None)


def _train(*more, run="run"):
    return call("train", "fb", "--data", "npz:d.npz", *FLAGS, *more, "--run-dir", run)


def _model(run):
    state = RunDirectory(Path(run)).state()
    return next(t for t in state.values() if t.ndim == 2), next(t for t in state.values() if t.ndim == 1)


def test_a_run_of_own_things_is_that_of_a_plain_loop(place):
    """A naive loop in float64 with the same loss, transforms and optimizer, without augmentation."""
    flags = [word for word in OWN if word not in ("--policy", "own_names:invert")]
    answer = _train("--augment", "none", "--dtype", "float64", "--warmup", 0, "--schedule", "constant", *flags)
    assert answer.code == 0, answer.err
    assert "chain: transform(own_names:average) -> transform(own_names:centred)" in words(answer.out)
    import own_names

    experiment = load_state(StateAddress.read("run"), trust="own_names").experiment
    x, y = experiment.train.take(torch.arange(IMAGES))
    start = load_state(StateAddress.read("run@0"), trust="own_names").experiment.model.state_dict()
    weight, bias = (next(t.clone() for t in start.values() if t.ndim == n) for n in (2, 1))
    mean = momentum = torch.zeros(weight.numel() + bias.numel(), dtype=torch.float64)
    names = [name for name, _ in experiment.model.named_parameters()]
    for step in range(4):
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        loss = own_names.focal(x.flatten(1) @ w.T + b, y, 1.0).mean()
        parts = dict(zip(("weight", "bias"), torch.autograd.grad(loss, (w, b)), strict=True))
        sizes = [parts[name.rpartition(".")[2]] for name in names]
        mean = 0.25 * mean + 0.75 * torch.cat([part.flatten() for part in sizes])
        pieces = mean.split([part.numel() for part in sizes])
        xi = own_names.keyed.normal(0, "centred", step, torch.arange(len(mean)))
        gradient = torch.cat([piece - piece.mean() for piece in pieces]) + 0.01 * xi
        momentum = 0.9 * momentum + 0.1 * gradient
        moves = dict(zip(names, momentum.sign().split([part.numel() for part in sizes]), strict=True))
        for name, move in moves.items():
            (weight if name.endswith("weight") else bias).sub_(
                0.01 * move.reshape(parts[name.rpartition(".")[2]].shape)
            )
    assert [torch.equal(a, b) for a, b in zip(_model("run"), (weight, bias), strict=True)] == [True, True]
    rows = RunDirectory(Path("run")).rows()
    assert rows[-1]["train_accuracy"] >= 1 / CLASSES


def test_a_resumed_run_of_own_things_has_the_same_bits(place):
    first = _train("--keep-every", 2, *OWN)
    assert first.code == 0, first.err
    whole = record(RunDirectory(Path("run")))
    for file in (*(place / "run" / "checkpoints").glob("step-00000004.*"), place / "run" / "model.safetensors"):
        file.unlink()
    lines = (place / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (place / "run" / "metrics.jsonl").write_text("".join(lines[:2]))
    refused("resume", "run", names=(
        "the loss own_names:focal and the optimizer own_names:Signum and the policy own_names:invert and the transform"
        " own_names:average and the transform own_names:centred are code",
        "--trust own_names:focal --trust own_names:Signum", "noiseless trust own_names",
    ))  # fmt: skip
    answer = call("resume", "run", *TRUST)
    assert answer.code == 0, answer.err
    assert record(RunDirectory(Path("run"))) == whole


def test_other_commands_on_such_a_run(place):
    assert _train(*OWN).code == 0
    for command in (("verify", "run", "--no-precision"), ("sharpness", "run"), ("evaluate", "run")):
        if command[0] != "verify":  # which starts jobs of two seconds each
            answer = call(*command, *TRUST)
            assert answer.code == 0, answer.err
        refused(*command, names=("own_names:Signum", "are code"))
    for command in ("report", "watch", "digest"):
        sys.modules.pop("own_names", None)
        call("trust", "own_names")  # even then, looking imports nothing
        answer = call(command, "run", *(("--once",) if command == "watch" else ()))
        assert answer.code == 0, answer.err
        assert "own_names" not in sys.modules
        call("trust", "own_names", "--remove")


def test_the_test_loss_is_the_loss_that_is_named(place):
    answer = _train("--loss", "own_names:weighted")
    assert answer.code == 0, answer.err
    experiment = load_state(StateAddress.read("run"), trust="own_names").experiment
    x, y = experiment.test.take(torch.arange(len(experiment.test)))
    expected = F.cross_entropy(experiment.model.eval()(x), y, weight=torch.tensor([1.0, 2, 3, 4]))
    row = RunDirectory(Path("run")).rows()[-1]
    assert row["test_loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert f"{row['test_loss']:.6f}" in call("evaluate", "run", *TRUST).out
    assert 0 <= row["train_accuracy"] <= 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--loss", "own_names:Focal", "--loss-options", "gamma=1.5"), ("--loss", "own_names:smooth"),
        ("--policy", "own_names:Invert", "--policy-options", "p=0.25"), ("--policy", "own_names:rotate"),
        ("--transform", "own_names:sign", "own_names:average"),
        ("--optimizer", "own_names:Signum", "--lr", "0.01", "--optimizer-options", "beta=0.5"),
    ],
    ids=lambda flags: flags[1],
)  # fmt: skip
def test_other_forms(place, flags):
    answer = _train(*flags, "--steps", "1")
    assert answer.code == 0, answer.err


def test_a_policy_is_keyed_by_step_and_image(place):
    assert _train("--policy", "own_names:invert", "--policy-options", "p=0.5", "--augment", "none").code == 0
    images = load_state(StateAddress.read("run"), trust="own_names").experiment.train
    numbers = torch.arange(IMAGES)
    import own_names

    for image in (0, 5):
        with keyed.torch_generators(0, "policy", 0, image, torch.device("cpu")):
            expected = own_names.invert(images.images[image], 0.5)
        assert torch.equal(images._augmented(images.images, numbers, 0)[image], expected)


REFUSED = {
    ("--loss", "own_names:focl"): "unknown function of own_names 'focl'; did you mean focal or Focal?",
    ("--loss", "own_nam:focal"): "No module named 'own_nam', did you mean own_names?",
    ("--loss", "own_names:number"): "is of type int; it must be a function of output and target, or a loss of torch",
    ("--loss", "own_names:mean"): "must give one value an example",
    ("--loss", "own_names:random_loss"): "returned two values for the same output and target",
    ("--loss", "own_names:constant_loss"): "returns values without a gradient",
    ("--loss", "own_names:broken"): "failed on scores [8, 4]: KeyError: 'missing' (",
    ("--loss", "own_names:summed"): "has reduction='sum'",
    ("--loss", "own_names:Learned"): "has trainable parameters",
    ("--loss", "own_names:invert"): "own_names:invert(image, p=0.5) failed|own_names:invert failed",
    ("--loss", "own_names:halves"): "own_names:halves(image) cannot be called with (output, target)",
    ("--loss", "own_names:weighted", "--loss-options", "a=1"): "which takes no options",
    ("--loss", "own_names:focal", "--loss-options", "alpha=1"): "unexpected keyword argument 'alpha'",
    ("--loss", "own_names:focal", "--label-smoothing", "0.1"): "belongs to the built-in losses",
    ("--loss-options", "a=1"): "do nothing without a --loss package.module:name",
    ("--loss", "cross"): "unknown loss 'cross'; did you mean cross-entropy?",
    ("--loss", "os:system"): "os:system cannot be trusted",
    ("--optimizer", "own_names:Signm", "--lr", "1"): "unknown class of own_names 'Signm'; did you mean Signum? known:",
    ("--optimizer", "own_names:Signum"): "no usual learning rate is known for --optimizer own_names:Signum: give --lr",
    ("--optimizer", "own_names:factory", "--lr", "1"): "is a function; it must be a subclass of torch.optim.Optimizer",
    ("--optimizer", "own_names:Focal", "--lr", "1"): "is the class Focal; it must be a subclass of torch.optim.Opt",
    ("--optimizer", "own_names:Hidden", "--lr", "1"): "does not go on from its state_dict with the same steps",
    ("--optimizer", "own_names:Unstorable", "--lr", "1"): "holds of type set at ['state'][0]['set']",
    ("--optimizer", "own_names:Open", "--lr", "1"): "step of own_names:Open takes no closure",
    ("--optimizer", "own_names:Deaf", "--lr", "1"): "does not call its closure",
    ("--optimizer", "own_names:Rateless", "--lr", "1"): "takes no lr",
    ("--optimizer", "os:system", "--lr", "1"): "os:system cannot be trusted",
    ("--policy", "own_names:python_random"): "draws from Python's or numpy's generator",
    ("--policy", "own_names:hidden_random"): "gives two results for the same image and seed",
    ("--policy", "own_names:halves"): "returned torch.float32 [1, 8, 8]; it must return an image torch.uint8 [1, 8, 8]",
    ("--policy", "random"): "unknown policy 'random'; did you mean rand?",
    ("--policy", "os:system"): "os:system cannot be trusted",
    ("--transform", "own_names:unkeyed"): "returned two results for the same arguments",
    ("--transform", "own_names:inplace"): "changes its arguments",
    ("--transform", "own_names:short"): "returned torch.float32 [259] as gradient; it must be torch.float32 [260]",
    ("--transform", "own_names:stateless"): "its state must be a dict",
    ("--transform", "own_names:kept"): "holds of type set at ['set']; a checkpoint holds",
    ("--transform", "own_names:number"): "it must be a Transform, a tuple (init, update), or a function that returns",
    ("--transform", "own_names:sign", "--transform-options", "a=1", "b=1"): "has 2 values for 1 transforms",
    ("--transform", "own_names:sign", "--line-search", "armijo"): "leave out --transform",
    ("--transform", "average"): "unknown transform 'average'",
    ("--transform", "os:system"): "os:system cannot be trusted",
}


@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_a_wrong_name_is_one_sentence(place, flags):
    line = refused("train", "fb", "--data", "npz:d.npz", *FLAGS, *flags, "--run-dir", "new", names=())
    assert any(part in line for part in REFUSED[flags].split("|")), line
    assert not (place / "new" / "config.json").exists()


KINDS = {"loss": ("objective", "loss"), "optimizer": ("optimizer", "name"), "policy": ("data", "policy"),
         "transform": ("transforms", "transform")}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_names_code_imports_nothing(place, kind):
    assert _train("--steps", "1").code == 0
    (place / "hostile_names.py").write_text("import pathlib; pathlib.Path('IMPORTED').write_text('')")
    part, field = KINDS[kind]
    for name, message in (
        ("os:system", "os:system cannot be trusted"),
        ("hostile_names:f", f"the {kind} hostile_names:f"),
    ):
        config = read_config(place / "run")
        config["recipe"][part][field] = [name] if kind == "transform" else name
        write_config(place / "run", config)
        for command in ("evaluate", "sharpness"):
            refused(command, "run", names=(message,))
        assert call("report", "run").code == 0
    refused("train", "--config", "run/config.json", "--run-dir", "new", names=("--trust hostile_names:f",))
    assert not (place / "IMPORTED").exists()


def test_a_state_where_a_command_is_about_a_run(place):
    """verify and compare take a state; resume, report and watch say what to do instead."""
    assert _train("--steps", "1").code == 0
    remedies = {"resume": "--init DIR/model.safetensors", "report": "all steps", "watch": "all steps"}
    for command, remedy in remedies.items():
        refused(command, "run@1", names=("run@1 is one state", f"{command} is about the run run", remedy))
    refused("compare", "run@1", "--against", "run", names=("run@1 has no analysis/", "noiseless evaluate run@1"))
    refused("verify", "run@7", "--no-precision", names=("has no state of step 7",))


def test_a_config_of_an_older_version_is_read(place):
    assert _train("--steps", "1").code == 0
    config = read_config(place / "run")
    del config["recipe"]["objective"]["loss_options"], config["recipe"]["transforms"]["transform"]
    del config["recipe"]["transforms"]["transform_options"]
    write_config(place / "run", config)
    assert call("evaluate", "run").code == 0


def test_the_coefficient_of_layer_rates_is_not_the_flag_for_code(tmp_path):
    line = ("train", "fb", "--model", "linear", "--data", npz(tmp_path / "small.npz"), "--steps", "2", "--block", "8")
    run = tmp_path / "run"
    names = ("--trust 0.1 names no code", "--trust-coefficient 0.1")
    refused(*line, "--layer-rate", "lars", "--trust", "0.1", "--run-dir", run, names=names)
    assert call(*line, "--layer-rate", "lars", "--trust-coefficient", "0.1", "--run-dir", run).code == 0
    assert json.loads((run / "config.json").read_text())["recipe"]["transforms"]["trust"] == 0.1
