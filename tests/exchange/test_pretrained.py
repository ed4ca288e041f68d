"""Saved models: a directory is read back to the bit, or refused."""

import dataclasses
import json
import signal

import copies
import killing
import pytest
import small_runs
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import copy, run, small_recipe

from noiseless import from_pretrained, models, save_pretrained
from noiseless.exchange.description import Description, description_of
from noiseless.exchange.pretrained import describe, from_run
from noiseless.files import checkpoint
from noiseless.models.form import CHOICES


def described(**changes):
    return Description(**({"model": "resnet8", "channels": 1, "classes": 4, "mean": [0.5], "std": [0.25]} | changes))


def moved(description, seed=3):
    """A model of that description, with statistics that are not the initial ones."""
    model = models.build(description.model, description.channels, description.classes, description.form, seed)
    model(torch.rand(8, description.channels, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return model


@pytest.fixture
def saved(tmp_path):
    save_pretrained(moved(described()), tmp_path / "model", described())
    return tmp_path / "model"


def damaged(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v != "lacking"}))


@settings(max_examples=8, deadline=None)
@given(
    norm=st.sampled_from(["batch", "group", "none"]),
    channels=st.integers(1, 3),
    classes=st.integers(1, 5),
    double=st.booleans(),
)
def test_a_model_is_read_back_to_the_bit(norm, channels, classes, double, tmp_path_factory):
    description = described(channels=channels, classes=classes, form=models.Form(norm=norm), mean=None, std=None)
    model = moved(description).to(torch.float64 if double else torch.float32).train()
    path = tmp_path_factory.mktemp("saved") / "deep" / "model"
    sha256 = save_pretrained(model, path, description)
    loaded = from_pretrained(str(path))
    assert not loaded.training
    assert model.training  # not changed
    assert sha256 == checkpoint.digest(loaded.state_dict()) == checkpoint.digest(model.state_dict())
    assert describe(path) == description
    x = torch.rand(2, channels, 8, 8, dtype=torch.float64 if double else torch.float32)
    assert torch.equal(loaded(x), model.eval()(x))


def test_a_card_describes_the_model(saved):
    head, text = (saved / "README.md").read_text().split("---\n")[1:]
    head = yaml.safe_load(head)
    assert (head["license"], head["library_name"]) == ("unknown", "noiseless")
    assert {"image-classification", "resnet8"} <= set(head["tags"])
    assert json.loads((saved / "config.json").read_text())["sha256"] in text
    assert "1 channel and 4 classes" in text


def test_images_are_normalised_as_the_description_says():
    images = torch.arange(2 * 1 * 2 * 2, dtype=torch.uint8).reshape(2, 1, 2, 2) * 30
    expected = (images.double() / 255 - 0.5) / 0.25
    torch.testing.assert_close(described().normalise(images).double(), expected, rtol=0, atol=1e-6)  # float32
    for wrong in (images.float(), images[0], images.expand(2, 3, 2, 2)):
        with pytest.raises(ValueError, match=r"uint8 \[n, 1, H, W\]"):
            described().normalise(wrong)
    with pytest.raises(ValueError, match="not known"):
        described(mean=None).normalise(images)


def test_a_call_that_was_killed_is_repeated(saved, tmp_path, monkeypatch):
    place, control = tmp_path / "killed", tmp_path / "control"
    control.mkdir()
    monkeypatch.setenv(killing.FOLDER, str(control))

    def killed():
        killing.install()
        save_pretrained(moved(described(), 4), place, described())

    for at in (3, 5, 9, 12):  # each is killed in another file, and begins where the one before was killed
        killing.plan(killing.Plan(str(place), at))
        assert copies.execute(killed, tmp_path).code == -signal.SIGKILL
    (place / "notes").write_text("mine")
    with pytest.raises(ValueError, match="not an empty directory"):
        save_pretrained(moved(described()), place, described())
    (place / "notes").unlink()
    save_pretrained(moved(described()), place, described())
    assert small_runs.files(place) == small_runs.files(saved)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"model": "resnet20"}, "not of this model"),
        ({"classes": 5}, r"fc\.weight has shape \[4, 64\], this model's has \[5, 64\]"),
        ({"model": "resnet9"}, "unknown model 'resnet9'"),
        ({"form": models.Form(norm="none")}, "not of this model"),
    ],
)
def test_a_description_of_another_model_is_refused(changes, names, tmp_path):
    with pytest.raises(ValueError, match=names):
        save_pretrained(moved(described()), tmp_path / "model", described(**changes))
    assert not (tmp_path / "model").exists()


