"""A race by one command: equal tuning on held-out images, then runs with the chosen settings, a table and figures."""

import csv
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from jobs import wait_until
from programs import Copy
from small_runs import arrays, call, npz, refused, words

from noiseless.files.directory import RunDirectory
from noiseless.study import contenders
from noiseless.study.contenders import CONTENDERS, SIZES
from noiseless.study.earlier import AXES
from noiseless.study.race import TUNING_SEED

BUDGETS, SEEDS, RATES, TUNED = (2, 3), 2, 2, ("sgd", "fb-regularized")
pytestmark = pytest.mark.usefixtures("unrendered")  # the first race, of the fixture, has figures


@pytest.fixture(autouse=True, scope="module")
def _two_sizes():
    """Two of the three block sizes are tried, which is a third fewer runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "small", SIZES["small"][:2])
        yield


def more_images(seed):
    """96 training images: more than the largest block."""
    return {name: np.concatenate((arrays(seed)[name], arrays(seed + 1)[name])) for name in ("x_train", "y_train")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz", **more_images(0))


def command(data, path, *more):
    return (
        "race", "--data", data, "--form", "small", "--model", "resnet2",
        "--contenders", ",".join((*TUNED, "aggregated")), "--budgets", ",".join(map(str, BUDGETS)), "--seeds", SEEDS,
        "--rates", RATES, "--tuning-seeds", 1, "--run-dir", path, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def race(data, tmp_path_factory):
    """The directory of a small race, and the command's output."""
    path = tmp_path_factory.mktemp("race") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        answer = call(*command(data, path))
    assert answer.code == 0, (answer.out, answer.err)
    return path, answer.out


def runs(path):
    return [RunDirectory(file.parent) for file in sorted(path.rglob("config.json"))]


def test_every_tuned_contender_has_the_same_number_of_tuning_runs(race):
    path, _ = race
    tuning = [run.config().recipe for run in runs(path / "tuning")]
    for name in TUNED:
        for budget in BUDGETS:
            trials = [recipe for recipe in tuning if recipe.name.startswith(f"{name}-{budget} ")]
            assert len(trials) == RATES * len(SIZES["small"])
            assert {recipe.objective.block for recipe in trials} == set(SIZES["small"])
    assert len(tuning) == len(TUNED) * len(BUDGETS) * RATES * len(SIZES["small"])


def test_tuning_holds_images_out_and_has_other_seeds(race):
    path, _ = race
    assert {(r.config().recipe.data.validation, r.config().recipe.seed) for r in runs(path / "tuning")} == {
        (0.25, TUNING_SEED)
    }
    finals = [run for run in runs(path) if "tuning" not in run.path.parts]
    assert {(run.config().recipe.data.validation, run.config().recipe.seed) for run in finals} == {(0.0, 0), (0.0, 1)}


def test_the_test_images_are_evaluated_once_after_the_last_step(race):
    path, _ = race
    for run in runs(path):
        tested = [row["step"] for row in run.rows() if "test_accuracy" in row]
        assert tested == [run.config().recipe.schedule.steps - 1]


def test_no_run_spends_more_than_its_budget(race):
    path, _ = race
    for run in runs(path):
        budget = int(run.config().recipe.name.split()[0].rpartition("-")[2])
        assert budget - 2 < run.rows()[-1]["passes"] <= budget


def test_the_choice_is_the_best_trial_and_the_race_runs_with_it(race):
    path, _ = race
    chosen = json.loads((path / "choices.json").read_text())
    assert [(choice["contender"], choice["passes"]) for choice in chosen] == [(n, b) for n in TUNED for b in BUDGETS]
    for choice in chosen:
        scores = {}
        for run in runs(path / "tuning" / f"{choice['contender']}-{choice['passes']}"):
            last = run.rows()[-1]
            scores[run.config().recipe.name.partition(" ")[2]] = (last["test_accuracy"], -last["test_loss"])
        assert choice["chosen"] == max(scores, key=scores.__getitem__)
        for trial in choice["trials"]:
            assert (trial["validation_accuracy"], -trial["validation_loss"]) == scores[trial["setting"]]
        final = RunDirectory(path / f"{choice['contender']}-{choice['passes']}" / "seed0").config().recipe
        grid = [tuple(map(float, trial["setting"].split()[1::2])) for trial in choice["trials"]]  # lr A decay B block C
        chosen_values = (final.optimizer.lr, final.optimizer.weight_decay, final.objective.block)
        ends = {}
        for name, value, column in zip(
            ("lr", "weight_decay", "block"), chosen_values, zip(*grid, strict=True), strict=True
        ):
            if min(column) < max(column) and value in (min(column), max(column)):
                ends[name] = "smallest" if value == min(column) else "largest"
        assert choice["at_edge"] == ends
        assert (
            choice["chosen"]
            == f"lr {final.optimizer.lr:g} decay {final.optimizer.weight_decay:g} block {final.objective.block}"
        )


