"""`noiseless runs`, `diff`, `evaluate` with its flags, `predict` and `RUN@STEP` on real runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import arrays, call, copy, npz, read_config, refused, replace_final, run, small_recipe, write_config

from noiseless.data import load
from noiseless.exits import DIFFERENT
from noiseless.files import checkpoint
from noiseless.run.build import rebuild


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(place):
    return npz(place / "tiny.npz")


@pytest.fixture(scope="module")
def finished(place, data):
    """A finished run with a checkpoint of every step."""
    return run(place / "many" / "one", small_recipe(data), keep_every=1, checkpoint_seconds=0, evaluate_every=1)


@pytest.fixture(scope="module")
def other(place, data):
    """The same with another learning rate, so that the two part after the first step that moves."""
    recipe = small_recipe(data, lr=0.3)
    return run(place / "many" / "deeper" / "two", recipe, keep_every=1, checkpoint_seconds=0, evaluate_every=1)


def test_runs_are_listed_with_their_settings_and_state(finished, other, place, monkeypatch):
    stopped = copy(finished, place / "many" / "stopped")
    stopped.model.unlink()
    stopped.cut_rows(2)
    broken = copy(finished, place / "many" / "zz")
    write_config(broken.path, read_config(broken.path) | {"recipe": {}})
    listed = {row["run"]: row for row in json.loads(call("runs", place / "many", "--json").out)}
    assert list(listed) == ["deeper/two", "one", "stopped", "zz"]
    accuracy = finished.rows()[-1]["test_accuracy"]
    assert listed["one"] == {
        "run": "one", "path": str(finished.path), "data": finished.config().recipe.data.name, "model": "resnet2",
        "recipe": "fb-practice", "seed": 0, "step": 3, "steps": 3, "test_accuracy": accuracy, "state": "ended",
        "tags": [],
    }  # fmt: skip
    assert (listed["stopped"]["step"], listed["stopped"]["state"]) == (2, "stopped")
    assert "cannot be read" in listed["zz"]["problem"]
    monkeypatch.setenv("COLUMNS", "80")
    answer = call("runs", place / "many")
    assert answer.code == 0
    (line,) = [line for line in answer.out.splitlines() if line.startswith("one ")]
    assert line.split() == ["one", "tiny", "resnet2", "fb-practice", "3/3", f"{100 * accuracy:.2f}", "ended"]
    refused("runs", place / "none", names=("none", "no directory"))
    (place / "empty").mkdir()
    refused("runs", place / "empty", names=("holds no runs", "noiseless train"))


def test_a_run_does_not_differ_from_its_copy(finished, tmp_path):
    twin = copy(finished, tmp_path / "twin")
    answer = call("diff", finished.path, twin.path)
    assert answer.code == 0, answer
    assert answer.out.splitlines() == [
        "settings: equal", "records: equal in the 3 steps that both have", "parameters: equal after 0, 1, 2, 3 steps"
    ]  # fmt: skip


def test_diff_names_settings_step_and_tensor_where_runs_part(finished, other):
    answer = call("diff", finished.path, other.path, "--json")
    assert answer.code == DIFFERENT
    values = json.loads(answer.out)
    assert values["recipe"] == {"lr": [0.8, 0.3]}
    assert values["settings"] == {}
    # the first step has learning rate 0, so the rows of steps 0 and 1 differ in nothing but the rate of step 1
    assert values["record"]["first"]["step"] == 1
    assert values["record"]["first"]["columns"]["lr"] == [0.8, 0.3]
    states = [[checkpoint.at(r.checkpoints, step)["model"] for r in (finished, other)] for step in range(4)]
    step = next(k for k, (a, b) in enumerate(states) if any(not a[name].equal(b[name]) for name in a))
    first = next(name for name in states[step][0] if not states[step][0][name].equal(states[step][1][name]))
    assert (values["parameters"]["first"]["step"], values["parameters"]["first"]["name"]) == (step, first)
    assert values["parameters"]["steps"] == list(range(step + 1))
    text = call("diff", finished.path, other.path).out
    assert "--lr" in text and f"after {step} steps they differ in {first}" in text
    assert call("diff", f"{finished.path}@0", f"{other.path}@0").code == DIFFERENT  # the recipe differs
    refused("diff", f"{finished.path}@1", f"{other.path}@2", names=("different steps",))
    refused("diff", f"{finished.path}@9", f"{other.path}@9", names=("no checkpoint of step 9", "0, 1, 2, 3"))
    refused("diff", finished.path, names=("two runs, not 1",))


def test_diff_finds_a_changed_final_parameter(finished, tmp_path):
    changed = copy(finished, tmp_path / "changed")
    state = changed.state()
    name = list(state)[3]
    state[name] = state[name].clone()
    state[name].view(-1)[0] += 1
    replace_final(changed, state)  # without the last checkpoint
    first, second = copy(finished, tmp_path / "first"), changed
    for path in first.checkpoints.glob("step-00000003.*"):
        path.unlink()
    answer = call("diff", first.path, second.path)
    assert answer.code == DIFFERENT
    assert f"equal after 0, 1, 2 steps; after 3 steps they differ in {name} (1 of" in answer.out


def test_evaluate_a_step_by_class_and_as_json(finished):
    values = json.loads(call("evaluate", f"{finished.path}@1", "--json", "--per-class").out)
    (state,) = values["states"]
    assert values["step"] == 1
    row = finished.rows()[0]  # of step 0, evaluated after it
    assert state["test"]["accuracy"] == row["test_accuracy"]
    classes = state["test"]["classes"]
    labels = arrays()["y_test"]
    assert [row["images"] for row in classes] == np.bincount(labels).tolist()
    assert sum(row["correct"] for row in classes) == round(state["test"]["accuracy"] * len(labels))
    answer = call("evaluate", f"{finished.path}@1", "--per-class")
    assert "test images of each class" in answer.out
    assert "analysis/predictions-00000001.npz" in answer.out


def test_evaluate_on_other_data(finished, tmp_path):
    other = npz(tmp_path / "other.npz", **{name: arrays(seed=1)[name] for name in ("x_test", "y_test")})
    values = json.loads(call("evaluate", finished.path, "--data", other, "--json").out)
    own = json.loads(call("evaluate", finished.path, "--json").out)
    assert values["states"][0]["train"] == own["states"][0]["train"]  # the same training images, normalised alike
    model = rebuild(finished).model
    model.load_state_dict(finished.state())
    images = load(other)
    recipe = finished.config().recipe
    x = (images.x_test.float() / 255 - recipe.data.mean[0]) / recipe.data.std[0]
    with torch.no_grad():
        hits = int((model.eval()(x).argmax(1) == images.y_test).sum())
    assert values["states"][0]["test"]["accuracy"] == hits / len(images.y_test)
    colours = npz(tmp_path / "colours.npz", **{k: np.repeat(v[..., None], 3, -1) if k[0] == "x" else v
                                              for k, v in arrays().items()})  # fmt: skip
    refused("evaluate", finished.path, "--data", colours, names=("3 channels",))
    many = npz(tmp_path / "many.npz", y_train=np.arange(48) % 9)
    refused("evaluate", finished.path, "--data", many, names=("9 classes", "tells 4 apart"))


def test_predict_gives_class_and_probability_of_image_files(finished, tmp_path):
    pixels = arrays()["x_test"]
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels[number]).save(files[-1])
    rows = json.loads(call("predict", finished.path, *files, "--json").out)
    model = rebuild(finished).model
    model.load_state_dict(finished.state())
    recipe = finished.config().recipe
    x = (torch.from_numpy(pixels[:3, None]).float() / 255 - recipe.data.mean[0]) / recipe.data.std[0]
    with torch.no_grad():
        expected = model.eval()(x).double().softmax(1)
    assert [row["image"] for row in rows] == [str(file) for file in files]
    # one image at a time and three at once: float32 convolutions may sum in another order
    torch.testing.assert_close(torch.tensor([row["probabilities"] for row in rows], dtype=torch.float64), expected,
                               rtol=1e-4, atol=1e-6)  # fmt: skip
    assert [row["class"] for row in rows] == expected.argmax(1).tolist()
    answer = call("predict", f"{finished.path}@0", files[0])
    assert answer.code == 0 and str(files[0].name)[:1] in answer.out
    refused("predict", finished.path, tmp_path / "none.png", names=("none.png",))
    (tmp_path / "text.png").write_text("no image")
    refused("predict", finished.path, tmp_path / "text.png", names=("text.png", "cannot be read as an image"))


def test_digest_and_export_of_a_step(finished, tmp_path):
    state = checkpoint.at(finished.checkpoints, 2)["model"]
    assert call("digest", f"{finished.path}@2").out.split() == [checkpoint.digest(state)]
    assert call("digest", finished.path).out.split() == [checkpoint.digest(finished.state())]
    answer = call("export", f"{finished.path}@2", tmp_path / "exported")
    assert answer.code == 0, answer.err
    assert "after 2 steps" in answer.out and checkpoint.digest(state) in answer.out


def test_report_and_watch_take_a_directory_of_runs(finished, other, tmp_path):
    for number, directory in enumerate((finished, other)):
        copy(directory, tmp_path / "race" / "heats" / str(number))
    answer = call("report", tmp_path / "race")
    assert answer.code == 0, answer.err
    assert "reading 2 runs" in answer.out
    assert (tmp_path / "race" / "report.html").exists()
    assert call("watch", tmp_path / "race").out.count("fb-practice: resnet2") == 2