def test_nothing_is_written_over(saved, tmp_path):
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="not an empty directory"):
        save_pretrained(moved(described(), 4), saved, described())
    assert (saved / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("a")
    with pytest.raises(ValueError, match="not an empty directory"):
        save_pretrained(moved(described()), tmp_path / "file", described())
    mixed = moved(described())
    mixed.fc.double()
    with pytest.raises(ValueError, match=r"several dtypes, torch\.float32, torch\.float64"):
        save_pretrained(mixed, tmp_path / "mixed", described())


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"library": "other"}, "another library"),
        ({"version": 2}, "version 2"),
        ({"sha256": "0" * 64}, "does not belong to"),
        ({"model": "resnet9"}, "unknown model"),
        ({"model": "resnet20"}, "not of this model"),
        ({"classes": 0}, "positive whole"),
        ({"channels": "3"}, "positive whole"),
        ({"form": {"norm": "bath"}}, "unknown norm 'bath'"),
        ({"form": {"colour": 1}}, "damaged or of another version"),
        ({"form": 3}, "damaged or of another version"),
        ({"mean": [0.5, 0.5]}, "mean must have a number for each channel"),
        ({"dtype": "float8"}, "dtype must be float32 or float64, not 'float8'"),
        ({"options": []}, "options"),
        ({"stray": 1}, "stray missing or unknown"),
        ({"std": "lacking"}, "std missing or unknown"),
    ],
)
def test_a_config_of_another_library_or_version_is_refused(changes, names, saved):
    damaged(saved, **changes)
    with pytest.raises(ValueError, match=names) as caught:
        from_pretrained(saved)
    if "model" not in changes:
        assert "config.json" in str(caught.value)


@pytest.mark.parametrize(("name", "names"), [("config.json", "holds no model"), ("model.safetensors", "no file")])
def test_a_directory_that_lacks_a_file_is_refused(name, names, saved):
    (saved / name).unlink()
    with pytest.raises(ValueError, match=names):
        from_pretrained(saved)


def test_damaged_files_are_refused(saved, tmp_path):
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        from_pretrained(saved)
    (saved / "model.safetensors").write_bytes(content)
    (saved / "config.json").write_text('{"library": ')
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        from_pretrained(saved)
    with pytest.raises(ValueError, match="holds no model"):
        from_pretrained(tmp_path / "nowhere")


def test_a_run_gives_its_model_at_its_end_and_before(practice, data, tmp_path):
    model = from_run(practice.path)
    assert not model.training
    assert checkpoint.digest(model.state_dict()) == checkpoint.digest(practice.state())
    begun = copy(practice, tmp_path / "run")
    begun.model.unlink()
    (begun.checkpoints / "step-00000003.json").unlink()
    (begun.checkpoints / "step-00000003.safetensors").unlink()
    _, state = checkpoint.read(begun.checkpoints / "step-00000002.json")
    assert checkpoint.digest(from_run(begun.path).state_dict()) == checkpoint.digest(state["model"])
    double = run(tmp_path / "double", small_recipe(data, "fb", steps=1, dtype="float64"))
    assert checkpoint.digest(from_run(double.path).state_dict()) == checkpoint.digest(double.state())
    with pytest.raises(ValueError, match="is not a run"):
        from_run(tmp_path)


EVERY_CHOICE = [(name, value) for name, choices in CHOICES.items() for value in choices]


def test_the_channels_of_a_recipe_are_described(data):
    description = description_of(small_recipe(data, mean=(0.1, 0.3), std=(0.2, 0.4)), 4)
    assert (description.model, description.channels, description.classes) == ("resnet2", 2, 4)
    assert (description.mean, description.std) == ((0.1, 0.3), (0.2, 0.4))


@pytest.mark.parametrize(("name", "value"), EVERY_CHOICE)
def test_every_choice_of_a_recipes_form_is_described_and_read_back(name, value, data, tmp_path):
    description = description_of(small_recipe(data, mean=(0.1,), std=(0.2,), **{name: value}), 4)
    fields = {field.name: getattr(description.form, field.name) for field in dataclasses.fields(models.Form)}
    defaults = {field.name: field.default for field in dataclasses.fields(models.Form)}
    assert fields == defaults | {name: value}
    save_pretrained(moved(description), tmp_path / "model", description)
    assert describe(tmp_path / "model").form == description.form


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"channels": 10**30, "mean": None, "std": None},
            f"a model of {10**30} channels and 4 classes, which",
        ),
        ({"classes": 65}, r"describes a model of 1 channels and 65 classes, which model\.safetensors beside it"),
        ({"mean": [None]}, "mean must have a number for each channel"),
    ],
)
def test_a_described_model_that_its_parameters_cannot_hold_is_not_built(changes, problem, saved):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=problem):
        from_pretrained(saved)