def test_the_table_holds_mean_spread_and_n_of_the_runs(race):
    path, out = race
    with (path / "table.csv").open() as stream:
        rows = {(row["contender"], int(row["budget"])): row for row in csv.DictReader(stream)}
    assert set(rows) == {(name, budget) for name in (*TUNED, "aggregated") for budget in BUDGETS}
    for (name, budget), row in rows.items():
        by_seed = [RunDirectory(path / f"{name}-{budget}" / f"seed{seed}").rows() for seed in range(SEEDS)]
        accuracies = [of_seed[-1]["test_accuracy"] for of_seed in by_seed]
        assert float(row["test_accuracy_mean"]) == statistics.mean(accuracies)
        assert float(row["test_accuracy_std"]) == statistics.stdev(accuracies)
        assert float(row["seconds_mean"]) == statistics.mean(sum(r["seconds"] for r in of_seed) for of_seed in by_seed)
        assert row["n"] == str(SEEDS)
        shown = f"{100 * statistics.mean(accuracies):.2f} ± {100 * statistics.stdev(accuracies):.2f}"
        assert shown in (path / "table.md").read_text()
        assert shown.replace("± ", "±") in out
    assert all(len(line) <= 80 for line in out.splitlines() if name in line and "±" in line)


def test_there_is_a_figure_of_error_and_loss_over_passes_and_seconds(race):
    path, out = race
    for value in ("error", "loss"):
        for over in ("passes", "seconds"):
            file = path / f"test-{value}-over-{over}.png"
            assert file.read_bytes()[:4] == b"\x89PNG"
            assert str(file) in words(out)
            assert file.with_suffix(".csv").exists()


def test_the_same_command_runs_nothing_again_and_a_longer_one_only_the_new_runs(race, data):
    path, _ = race
    before = {run.path: run.model.stat().st_mtime_ns for run in runs(path)}
    assert call(*command(data, path)).code == 0
    assert {run.path: run.model.stat().st_mtime_ns for run in runs(path)} == before
    answer = call(*command(data, path, "--plan-only", "--seeds", SEEDS + 1))
    assert f"{len(BUDGETS)} of {len(BUDGETS) * (SEEDS + 1)}" in answer.out


def test_settings_chosen_at_one_budget_are_used_at_all(data, tmp_path):
    path = tmp_path / "race"
    answer = call(*command(data, path, "--tune-at", 2, "--contenders", "sgd", "--rates", 1, "--seeds", 1))
    assert answer.code == 0, answer.err
    assert [folder.name for folder in (path / "tuning").iterdir()] == ["sgd-2"]
    (chosen,) = json.loads((path / "choices.json").read_text())
    three = RunDirectory(path / "sgd-3" / "seed0").config().recipe
    assert (three.schedule.steps, chosen["chosen"]) == (
        3,
        f"lr {three.optimizer.lr:g} decay {three.optimizer.weight_decay:g} block {three.objective.block}",
    )


def test_settings_of_an_earlier_race_are_used_and_nothing_is_tuned(race, data, tmp_path):
    path, _ = race
    known, again = path / "choices.json", tmp_path / "again"
    answer = call(*command(data, again, "--choices", known, "--seeds", 1))
    assert answer.code == 0, answer.err
    assert not (again / "tuning").exists()
    assert json.loads((again / "choices.json").read_text()) == json.loads(known.read_text())
    for name in (*TUNED, "aggregated"):
        for budget in BUDGETS:
            first, second = (RunDirectory(directory / f"{name}-{budget}" / "seed0") for directory in (path, again))
            assert second.model.read_bytes() == first.model.read_bytes()
    assert str(known) in (again / "table.md").read_text()


