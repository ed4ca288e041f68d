"""A resumed run equals one that was never stopped, bit by bit: at every step, for optimizers with rich state too."""

import pytest
import torch
from small_runs import arrays, call, copy, files, npz, record, resume, run, small_recipe

from noiseless.files import checkpoint
from noiseless.objective.workers import Alone
from noiseless.run.build import rebuild
from noiseless.run.train import Interrupted, Progress, train

STEPS = 4
RECIPES = {
    "fb-practice": {},
    "aggregated": {"name": "aggregated", "norm_block": 8, "warmup": 0},
    "sgd": {"name": "sgd"},
    "switch": {"name": "sgd", "regime": "switch", "switch": 2, "statistics": "ema", "clip": 0.5},
    "noise": {"name": "fb-clipped", "additive_noise": 1e-3, "multiplicative_noise": 0.1, "copies": 2},
    "adamw": {"name": "fb-practice", "optimizer": "AdamW", "lr": 1e-2, "optimizer_options": "amsgrad=True"},
    "lbfgs": {
        "name": "fb", "optimizer": "LBFGS", "penalty": 0.0, "clip": None, "momentum": None, "nesterov": None,
        "weight_decay": None, "lr": 0.5, "optimizer_options": "max_iter=3,history_size=4",
    },
    "lbfgs-line-search": {
        "name": "fb", "optimizer": "LBFGS", "momentum": None, "lr": 1.0, "dtype": "float64",
        "optimizer_options": "max_iter=2,line_search_fn=strong_wolfe", "warmup": 0,
    },
    "adafactor": {"name": "fb", "optimizer": "Adafactor", "lr": 1e-2, "norm": "group"},
}  # fmt: skip


def recipe_of(kind, data):
    changes = {"steps": STEPS, "horizon": STEPS} | RECIPES[kind]
    return small_recipe(data, changes.pop("name", "fb-practice"), **changes)


@pytest.mark.parametrize("kind", RECIPES)
def test_resume_equals_never_stopped_at_every_step(kind, data, tmp_path):
    recipe = recipe_of(kind, data)
    digest, rows = record(run(tmp_path / "whole", recipe))
    assert len(rows) == STEPS
    assert all(row["parameter_norm"] > 0 for row in rows)
    for step in range(STEPS - 1):
        directory = run(tmp_path / f"stopped-{step}", recipe, stop_after=step)
        assert [row["step"] for row in directory.rows()] == list(range(step + 1))
        assert not directory.model.exists()
        assert resume(directory) == []
        assert record(directory) == (digest, rows), f"stopped after step {step}"


def test_a_run_stopped_again_and_again_is_the_same_run(practice, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0, evaluate_every=2)
    done = []
    experiment = rebuild(directory, Alone(lambda: bool(done)))
    with pytest.raises(Interrupted, match="stopped after step 1; go on with: noiseless resume"):
        train(experiment, directory, Progress(on_row=done.append))
    resume(directory)
    assert record(directory) == record(practice)


def test_rows_after_the_newest_checkpoint_are_computed_again(practice, data, tmp_path):
    """A process that is killed leaves rows after its newest checkpoint, and the last of them may be cut off."""
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0, evaluate_every=2)
    with directory.metrics.open("a") as file:
        file.write('{"step": 1, "passes": 4.0}\n{"step": 2, "pas')
    resume(directory)
    assert record(directory) == record(practice)


def test_a_run_killed_before_its_first_checkpoint_starts_again(practice, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0, evaluate_every=2)
    for path in directory.checkpoints.iterdir():
        path.unlink()
    directory.metrics.unlink()
    resume(directory)
    assert record(directory) == record(practice)


def test_a_run_starts_from_the_initial_parameters_in_a_file(practice, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, init=str(practice.model)), stop_after=0, keep=9)
    _, state = checkpoint.read(directory.checkpoints / "step-00000000.json")
    assert all(torch.equal(tensor, practice.state()[name]) for name, tensor in state["model"].items())


def test_initial_parameters_in_float64_are_not_rounded(data, tmp_path):
    first = run(tmp_path / "first", small_recipe(data, "fb", dtype="float64", steps=2))
    second = run(tmp_path / "second", small_recipe(data, "fb", dtype="float64", init=str(first.model)), 0, keep=9)
    _, state = checkpoint.read(second.checkpoints / "step-00000000.json")
    assert checkpoint.digest(state["model"]) == checkpoint.digest(first.state())


def test_a_resumed_run_does_not_need_the_file_it_began_from(practice, data, tmp_path):
    init = tmp_path / "init.safetensors"
    init.write_bytes(practice.model.read_bytes())
    recipe = small_recipe(data, init=str(init))
    expected = record(run(tmp_path / "whole", recipe))
    directory = run(tmp_path / "run", recipe, stop_after=0)
    init.unlink()
    resume(directory)
    assert record(directory) == expected


def test_a_run_with_initial_parameters_killed_before_its_first_checkpoint_does_not_start_from_others(
    practice, data, tmp_path
):
    """config.json is written before the first checkpoint: a process killed in between leaves config.json alone."""
    recipe = small_recipe(data, init=str(practice.model))
    expected = record(run(tmp_path / "whole", recipe))
    directory = run(tmp_path / "run", recipe, stop_after=0)
    for path in directory.checkpoints.iterdir():
        path.unlink()
    directory.metrics.unlink()
    resume(directory)
    assert record(directory) == expected


def test_the_resume_command_prints_what_it_does(practice, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=1, evaluate_every=2)
    answer = call("resume", directory.path)
    assert (answer.code, answer.err) == (0, "")
    assert str(directory.path / "report.html") in answer.out
    assert record(directory) == record(practice)
    before = files(directory.path)
    again = call("resume", directory.path)
    assert again.code == 0
    assert "has ended" in again.out
    after = files(directory.path)
    assert {name for name in after if after[name] != before.get(name)} <= {"lock"}


def test_resume_refuses_data_that_have_changed(tmp_path):
    data = npz(tmp_path / "tiny.npz")
    directory = run(tmp_path / "run", small_recipe(data), stop_after=1)
    npz(tmp_path / "tiny.npz", x_test=arrays(seed=5)["x_test"])
    before = files(directory.path)
    answer = call("resume", directory.path)
    assert answer.code == 2
    assert "tiny.npz has changed" in answer.err
    assert "Traceback" not in answer.err
    npz(tmp_path / "tiny.npz")  # put back, it goes on
    assert files(directory.path).keys() == before.keys()
    assert call("resume", directory.path).code == 0


@pytest.mark.parametrize("remaining", range(4))
def test_a_resume_completes_the_rows_after_the_checkpoint_and_names_the_lost_ones_before_it(
    remaining, practice, tmp_path
):
    """Rows before the newest checkpoint cannot be computed again from it: a gap in the record needs a message."""
    directory = copy(practice, tmp_path / "run")
    directory.model.unlink()
    (directory.checkpoints / "step-00000003.json").unlink()
    (directory.checkpoints / "step-00000003.safetensors").unlink()
    lines = directory.metrics.read_text().splitlines(keepends=True)
    directory.metrics.write_text("".join(lines[:remaining]))
    messages = resume(directory)
    # two steps are done in the newest checkpoint, so step 2 alone is computed again
    lost = max(0, 2 - remaining)
    expected = f"{directory.metrics} lacks {lost} of the 2 rows before step 2; what is lost cannot be written again"
    assert messages == ([expected] if lost else [])
    digest, rows = record(practice)
    assert record(directory) == (digest, rows[: min(remaining, 2)] + rows[2:])
