"""noiseless export: a run's model with a card whose statements are true of the run."""

import json
import shlex

import pytest
import torch
import yaml
from published_files import parts, write
from small_runs import arrays, call, npz, refused, run, small_recipe

from noiseless import from_pretrained
from noiseless.exchange.pretrained import describe, from_run
from noiseless.files.directory import RunDirectory
from noiseless.recipes.flags import with_flags


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    return run(tmp_path_factory.mktemp("finished") / "run", small_recipe(data, "fb-regularized", seed=7))


def card(path):
    head, text = (path / "README.md").read_text().split("---\n", 2)[1:]
    return yaml.safe_load(head), text


def test_an_exported_model_has_the_accuracy_of_its_run_and_a_card(finished, tmp_path):
    answer = call("export", finished.path, tmp_path / "model", "--license", "mit")
    assert answer.code == 0, answer.err
    (digest,) = call("digest", finished.path).out.split()
    assert answer.out.rstrip().endswith(digest)
    model, files = from_pretrained(tmp_path / "model"), arrays()
    images = torch.from_numpy(files["x_test"])[:, None]
    with torch.no_grad():
        right = model(describe(tmp_path / "model").normalise(images)).argmax(1) == torch.from_numpy(files["y_test"])
    accuracy = right.double().mean().item()
    assert accuracy == finished.rows()[-1]["test_accuracy"]
    head, text = card(tmp_path / "model")
    assert head["license"] == "mit"
    assert head["metrics"] == ["accuracy"]
    (entry,) = head["model-index"]
    (result,) = entry["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": accuracy}]
    assert result["dataset"]["name"] == "npz"
    recorded = json.loads((finished.path / "environment.json").read_text())
    for fact in (
        f"Test accuracy {accuracy:.2%}", "20 test images", "n = 1", "48 training images", "| seed | 7 |",
        "| steps | 3 |", "data | npz:tiny.npz,", "| passes over the data | 6 |",
        recorded["data_sha256"], digest, "fb-regularized",
        shlex.join(recorded["command"]), f"torch {recorded['packages']['torch']}",
    ):  # fmt: skip
        assert fact in text, fact


def test_a_run_that_has_not_ended_is_exported_as_unfinished(data, tmp_path):
    unfinished = run(tmp_path / "run", small_recipe(data, "fb", steps=9), stop_after=3)
    answer = call("export", unfinished.path, tmp_path / "model")
    assert answer.code == 0, answer.err
    assert "has not ended" in answer.out
    head, text = card(tmp_path / "model")
    assert head["license"] == "unknown"
    assert "| steps | 4 of 9 |" in text
    assert "| passes over the data | 4 |" in text


def test_an_import_is_exported_with_its_origin(data, tmp_path):
    file = write(tmp_path / "theirs.pth", parts(step=3))
    flags = ("--data", data, "--block", 16, "--threads", 1, "--steps", 3)
    assert call("import", file, "fb", *flags, "--run-dir", tmp_path / "run").code == 0
    assert call("export", tmp_path / "run", tmp_path / "model").code == 0
    _, text = card(tmp_path / "model")
    assert "| begun from | the checkpoint theirs.pth" in text
    assert "imported at step 3" in text
    assert "| steps | 3, 3 of them before the import |" in text
    assert str(tmp_path) not in text.partition("## To repeat it")[0]  # a card names no directories
    assert "| passes over the data | not recorded |" in text
    assert RunDirectory(tmp_path / "run").rows() == []


def test_an_exported_model_initialises_another_run(finished, tmp_path):
    assert call("export", finished.path, tmp_path / "model").code == 0
    recipe = finished.config().recipe
    init = with_flags(recipe, init=str(tmp_path / "model" / "model.safetensors"), steps=1, lr=1e-9)
    begun = run(tmp_path / "run", init)
    assert torch.allclose(begun.state()["fc.weight"], finished.state()["fc.weight"], atol=1e-6)


def test_what_cannot_be_exported_is_refused(finished, data, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    refused("export", finished.path, tmp_path / "full", names=("not an empty directory",))
    refused("export", tmp_path / "full", tmp_path / "model", names=("is not a run",))
    assert not (tmp_path / "model").exists()


def test_a_linear_model_is_exported_with_the_size_of_its_images(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb", model="linear"))
    answer = call("export", directory.path, tmp_path / "model")
    assert answer.code == 0, answer.err
    state = directory.state()
    for model in (from_pretrained(tmp_path / "model"), from_run(directory.path)):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert describe(tmp_path / "model").size == (8, 8)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for size, message in (([8], "size must be the height and width"), ([10**6, 10**6], "cannot hold")):
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"size": size}))
        with pytest.raises(ValueError, match=message):
            from_pretrained(tmp_path / "model")