def test_a_contender_that_was_not_in_the_earlier_race_is_tuned(race, data, tmp_path):
    path, _ = race
    known, again = tmp_path / "known.json", tmp_path / "again"
    of_sgd = [choice for choice in json.loads((path / "choices.json").read_text()) if choice["contender"] == "sgd"]
    known.write_text(json.dumps(of_sgd))
    answer = call(*command(data, again, "--choices", known, "--budgets", 2, "--seeds", 1))
    assert answer.code == 0, answer.err
    assert [folder.name for folder in (again / "tuning").iterdir()] == ["fb-regularized-2"]
    assert json.loads((again / "choices.json").read_text()) == [
        choice for choice in json.loads((path / "choices.json").read_text()) if choice["passes"] == 2
    ]


def test_choices_that_cannot_be_used_are_refused(race, data, tmp_path):
    path, _ = race
    file, run_dir = tmp_path / "mine.json", tmp_path / "race"
    (first, *_) = known = json.loads((path / "choices.json").read_text())

    def refuse(*names, more=()):
        refused(*command(data, run_dir, "--choices", file, *more), names=names)
        assert not run_dir.exists()

    refuse("--choices", file, "No such file")
    for broken in ("no json", '{"a": 1}', "[3]", "[{}]", json.dumps([first | {"setting": {"lr": 1}}])):
        file.write_text(broken)
        refuse("--choices", file, "not the choices.json of a race")
    file.write_text(json.dumps(known[:1]))  # sgd at the first budget
    refuse("setting of sgd at 2 passes, not at 3", "--tune-at")
    for name, value in (("block", "8"), ("block", True), ("lr", None)):
        file.write_text(json.dumps([first | {"setting": first["setting"] | {name: value}}]))
        refuse("not the choices.json of a race", name)
    for at_edge in (True, {"lr": "first"}, {"rate": "largest"}):
        file.write_text(json.dumps([first | {"at_edge": at_edge}]))
        refuse("not the choices.json of a race", file)
    file.write_text(json.dumps([first | {"setting": first["setting"] | {"block": -8}}]))
    refuse("block", "-8", more=("--tune-at", 2, "--contenders", "sgd"))


def test_a_race_that_was_stopped_continues_with_the_same_command(data, tmp_path):
    path = tmp_path / "race"
    longer = ("--model", "resnet8", "--budgets", 8)  # than it takes to send a signal
    arguments = command(data, path, *longer, "--contenders", "sgd", "--jobs", 1, "--rates", 1)
    program = Copy(tmp_path, *arguments)  # stopped when its first tuning run has ended
    wait_until(program, lambda: list(path.rglob("model.safetensors")), program.communicate)
    program.terminate()
    out, err = program.communicate(timeout=60)
    assert program.returncode == 130, (out, err)
    assert "run the same command again" in words(out)
    ended = {run.path: run.model.stat().st_mtime_ns for run in runs(path) if run.model.exists()}
    answer = call(*arguments)
    assert answer.code == 0, answer.err
    assert all(file.joinpath("model.safetensors").stat().st_mtime_ns == time_ns for file, time_ns in ended.items())
    assert (path / "sgd-8" / "seed1" / "model.safetensors").exists()


def test_a_setting_that_diverges_is_never_chosen(data, tmp_path, monkeypatch):
    monkeypatch.setattr(contenders, "FACTOR", 2.0**20)  # rates of 1e-7, 0.1 and 1e5
    path = tmp_path / "race"
    answer = call(*command(data, path, "--contenders", "aggregated,sgd", "--budgets", 2, "--seeds", 1, "--rates", 3))
    assert answer.code == 0, answer.err
    (chosen,) = json.loads((path / "choices.json").read_text())
    diverged = [trial for trial in chosen["trials"] if trial["validation_accuracy"] is None]
    assert diverged
    assert chosen["chosen"] not in {trial["setting"] for trial in diverged}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--contenders", "sdg"), ("unknown contender 'sdg'", "did you mean sgd")),
        (("--contenders", "sgd,sgd"), ("--contenders has a name twice", "sgd, sgd")),
        (("--budgets", "15;30"), ("--budgets", "15;30", "separated by commas")),
        (("--budgets", "0,15"), ("--budgets", "0,15", "at least 1")),
        (("--budgets", "1", "--contenders", "fb-regularized"), ("fb-regularized", "costs 2 passes", "budget of 1")),
        (("--seeds", "0"), ("--seeds", "at least 1")),
        (("--seeds", "1001"), ("--seeds", "at most 1000", "1001")),  # 1000 is the seed of tuning
        (("--rates", "0"), ("--rates", "at least 1")),
        (("--rates", "3000"), ("--rates", "at most 100", "3000")),  # 2**1500 is no float
        (("--jobs", "0"), ("--jobs", "at least 1")),
        (("--tune-at", "0"), ("--tune-at", "at least 1")),
        (("--validation", "1"), ("--validation", "between 0 and 1")),
        (("--data", "digit"), ("'digit'", "digits")),
        (("--model", "resnet19", "--contenders", "sgd"), ("'resnet19'", "resnet")),
    ],
)
def test_a_race_that_cannot_be_run_is_refused_before_it_writes(data, tmp_path, arguments, names):
    refused(*command(data, tmp_path / "race", *arguments), names=names)
    assert not (tmp_path / "race").exists()


