"""A race by one command: equal tuning on held-out images, then runs with what was chosen, a table and figures."""

import csv
import json
import statistics
import time

import numpy as np
import pytest
from small_runs import arrays, call, npz, refused, start_program, words

from noiseless.files.directory import RunDirectory
from noiseless.study import contenders
from noiseless.study.contenders import CONTENDERS, SIZES
from noiseless.study.earlier import AXES
from noiseless.study.race import TUNING_SEED

BUDGETS, SEEDS, RATES, TUNED = (2, 3), 2, 2, ("sgd", "fb-regularized")


def more_images(seed):
    """96 training images: more than the largest block."""
    return {name: np.concatenate((arrays(seed)[name], arrays(seed + 1)[name])) for name in ("x_train", "y_train")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz", **more_images(0))


def command(data, path, *more):
    return (
        "race", "--data", data, "--form", "small", "--model", "resnet8",
        "--contenders", ",".join((*TUNED, "aggregated")), "--budgets", ",".join(map(str, BUDGETS)), "--seeds", SEEDS,
        "--rates", RATES, "--tuning-seeds", 1, "--run-dir", path, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def race(data, tmp_path_factory):
    """The directory of a small race, and what the command has printed."""
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
            own = [recipe for recipe in tuning if recipe.name.startswith(f"{name}-{budget} ")]
            assert len(own) == RATES * len(SIZES["small"])
            assert {recipe.objective.block for recipe in own} == set(SIZES["small"])
    assert len(tuning) == len(TUNED) * len(BUDGETS) * RATES * len(SIZES["small"])


def test_tuning_holds_images_out_and_has_seeds_of_its_own(race):
    path, _ = race
    assert {(r.config().recipe.data.validation, r.config().recipe.seed) for r in runs(path / "tuning")} == {
        (0.25, TUNING_SEED)
    }
    finals = [run for run in runs(path) if "tuning" not in run.path.parts]
    assert {(run.config().recipe.data.validation, run.config().recipe.seed) for run in finals} == {(0.0, 0), (0.0, 1)}


def test_the_test_images_are_asked_once_after_the_last_step(race):
    path, _ = race
    for run in runs(path):
        tested = [row["step"] for row in run.rows() if "test_accuracy" in row]
        assert tested == [run.config().recipe.schedule.steps - 1]


def test_no_run_spends_more_than_its_budget(race):
    path, _ = race
    for run in runs(path):
        budget = int(run.config().recipe.name.split()[0].rpartition("-")[2])
        assert budget - 2 < run.rows()[-1]["passes"] <= budget


def test_the_choice_is_the_best_of_what_was_tried_and_the_race_runs_with_it(race):
    path, _ = race
    chosen = json.loads((path / "choices.json").read_text())
    assert [(each["contender"], each["passes"]) for each in chosen] == [(n, b) for n in TUNED for b in BUDGETS]
    for each in chosen:
        found = {}
        for run in runs(path / "tuning" / f"{each['contender']}-{each['passes']}"):
            last = run.rows()[-1]
            found[run.config().recipe.name.partition(" ")[2]] = (last["test_accuracy"], -last["test_loss"])
        assert each["chosen"] == max(found, key=found.__getitem__)
        for trial in each["trials"]:
            assert (trial["validation_accuracy"], -trial["validation_loss"]) == found[trial["setting"]]
        final = RunDirectory(path / f"{each['contender']}-{each['passes']}" / "seed0").config().recipe
        # two rates: the choice is one of both ends
        assert each["at_edge"]["lr"] == (
            "largest" if final.optimizer.lr == CONTENDERS[each["contender"]].recipe.optimizer.lr * 2 else "smallest"
        )
        assert (each["at_edge"].get("block") == "largest") == (final.objective.block == max(SIZES["small"]))
        assert ("weight_decay" in each["at_edge"]) <= (each["contender"] == "sgd")  # the paper's rows keep their decay
        assert (
            each["chosen"]
            == f"lr {final.optimizer.lr:g} decay {final.optimizer.weight_decay:g} block {final.objective.block}"
        )


def test_the_table_holds_mean_spread_and_n_of_the_runs(race):
    path, out = race
    with (path / "table.csv").open() as stream:
        rows = {(row["contender"], int(row["budget"])): row for row in csv.DictReader(stream)}
    assert set(rows) == {(name, budget) for name in (*TUNED, "aggregated") for budget in BUDGETS}
    for (name, budget), row in rows.items():
        found = [RunDirectory(path / f"{name}-{budget}" / f"seed{seed}").rows() for seed in range(SEEDS)]
        accuracies = [each[-1]["test_accuracy"] for each in found]
        assert float(row["test_accuracy_mean"]) == statistics.mean(accuracies)
        assert float(row["test_accuracy_std"]) == statistics.stdev(accuracies)
        assert float(row["seconds_mean"]) == statistics.mean(sum(r["seconds"] for r in each) for each in found)
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


def test_the_same_command_runs_nothing_again_and_a_longer_one_what_is_new(race, data):
    path, _ = race
    before = {run.path: run.model.stat().st_mtime_ns for run in runs(path)}
    assert call(*command(data, path)).code == 0
    assert {run.path: run.model.stat().st_mtime_ns for run in runs(path)} == before
    answer = call(*command(data, path, "--plan-only", "--seeds", SEEDS + 1))
    assert f"{len(BUDGETS)} of {len(BUDGETS) * (SEEDS + 1)}" in answer.out


def test_settings_chosen_at_one_budget_serve_all(data, tmp_path):
    path = tmp_path / "race"
    answer = call(*command(data, path, "--tune-at", 2, "--contenders", "sgd", "--rates", 1, "--seeds", 1))
    assert answer.code == 0, answer.err
    assert [each.name for each in (path / "tuning").iterdir()] == ["sgd-2"]
    (chosen,) = json.loads((path / "choices.json").read_text())
    three = RunDirectory(path / "sgd-3" / "seed0").config().recipe
    assert (three.schedule.steps, chosen["chosen"]) == (
        3,
        f"lr {three.optimizer.lr:g} decay {three.optimizer.weight_decay:g} block {three.objective.block}",
    )


def test_settings_of_an_earlier_race_are_taken_and_nothing_is_tuned(race, data, tmp_path):
    path, _ = race
    known, again = path / "choices.json", tmp_path / "again"
    answer = call(*command(data, again, "--choices", known, "--seeds", 1))
    assert answer.code == 0, answer.err
    assert not (again / "tuning").exists()
    assert json.loads((again / "choices.json").read_text()) == json.loads(known.read_text())
    for name in (*TUNED, "aggregated"):
        for budget in BUDGETS:
            first, second = (RunDirectory(place / f"{name}-{budget}" / "seed0") for place in (path, again))
            assert second.model.read_bytes() == first.model.read_bytes()
    assert str(known) in (again / "table.md").read_text()


def test_who_was_not_in_the_earlier_race_is_tuned(race, data, tmp_path):
    path, _ = race
    known, again = tmp_path / "known.json", tmp_path / "again"
    mine = [each for each in json.loads((path / "choices.json").read_text()) if each["contender"] == "sgd"]
    known.write_text(json.dumps(mine))
    answer = call(*command(data, again, "--choices", known, "--budgets", 2, "--seeds", 1))
    assert answer.code == 0, answer.err
    assert [each.name for each in (again / "tuning").iterdir()] == ["fb-regularized-2"]
    assert json.loads((again / "choices.json").read_text()) == [
        each for each in json.loads((path / "choices.json").read_text()) if each["passes"] == 2
    ]


def test_choices_that_do_not_serve_are_refused(race, data, tmp_path):
    path, _ = race
    mine, place = tmp_path / "mine.json", tmp_path / "race"
    (first, *_) = known = json.loads((path / "choices.json").read_text())

    def refuse(*names, more=()):
        refused(*command(data, place, "--choices", mine, *more), names=names)
        assert not place.exists()

    refuse("--choices", mine, "No such file")
    for broken in ("no json", '{"a": 1}', "[3]", "[{}]", json.dumps([first | {"setting": {"lr": 1}}])):
        mine.write_text(broken)
        refuse("--choices", mine, "not the choices.json of a race")
    mine.write_text(json.dumps(known[:1]))  # sgd at the first budget
    refuse("setting of sgd at 2 passes, not at 3", "--tune-at")
    for name, value in (("block", "8"), ("block", True), ("lr", None)):
        mine.write_text(json.dumps([first | {"setting": first["setting"] | {name: value}}]))
        refuse("not the choices.json of a race", name)
    for at_edge in (True, {"lr": "first"}, {"rate": "largest"}):
        mine.write_text(json.dumps([first | {"at_edge": at_edge}]))
        refuse("not the choices.json of a race", mine)
    mine.write_text(json.dumps([first | {"setting": first["setting"] | {"block": -8}}]))
    refuse("block", "-8", more=("--tune-at", 2, "--contenders", "sgd"))


def test_a_race_that_was_stopped_goes_on(data, tmp_path):
    path = tmp_path / "race"
    arguments = command(data, path, "--budgets", 12, "--contenders", "sgd", "--jobs", 1, "--rates", 1)
    program = start_program(*arguments)
    limit = time.monotonic() + 60
    while program.poll() is None and not list(path.rglob("model.safetensors")):  # until its first tuning run has ended
        assert time.monotonic() < limit
        time.sleep(0.01)
    program.terminate()
    out, err = program.communicate(timeout=60)
    assert program.returncode == 130, (out, err)
    assert "run the same command again" in words(out)
    ended = {run.path: run.model.stat().st_mtime_ns for run in runs(path) if run.model.exists()}
    answer = call(*arguments)
    assert answer.code == 0, answer.err
    assert all(file.joinpath("model.safetensors").stat().st_mtime_ns == at for file, at in ended.items())
    assert (path / "sgd-12" / "seed1" / "model.safetensors").exists()


def test_a_setting_that_does_not_stay_finite_is_never_chosen(data, tmp_path, monkeypatch):
    monkeypatch.setattr(contenders, "FACTOR", 2.0**20)  # rates of 1e-7, 0.1 and 1e5
    path = tmp_path / "race"
    answer = call(*command(data, path, "--contenders", "aggregated,sgd", "--budgets", 2, "--seeds", 1, "--rates", 3))
    assert answer.code == 0, answer.err
    (chosen,) = json.loads((path / "choices.json").read_text())
    lost = [trial for trial in chosen["trials"] if trial["validation_accuracy"] is None]
    assert lost
    assert chosen["chosen"] not in {trial["setting"] for trial in lost}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--contenders", "sdg"), ("unknown contender 'sdg'", "did you mean sgd")),
        (("--contenders", "sgd,sgd"), ("--contenders has a name twice", "sgd, sgd")),
        (("--budgets", "15;30"), ("--budgets", "15;30", "separated by commas")),
        (("--budgets", "0,15"), ("--budgets", "0,15", "at least 1")),
        (("--budgets", "1", "--contenders", "fb-regularized"), ("fb-regularized", "costs 2 passes", "budget of 1")),
        (("--seeds", "0"), ("--seeds", "at least 1")),
        (("--seeds", "1001"), ("--seeds", "at most 1000", "1001")),  # 1000 is tuned with
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


def test_a_place_with_another_race_is_refused(race, data):
    path, _ = race
    refused(*command(data, path, "--augment", "none"), names=(path, "augment", "--run-dir"))
    refused(*command(data, path, "--validation", "0.5"), names=(path, "validation", "--run-dir"))


def test_a_race_does_not_go_on_with_other_images(tmp_path):
    data, path = npz(tmp_path / "own.npz", **more_images(0)), tmp_path / "race"
    once = command(data, path, "--contenders", "aggregated", "--budgets", 1, "--seeds", 1)
    assert call(*once).code == 0
    npz(tmp_path / "own.npz", **more_images(2))
    refused(*once[:-1], 2, names=(path, "data"))
    assert not (path / "aggregated-1" / "seed1").exists()


def test_the_help_names_the_contenders():
    text = words(call("race", "--help").out)
    assert all(name in text for name in ("sgd", "adamw", "muon", "aggregated", "rows of the paper"))
    assert {"fb", "fb-clipped", "fb-practice"} <= CONTENDERS.keys()


def test_every_axis_at_the_edge_of_its_grid_is_named(race):
    path, out = race
    text = (path / "table.md").read_text()
    for each in json.loads((path / "choices.json").read_text()):
        ends = ", ".join(f"{end} {AXES[name]}" for name, end in each["at_edge"].items())
        assert "rate" in ends
        assert f"{each['chosen']} ({ends})" in text
        assert f"{each['chosen']} (edge of its grid: {ends})" in words(out)
    assert "aggregated | lr 0.03 decay 1 norm-block 8 |" in text  # not tuned: at no edge
