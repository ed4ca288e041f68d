"""Files with the published names and shapes of each family, through the commands: import, resume and export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from published_files import write
from small_runs import call, npz

from noiseless import from_pretrained, keyed, models
from noiseless.exchange.pretrained import describe
from noiseless.exchange.recognise import recognise
from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory

CHECKOUT = Path(__file__).parents[1]
NAMES = CHECKOUT / "tests" / "models" / "published"
CLASSES, TRAINED, TESTED = 10, 11, 6
FLAGS = ("--block", 5, "--threads", 1, "--warmup", 2, "--horizon", 4, "--compat", "published")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of 8x8 in colour: two blocks of 5, and one image that the published code never uses."""
    pixels = keyed.integers(0, "pixels", 0, torch.arange((TRAINED + TESTED) * 192), 256)
    x = pixels.reshape(-1, 8, 8, 3).numpy().astype(np.uint8)
    y = np.arange(TRAINED + TESTED) % CLASSES
    path = tmp_path_factory.mktemp("data") / "colour.npz"
    return npz(path, x_train=x[:TRAINED], y_train=y[:TRAINED], x_test=x[TRAINED:], y_test=y[TRAINED:])


def state_of(name):
    """A state with the published names and shapes, and numbers of the size that a trained model has."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in json.loads((NAMES / f"{name}.json").read_text()).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
            continue
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[key] = noise * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        elif key.endswith("running_var"):
            state[key] = 1 + 0.1 * noise.abs()
        else:
            state[key] = 0.1 * noise + float(key.endswith("weight"))
    return state


def listed(state, step):
    """The published list at a step, with momentum for each parameter, by number."""
    learned = [t for key, t in state.items() if "running" not in key and "num_batches" not in key]
    momentum = {number: {"momentum_buffer": 0.01 * t.clone()} for number, t in enumerate(learned)}
    group = {
        "lr": 0.4 * step / 2, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": True,
        "params": list(range(len(learned))),
    }  # fmt: skip
    return [{"state": momentum, "param_groups": [group]}, state, {"last_epoch": step}, None, step]


def hub(entry, *arguments, **settings):
    return torch.hub.load(str(CHECKOUT), entry, *arguments, source="local", **settings)


FAMILIES = [
    pytest.param("resnet18", marks=pytest.mark.soak),
    "densenet121",
    pytest.param("vgg16", marks=pytest.mark.soak),  # 14.7 million numbers, written and read in each command
]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg16"])
def test_a_published_file_of_each_family_fills_its_model(name, tmp_path):
    state = state_of(name)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")  # which sorts the names
    for file in (tmp_path / "a.safetensors", write(tmp_path / "a.pth", listed(state, 1))):
        model = hub(name, pretrained=str(file))
        assert checkpoint.digest(model.state_dict()) == checkpoint.digest(state)
        assert recognise(dict(model.state_dict()), models.Form()) == name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_checkpoint_of_each_family_is_imported_resumed_and_exported(name, data, tmp_path):
    state = state_of(name)
    digest = checkpoint.digest(state)
    file = write(tmp_path / "a.pth", listed(state, 1))
    run_dir = tmp_path / "run"
    answer = call("import", file, "fb-clipped", "--data", data, *FLAGS, "--steps", 2, "--run-dir", run_dir)
    assert (answer.code, answer.err) == (0, "")
    assert f": {name} (" in answer.out  # recognised
    assert "in the checkpoint" not in answer.out  # nothing differs
    directory = RunDirectory(run_dir)
    saved = checkpoint.newest(directory.checkpoints).state
    assert checkpoint.digest(saved["model"]) == digest
    assert torch.equal(
        saved["optimizer"]["state"][2]["momentum_buffer"], listed(state, 1)[0]["state"][2]["momentum_buffer"]
    )
    assert call("evaluate", run_dir).code == 0
    assert call("resume", run_dir).code == 0
    ((row,), after) = directory.rows(), directory.state()
    assert (row["step"], row["passes"]) == (1, pytest.approx(10 / TRAINED))
    assert checkpoint.digest(after) != digest

    assert call("export", run_dir, tmp_path / "model").code == 0
    images = torch.arange(3 * 192).reshape(1, 3, 24, 8).expand(2, -1, -1, -1).to(torch.uint8)
    for model in (from_pretrained(tmp_path / "model"), hub("from_run", str(run_dir))):
        assert checkpoint.digest(model.state_dict()) == checkpoint.digest(after)
        assert model(describe(tmp_path / "model").normalise(images)).isfinite().all()
    assert hub("from_pretrained", str(tmp_path / "model")).training is False


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_file_of_each_family_initialises_a_run(name, data, tmp_path):
    state = state_of(name)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    flags = ("--model", name, "--init", tmp_path / "a.safetensors", "--run-dir", tmp_path / "run")
    own = ("--block", 5, "--threads", 1, "--compat", "published", "--steps", 1, "--checkpoint-seconds", 0)
    answer = call("train", "fb", "--data", data, *own, *flags)
    assert answer.code == 0, answer.err
    _, first = checkpoint.read(RunDirectory(tmp_path / "run").checkpoints / "step-00000000.json")
    assert checkpoint.digest(first["model"]) == checkpoint.digest(state)
    (row,) = RunDirectory(tmp_path / "run").rows()
    assert 0 < row["train_loss"] < 20