def test_a_directory_with_another_race_is_refused(race, data):
    path, _ = race
    refused(*command(data, path, "--augment", "none"), names=(path, "augment", "--run-dir"))
    refused(*command(data, path, "--validation", "0.5"), names=(path, "validation", "--run-dir"))


def test_a_race_does_not_continue_with_other_images(tmp_path):
    data, path = npz(tmp_path / "own.npz", **more_images(0)), tmp_path / "race"
    one_seed = command(data, path, "--contenders", "aggregated", "--budgets", 1, "--seeds", 1)
    assert call(*one_seed).code == 0
    npz(tmp_path / "own.npz", **more_images(2))
    refused(*one_seed[:-1], 2, names=(path, "data"))
    assert not (path / "aggregated-1" / "seed1").exists()


def test_the_help_names_the_contenders():
    text = words(call("race", "--help").out)
    assert all(name in text for name in ("sgd", "adamw", "muon", "aggregated", "rows of the paper"))
    assert {"fb", "fb-clipped", "fb-practice"} <= CONTENDERS.keys()


def test_every_axis_at_the_edge_of_its_grid_is_named(race):
    path, out = race
    text = (path / "table.md").read_text()
    for choice in json.loads((path / "choices.json").read_text()):
        ends = ", ".join(f"{end} {AXES[name]}" for name, end in choice["at_edge"].items())
        assert "rate" in ends
        assert f"{choice['chosen']} ({ends})" in text
        assert f"{choice['chosen']} (edge of its grid: {ends})" in words(out)
    assert "aggregated | lr 0.03 decay 1 norm-block 8 |" in text  # not tuned: at no edge


OWN = """
from torch.optim import SGD

class Slow(SGD):
    pass
"""


def test_optimizers_of_ones_own_are_contenders(tmp_path, monkeypatch):
    many = {name: np.concatenate([arrays(seed)[name] for seed in range(4)]) for name in ("x_train", "y_train")}
    data = npz(tmp_path / "tiny.npz", **many)  # more than a block of 128
    (tmp_path / "race_own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    line = ("race", "--data", data, "--form", "small", "--model", "linear", "--budgets", 2, "--seeds", 1)
    line += ("--rates", 2, "--tuning-seeds", 1, "--contenders")
    answer = call(*line, "sgd,race_own:Slow@0.1,fb-race_own:Slow@0.2", "--run-dir", "race")
    assert answer.code == 0, answer.err
    choices = {choice["contender"]: choice for choice in json.loads(Path("race/choices.json").read_text())}
    assert list(choices) == ["sgd", "Slow", "fb-Slow"]
    assert {len(choice["trials"]) for choice in choices.values()} == {2 * len(SIZES["small"])}
    recipes = [run.config().recipe for run in runs(Path("race")) if "tuning" not in run.path.parts]
    kinds = {recipe.name: (recipe.optimizer.name, recipe.objective.regime) for recipe in recipes}
    assert kinds["Slow-2"] == ("race_own:Slow", "stochastic")
    assert kinds["fb-Slow-2"] == ("race_own:Slow", "full-batch")
    for name, problem in {
        "race_own:Slow": "needs a positive learning rate", "race_own:Slow@0": "race_own:Slow@0.001",
        "race_own:Slo@0.1": "did you mean Slow", "race_owm:Slow@0.1": "race_own", "race_own:Slow@x": "learning rate",
    }.items():  # fmt: skip
        refused(*line, name, "--run-dir", "other", names=(problem,))
    refused(*line, "race_own:Slow@0.1,race_own:Slow@0.2", "--run-dir", "other", names=("a name twice",))
