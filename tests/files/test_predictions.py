"""The predictions of an ended run: of the evaluation in its last row, written before the run counts as ended."""

import json

import numpy as np
import pytest
import torch
from small_runs import CLASSES, TESTED, arrays, call, copy, prepare, record, resume, run, small_recipe

from noiseless.files import predictions
from noiseless.files.directory import RunDirectory
from noiseless.files.predictions import Predictions


def predict(directory, average=False, flips=False):
    """The class with the largest score for each test image, computed one at a time, and the labels."""
    experiment = prepare(directory.config().recipe)
    experiment.model.load_state_dict(directory.state(average))
    experiment.model.eval()
    images, labels = experiment.test.take(torch.arange(len(experiment.test)))
    classes = []
    with torch.no_grad():
        for x in images:
            p = experiment.model(x[None]).softmax(1)
            classes.append(int((p + experiment.model(x[None].flip(-1)).softmax(1) if flips else p).argmax()))
    return classes, labels.tolist()


def checked(directory, **evaluated):
    """Asserts that a run's predictions are of its final state and give its last row's accuracy; returns them."""
    saved = predictions.read(directory.path)
    assert (saved.predicted.tolist(), saved.target.tolist()) == predict(directory, **evaluated)
    assert saved.correct.mean() == pytest.approx(directory.rows()[-1]["test_accuracy"], abs=1e-12)
    return saved


@pytest.mark.parametrize(
    ("changes", "evaluated"),
    [({}, {}), ({"test_flips": True}, {"flips": True}), ({"ema": 0.5}, {"average": True})],
)
def test_predictions_are_of_the_last_evaluation(changes, evaluated, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, **changes), evaluate_every=2)
    saved = checked(directory, **evaluated)
    assert saved.target.tolist() == arrays()["y_test"].tolist()
    assert len(saved.predicted) == TESTED
    assert saved.predicted.max() < CLASSES


def test_with_a_validation_part_predictions_are_of_that_part(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb", validation=0.25, seed=3))
    held = prepare(directory.config().recipe).test.chosen
    assert checked(directory).target.tolist() == arrays()["y_train"][held].tolist()


def test_a_run_that_was_stopped_leaves_the_same_predictions(practice, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0, evaluate_every=2)
    assert not (directory.path / predictions.FILE).exists()
    resume(directory)
    file = predictions.FILE
    assert (directory.path / file).read_bytes() == (practice.path / file).read_bytes()


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5, "test_flips": True}])
def test_a_run_killed_between_its_last_row_and_its_end_gets_predictions_when_it_is_resumed(changes, data, tmp_path):
    undisturbed = run(tmp_path / "whole", small_recipe(data, **changes))
    killed = copy(undisturbed, tmp_path / "killed")
    for file in (killed.model, killed.average, killed.path / predictions.FILE):
        file.unlink(missing_ok=True)
    rows = killed.rows()
    resume(killed)
    assert killed.rows() == rows  # nothing was computed again
    assert record(killed) == record(undisturbed)
    file = predictions.FILE
    assert (killed.path / file).read_bytes() == (undisturbed.path / file).read_bytes()


def test_classes_are_stored_as_the_smallest_unsigned_integers(tmp_path):
    for largest, dtype in ((9, np.uint8), (255, np.uint8), (256, np.uint16), (70_000, np.uint32)):
        written = Predictions(np.array([0, 1], np.int64), np.array([largest, 1], np.int64))
        predictions.write(tmp_path, written)
        saved = predictions.read(tmp_path)
        assert (saved.predicted.dtype, saved.target.dtype) == (dtype, dtype)
        assert saved.correct.tolist() == [False, True]
        assert saved.target.tolist() == [largest, 1]
    assert [file.name for file in tmp_path.iterdir()] == [predictions.FILE]


BYTES = np.zeros(3, np.uint8)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"predicted": BYTES}, ("no array target",)),
        ({"predicted": BYTES, "target": BYTES[:2]}, ("3 predictions for 2 images",)),
        ({"predicted": BYTES, "target": BYTES[None]}, ("target must be", "[1, 3]")),
        ({"predicted": BYTES.astype(float), "target": BYTES}, ("predicted must be", "float64")),
        ({"predicted": BYTES[:0], "target": BYTES[:0]}, ("predicted must be", "[0]")),
        ({"predicted": BYTES.astype(object), "target": BYTES}, ("cannot be read", "pickle")),
        (b"", ("cannot be read",)),
        (b"junk", ("cannot be read",)),
        (None, ("has no predictions.npz",)),
    ],
)
def test_a_file_that_no_run_has_written_is_refused_with_the_command_that_writes_it(content, names, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / predictions.FILE).write_bytes(content)
    elif content is not None:
        np.savez(tmp_path / predictions.FILE, **content)
    with pytest.raises(ValueError, match=f"noiseless evaluate {tmp_path}") as caught:
        predictions.read(tmp_path)
    assert all(name in str(caught.value) for name in names), caught.value
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_off_is_refused(practice, tmp_path):
    content = (practice.path / predictions.FILE).read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / predictions.FILE).write_bytes(content[:length])
        with pytest.raises(ValueError, match="noiseless evaluate"):
            predictions.read(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "junk", "of other images"])
def test_evaluate_writes_what_is_missing_damaged_or_foreign(damage, practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    file = directory.path / predictions.FILE
    content = file.read_bytes()
    file.unlink()
    if damage == "junk":
        file.write_bytes(b"junk")
    elif damage == "of other images":
        predictions.write(directory.path, Predictions(BYTES, BYTES))
    answer = call("evaluate", directory.path)
    assert answer.code == 0, answer.err
    assert f"predictions: {file}" in answer.out
    assert file.read_bytes() == content


def test_evaluate_keeps_the_file_of_the_run(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    assert "predictions" not in call("evaluate", directory.path).out
    saved = predictions.read(directory.path)
    changed = saved.predicted.copy()
    changed[:2] = (changed[:2] + 1) % CLASSES
    predictions.write(directory.path, Predictions(changed, saved.target))
    answer = call("evaluate", directory.path)
    assert answer.code == 0
    assert "is left unchanged, but 2 of its predictions differ" in answer.out
    assert predictions.read(directory.path).predicted.tolist() == changed.tolist()


def test_evaluate_with_an_average_writes_the_predictions_of_the_average(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, ema=0.5))
    content = (directory.path / predictions.FILE).read_bytes()
    (directory.path / predictions.FILE).unlink()
    assert call("evaluate", directory.path).code == 0
    assert (directory.path / predictions.FILE).read_bytes() == content
    checked(directory, average=True)


def test_evaluate_of_a_run_under_way_writes_nothing(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0)
    assert call("evaluate", directory.path).code == 0
    assert not (directory.path / predictions.FILE).exists()


def test_evaluate_prints_its_result_where_the_file_cannot_be_written(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    (directory.path / predictions.FILE).unlink()
    (directory.path / predictions.FILE).mkdir()  # nobody can put a file there
    answer = call("evaluate", directory.path)
    assert answer.code == 0
    assert "predictions are not saved" in answer.out
    assert "test   loss" in answer.out


def test_predictions_are_written_before_the_run_has_ended(data, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("noiseless.files.parameters.write_parameters", stop)
    recipe = small_recipe(data, "fb", steps=1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", recipe)
    directory = RunDirectory(tmp_path / "run")
    assert not directory.model.exists()
    row = json.loads(directory.metrics.read_text())
    assert predictions.read(directory.path).correct.mean() == pytest.approx(row["test_accuracy"], abs=1e-12)
