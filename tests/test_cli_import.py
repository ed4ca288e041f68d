"""noiseless import: a published checkpoint becomes a run that evaluate and resume accept like any other."""

import json
import os
from functools import partial

import numpy as np
import pytest
import small_runs
import torch
from published_files import parts, write
from small_runs import arrays, call, npz, record, refused, run, words
from torch.nn import functional as F

from noiseless import models
from noiseless.ask.verify import gradient
from noiseless.files import checkpoint, predictions
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory
from noiseless.objective.workers import Alone
from noiseless.optim import schedules

small_recipe = partial(small_runs.small_recipe, model="resnet8")  # whose states the published code has
FLAGS = ("--block", "16", "--threads", "1", "--warmup", "2", "--horizon", "4", "--steps")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def content():
    return parts(step=3)


def imported(data, path, content, *flags, recipe="fb-clipped", steps=5, legacy=False):
    """Writes the file beside the run and imports it."""
    file = write(path.with_suffix(".pth"), content, legacy)
    return call("import", file, recipe, "--data", data, *FLAGS, steps, "--run-dir", path, *flags)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_run_resumed_from_an_import_is_the_run_that_never_stopped(legacy, data, tmp_path):
    """A run of ours, saved at step 4 in the published form: the steps after it have the same bits."""
    recipe = small_recipe(data, "fb-regularized", steps=6)
    undisturbed = run(tmp_path / "whole", recipe, checkpoint_seconds=0, keep=9)
    step, state = checkpoint.read(undisturbed.checkpoints / "step-00000004.json")
    (group,) = state["optimizer"]["param_groups"]
    group["lr"] = schedules.cosine(recipe.optimizer.lr, 1, 4)(step)  # as saved after the schedule's step
    file = write(tmp_path / "a.pth", [state["optimizer"], state["model"], {}, None, step], legacy)
    flags = ("--data", data, "--block", 16, "--warmup", 1, "--horizon", 4, "--steps", 6, "--threads", 1)
    # recipes of tests have the small form, which has its own padding and flip
    flags = (*flags, "--padding", recipe.data.padding, "--flip", recipe.data.flip, "--evaluate-every", 1)
    answer = call("import", file, "fb-regularized", *flags, "--run-dir", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert "resnet8" in answer.out
    assert "at step 4 of 6" in answer.out
    assert answer.out.count("\n") == 3  # no differences are printed
    answer = call("resume", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert "lacks" not in answer.out  # rows before the import were never there
    assert "unfinished" not in answer.out
    digest, rows = record(RunDirectory(tmp_path / "run"))
    assert digest == record(undisturbed)[0]
    assert [row["step"] for row in rows] == [4, 5]
    assert [row["gradient_norm"] for row in rows] == [row["gradient_norm"] for row in undisturbed.rows()[4:]]
    assert [row["passes"] for row in rows] == [2, 4]  # counted from the import on


def test_evaluate_of_an_import_gives_the_numbers_of_plain_torch(data, content, tmp_path):
    answer = imported(data, tmp_path / "run", content, steps=3)
    assert answer.code == 0, answer.err
    assert "the run has ended" in answer.out
    model = models.build("resnet8", 1, 4)
    model.load_state_dict(content[1])
    files = arrays()
    x, y = (torch.from_numpy(files[name]) for name in ("x_test", "y_test"))
    levels = files["x_train"].astype(np.float64) / 255
    with torch.no_grad():
        scores = model.eval()(((x.double() / 255 - levels.mean()) / levels.std()).float()[:, None])
    accuracy, loss = (scores.argmax(1) == y).double().mean().item(), F.cross_entropy(scores, y).item()
    answer = call("evaluate", tmp_path / "run")
    assert answer.code == 0
    (line,) = [line for line in answer.out.splitlines() if line.startswith("test ")]
    columns = words(line).split()
    assert columns[4] == f"{accuracy:.4%}"
    assert float(columns[2]) == pytest.approx(loss, rel=1e-5)  # float32 sums in another order, six digits shown
    answer = call("resume", tmp_path / "run")
    assert (answer.code, answer.err) == (0, "")
    assert "has ended" in answer.out
    saved = predictions.read(tmp_path / "run")  # an import has not been evaluated: evaluate writes them
    assert saved.predicted.tolist() == scores.argmax(1).tolist()


def test_an_import_records_its_origin(data, content, tmp_path):
    assert imported(data, tmp_path / "run", content).code == 0
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["imported"]["file"] == "run.pth"
    assert environment["imported"]["step"] == 3
    assert len(environment["imported"]["sha256"]) == 64
    assert environment["command"][:2] == ["noiseless", "import"]
    directory = RunDirectory(tmp_path / "run")
    assert directory.config().recipe.model.name == "resnet8"
    assert directory.rows() == []
    evaluation = gradient(StateAddress(directory, None), Alone())  # as verify computes it
    assert (evaluation.count, evaluation.gradient.isfinite().all().item()) == (48, True)
    state = checkpoint.newest(directory.checkpoints).state
    momentum = state["optimizer"]["state"]
    assert all(
        torch.equal(momentum[k]["momentum_buffer"], v["momentum_buffer"]) for k, v in content[0]["state"].items()
    )


def test_differences_between_recipe_and_checkpoint_are_printed(data, content, tmp_path):
    answer = imported(data, tmp_path / "run", content, "--weight-decay", 0.1, "--momentum", 0.5, "--lr", 0.405)
    assert answer.code == 0, answer.err
    assert "weight_decay is 0.0005 in the checkpoint, 0.1 in the recipe" in answer.out
    assert "momentum is 0.9 in the checkpoint, 0.5 in the recipe" in answer.out
    assert "the learning rate at step 3 is 0.4 in the checkpoint, 0.405 in the recipe" in answer.out


def test_a_model_of_another_form_is_imported_with_its_flags(data, tmp_path):
    group = parts(step=1, model=models.build("resnet8", 1, 4, models.Form(norm="group")))
    assert imported(data, tmp_path / "run", group, "--norm", "group").code == 0
    file = tmp_path / "run.pth"
    flags = ("--data", data, *FLAGS, 5, "--run-dir", tmp_path / "b")
    refused("import", file, "fb", *flags, names=(file, "no known model", "resnet8", "--model"))
    refused("import", file, "fb", *flags, "--model", "resnet20", names=(file, "not of this model", "layers"))


def test_a_checkpoint_of_other_classes_or_channels_is_refused(data, tmp_path):
    for channels, classes, name in ((1, 10, "fc.weight"), (3, 4, "stem.0.weight")):
        content = parts(step=0, channels=channels, classes=classes)
        file = write(tmp_path / "a.pth", content)
        flags = ("--data", data, *FLAGS, 5, "--run-dir", tmp_path / "b")
        refused("import", file, "fb", *flags, names=(file, name, "shape"))
    assert not (tmp_path / "b").exists()


def momentum(content, number, tensor):
    changed = {**content[0]["state"], number: {"momentum_buffer": tensor}}
    groups = [content[0]["param_groups"][0] | {"params": list(range(max(changed) + 1))}]
    return [{"state": changed, "param_groups": groups}, *content[1:]]


@pytest.mark.parametrize(
    ("change", "flags", "names"),
    [
        (lambda c: c[:4], (), ("4 entries",)),
        (lambda c: momentum(c, 0, torch.ones(3)), (), ("momentum of stem.0.weight", "[3]", "[16, 1, 3, 3]")),
        (lambda c: momentum(c, 99, torch.ones(3)), (), ("momentum of parameter 99",)),
        (lambda c: c, ("--optimizer", "AdamW"), ("momentum of SGD", "AdamW", "--init")),
        (lambda c: c, ("--init", "x.pth"), ("--init", "the parameters come from the checkpoint")),
        (lambda c: c, ("--data", "npz:nowhere.npz"), ("no file", "nowhere.npz")),
        (lambda c: c, ("--steps", "0"), ("--steps", "0")),
    ],
)
def test_what_cannot_be_imported_leaves_no_run(change, flags, names, data, content, tmp_path):
    file = write(tmp_path / "a.pth", change(content))
    refused("import", file, "fb", "--data", data, *FLAGS, 5, "--run-dir", tmp_path / "run", *flags, names=names)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_a_run_is_left_alone(data, content, tmp_path):
    assert imported(data, tmp_path / "run", content).code == 0
    before = (tmp_path / "run" / "environment.json").read_bytes()
    flags = ("--data", data, *FLAGS, 5, "--run-dir", tmp_path / "run")
    refused("import", tmp_path / "run.pth", "fb", *flags, names=("holds a run already", "--run-dir"))
    assert (tmp_path / "run" / "environment.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "names"),
    [((), ("import FILE",)), (("--data", "digits"), ("import FILE",)), (("none.pth",), ("there is no file none.pth",))],
)
def test_an_import_whose_first_argument_is_no_file_is_refused(arguments, names):
    refused("import", *arguments, names=names)


def test_an_unknown_recipe_is_refused(tmp_path):
    refused("import", tmp_path / "a.pth", "fb-cliped", names=("'fb-cliped'", "fb-clipped"))


def test_help_needs_no_file():
    answer = call("import", "--help")
    assert answer.code == 0
    assert "FILE [RECIPE]" in words(answer.out)


@pytest.mark.parametrize("from_list", [False, True])
def test_a_run_begins_with_the_parameters_of_a_file(from_list, data, content, tmp_path):
    file = write(tmp_path / "a.dat", content if from_list else content[1])
    flags = ("--data", data, "--model", "resnet8", *FLAGS, 2, "--init", file, "--run-dir", tmp_path / "run")
    assert call("train", "fb", *flags).code == 0
    _, state = checkpoint.read(RunDirectory(tmp_path / "run").checkpoints / "step-00000000.json")
    assert checkpoint.digest(state["model"]) == checkpoint.digest(dict(content[1]))
    assert state["optimizer"]["state"] == {}  # the parameters alone


def test_a_file_that_would_run_something_does_not_begin_a_run(data, tmp_path, monkeypatch):
    class Runs:
        def __reduce__(self):
            return os.system, ("touch ran",)

    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "a.pth", {"fc.bias": Runs()})
    flags = ("--data", data, "--run-dir", tmp_path / "run")
    refused("train", "fb", "--model", "resnet8", *FLAGS, 2, "--init", file, *flags, names=(file, "posix.system"))
    refused("import", file, "fb", *flags, names=(file, "posix.system"))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()
