"""benchmarks/cifar.py: trials and choices, what the arms of an experiment have in common, the ledger, stops."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from jobs import wait_until
from programs import Copy
from small_runs import count_lines, npz

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.recipes.flags import flag_values
from noiseless.recipes.recipe import Recipe

FREE = {"name", "lr", "weight_decay", "seed"}
"""fields that trials or seeds set"""
MAY_DIFFER = {
    "A": {"regime", "shuffle", "steps", "norm"},
    "A100": {"regime", "shuffle", "steps", "norm"},
    "B": {"regime", "shuffle", "steps"},
    "D": {"regime", "shuffle", "parts", "momentum", "nesterov", "optimizer", "optimizer_options"},
    "C": {"regime", "shuffle", "steps", "warmup", "horizon", "clip", "penalty", "full_penalty"},
    "N": {"steps", "model"},
}
"""fields that the arms of an experiment compare; all others, regularisers included, are equal"""


def test_arms_differ_only_in_what_is_compared(benchmark):
    arms = benchmark("cifararms")
    for experiment in arms.EXPERIMENTS:
        recipes = [flag_values(arm.recipe) for arm in experiment.arms]
        differing = {name for name in recipes[0] if len({str(recipe[name]) for recipe in recipes}) > 1}
        assert differing <= MAY_DIFFER[experiment.name] | FREE, experiment.name
        counts = {arm.count for arm in experiment.arms if arm.like is None}
        assert len(counts) == 1, experiment.name  # the same number of trials for all


def test_updates_and_passes_are_those_of_the_page(benchmark):
    arms = {arm.name: arm for e in benchmark("cifararms").EXPERIMENTS for arm in e.arms}

    def updates(name: str, trial: bool = False) -> int:
        arm = arms[name]
        recipe = arm.trials({})[0].recipe if trial else arm.recipe
        images = recipe.data.images or (45_000 if trial else 50_000)
        objective = recipe.objective
        updates_a_step = images // objective.block if objective.regime == "stochastic" else objective.parts
        return recipe.schedule.steps * updates_a_step

    for prefix in ("A", "A100"):
        for arm in ("mini", "mini-group", "full", "full-recut", "full-group"):
            assert updates(f"{prefix}-{arm}") == updates(f"{prefix}-{arm}", trial=True) == 200
    assert updates("B-full-200") == updates("B-mini-200-updates") == updates("B-mini-200-updates", trial=True) == 200
    assert updates("B-mini-100-updates") == 100
    assert arms["B-mini-400-passes"].recipe.schedule.steps == arms["B-full-400"].recipe.schedule.steps == 400
    assert all(arm.recipe.schedule.steps == 16 for name, arm in arms.items() if name.startswith("D-"))


def test_a_pilot_tries_rates_then_decays_and_chooses_the_best(benchmark):
    arms = benchmark("cifararms")
    arm = arms.Arm("a", Recipe(), {"images": 10}, (0.1, 0.2), (1.0, 3.0), seeds=(0, 1))
    experiment = arms.Experiment("e", (arm,))
    results: dict[str, float] = {}
    assert [run.name for run in experiment.ready(results)] == ["a-trial-lr0.1-wd1", "a-trial-lr0.2-wd1"]
    results |= {"a-trial-lr0.1-wd1": 0.5, "a-trial-lr0.2-wd1": 0.6}
    assert [run.name for run in experiment.ready(results)] == ["a-trial-lr0.2-wd3"]
    assert arm.chosen(results) is None
    results["a-trial-lr0.2-wd3"] = 0.55
    assert arm.chosen(results) == (0.2, 1.0)
    runs = experiment.ready(results)
    assert [run.name for run in runs] == ["a-seed0", "a-seed1"]
    recipes = [run.recipe for run in runs]
    assert {(r.optimizer.lr, r.optimizer.weight_decay, r.data.images) for r in recipes} == {(0.2, 1.0, None)}
    assert experiment.ready(results | {"a-seed0": 0.7, "a-seed1": 0.7}) == []


def test_further_arms_use_the_choice_of_another_and_run_after_all_seeds(benchmark):
    arms = benchmark("cifararms")
    first = arms.Arm("a", Recipe(), {}, (0.1,), (1.0,), seeds=(0, 1))
    further = arms.Arm("b", Recipe(), {}, (), (), like="a", seeds=(0, 1))
    other = arms.Arm("c", Recipe(), {}, (0.2,), (2.0,), seeds=(0, 1))
    results = {"a-trial-lr0.1-wd1": 0.5, "c-trial-lr0.2-wd2": 0.5}
    runs = arms.Experiment("e", (first, further, other)).ready(results)
    assert [run.name for run in runs] == ["a-seed0", "c-seed0", "a-seed1", "c-seed1", "b-seed0", "b-seed1"]
    assert {run.recipe.optimizer.lr for run in runs if run.arm == "b"} == {0.1}


def test_the_entries_of_the_ledger_are_runs_of_the_arms(benchmark):
    arms, ledger = benchmark("cifararms"), benchmark("ledger").Ledger(Path("benchmarks/results/cifar"))
    results = ledger.results()
    runs = [run for e in arms.EXPERIMENTS for run in _all_runs(e, results) if run.name in results]
    assert len(runs) >= 13  # two more are trials of rates that have left the grid
    assert {run.name: flags for run in runs if (flags := ledger.differing(run))} == {}


def _all_runs(experiment, results):
    """Trials and runs that are known from these results, finished ones included."""
    by_name = {arm.name: arm for arm in experiment.arms}
    for arm in experiment.arms:
        yield from arm.trials(results) if arm.like is None else []
        if chosen := by_name[arm.like or arm.name].chosen(results):
            yield from arm.runs(*chosen)


def test_a_removed_flag_is_compared_only_where_it_was_used(benchmark):
    ledger = benchmark("ledger")
    flat = flag_values(Recipe())
    assert ledger.recipe_flags(flat | {"input_moments": 1}) == ledger.recipe_flags(asdict(Recipe())) == flat
    assert ledger.recipe_flags(flat | {"input_moments": 3}) == flat | {"input_moments": 3}


@pytest.mark.parametrize("classes", [10, 100])
def test_predictions_are_packed_without_loss(benchmark, classes):
    ledger = benchmark("ledger")
    labels = np.random.default_rng(0).integers(0, classes, 10_000)
    text = ledger.packed(labels)
    assert np.array_equal(ledger.unpacked(text), labels)
    assert len(text) < 15_000


def _cifar(path: Path, data: str, steps: int, *start: str) -> Copy:
    return Copy(path, "benchmarks", data, path / "ledger", path / "runs", steps, *start, program="tiny_cifar")


def _ended(program: Copy) -> str:
    """What the program has printed when it ends without an error."""
    out, err = program.communicate(timeout=240)
    assert program.returncode == 0, out + err
    return out


def test_stopped_runs_are_resumed_and_those_in_the_ledger_are_not_run_again(benchmark, tmp_path):
    ledger = benchmark("ledger").Ledger(tmp_path / "ledger")
    data = npz(tmp_path / "tiny.npz")
    record = tmp_path / "runs" / "tiny-seed0" / "metrics.jsonl"
    started = _cifar(tmp_path, data, 400, "copies")
    wait_until(started, lambda: count_lines(record) > 20, (tmp_path / "out.txt").read_text)
    started.send_signal(signal.SIGTERM)
    assert '"stopped": true' in _ended(started)
    stopped_at = len(record.read_text().splitlines())
    assert stopped_at < 400
    assert list(ledger.results()) == ["tiny-trial-lr0.1-wd0.0005"]

    _ended(_cifar(tmp_path, data, 400, "copies"))
    assert set(ledger.results()) == {"tiny-trial-lr0.1-wd0.0005", "tiny-seed0"}
    entry = ledger.entry("tiny-seed0")
    directory = RunDirectory.open(tmp_path / "runs" / "tiny-seed0")
    assert entry["digest"] == checkpoint.digest(directory.state())
    assert entry["accuracy"] == directory.rows()[-1]["test_accuracy"]
    assert len(entry["metrics"]["step"]) == 200
    assert entry["metrics"]["step"][-1] == 399
    assert entry["recipe"] == json.loads(json.dumps(asdict(directory.config().recipe)))
    predicted = benchmark("ledger").unpacked(entry["predictions"])
    target = np.load(tmp_path / "tiny.npz")["y_test"]
    assert (predicted == target).mean() == entry["accuracy"]
    assert "predictions" not in ledger.entry("tiny-trial-lr0.1-wd0.0005")
    tested = [row["step"] for row in directory.rows() if "test_accuracy" in row]
    assert tested == [399]  # test images are evaluated once

    assert "start" not in _ended(_cifar(tmp_path, data, 400, "copies"))


def test_a_run_that_fails_is_reported_and_files_in_its_directory_are_kept(benchmark, tmp_path):
    data = npz(tmp_path / "tiny.npz")
    (tmp_path / "runs" / "tiny-trial-lr0.1-wd0.0005").mkdir(parents=True)
    (tmp_path / "runs" / "tiny-trial-lr0.1-wd0.0005" / "mine.txt").write_text("something of somebody's own")
    program = _cifar(tmp_path, data, 2)
    out, _ = program.communicate(timeout=240)
    assert program.returncode == 1
    assert "failed  tiny-trial-lr0.1-wd0.0005: exit 2" in out
    assert (tmp_path / "runs" / "tiny-trial-lr0.1-wd0.0005" / "mine.txt").exists()


def test_trials_use_no_seed_of_a_run(benchmark):
    arms = benchmark("cifararms")
    arm = arms.Arm("a", replace(Recipe(), seed=3), {}, (0.1,), (0.0,))
    (trial,) = arm.trials({})
    assert trial.recipe.seed == arms.PILOT_SEED
    assert trial.recipe.data.validation == arms.HELD_OUT
    assert [run.recipe.seed for run in arm.runs(0.1, 0.0)] == [0, 1, 2]
    assert not any(run.recipe.data.validation for run in arm.runs(0.1, 0.0))
