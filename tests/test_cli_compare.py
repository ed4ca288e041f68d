"""noiseless compare: tables and JSON of real runs on digits; runs that cannot be compared are refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from small_runs import arrays, call, copy, npz, refused, resume, run, small_recipe, words

from noiseless.files import predictions
from noiseless.files.predictions import Predictions
from noiseless.study.comparison import compare

SEEDS = (0, 1, 2)
DIGITS = {"steps": 2, "block": 128, "warmup": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two recipes on digits with three seeds each, by name."""
    path = tmp_path_factory.mktemp("runs")
    by_name = {}
    for name in ("sgd", "fb"):
        by_name[name] = [
            run(path / f"{name}-{seed}", small_recipe("digits", name, seed=seed, **DIGITS)) for seed in SEEDS
        ]
    return by_name


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def paths(directories):
    return [directory.path for directory in directories]


def correct(directories):
    return np.stack([predictions.read(directory.path).correct for directory in directories])


def test_the_predictions_give_the_accuracy_of_the_last_row(runs):
    for directory in [*runs["sgd"], *runs["fb"]]:
        saved = predictions.read(directory.path)
        assert saved.correct.mean() == pytest.approx(directory.rows()[-1]["test_accuracy"], abs=1e-12)
        assert (len(saved.target), saved.target.dtype) == (1285, np.uint8)


def test_tables_fit_into_80_columns_and_have_the_rounded_figures(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer = call("compare", *paths(runs["sgd"]), "--against", *paths(runs["fb"]))
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 80
    sgd, fb = correct(runs["sgd"]), correct(runs["fb"])
    expected, text = compare(sgd, fb, True), words(answer.out)
    low, high = expected.interval(0.95)
    for figure in (
        "accuracy on 1,285 test images, compared with fb",
        f"{100 * fb.mean():.2f}",
        f"± {100 * sgd.mean(1).std(ddof=1):.2f}",
        f"{expected.difference:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        f"{expected.variance_seeds**0.5:.2f}, {expected.variance_images**0.5:.2f}",
        "3 seeds, paired",
        f"{(sgd & fb).sum(1).mean():,.1f}",
        f"{100 * (sgd & ~fb).mean():.2f} %",
    ):
        assert figure in text, figure
    assert "images only" not in text


def test_json_has_all_numbers_unrounded(runs, tmp_path):
    file = tmp_path / "found.json"
    # two groups: the seeds of fb are not those of the group that it is compared with
    mixed = [*paths(runs["sgd"]), *paths(runs["fb"][:2])]
    flags = ("--margin", 2, "--confidence", 0.9, "--json", file)
    answer = call("compare", *mixed, "--against", runs["fb"][2].path, *flags)
    assert answer.code == 0, answer.err
    assert str(file) in words(answer.out)
    written = json.loads(file.read_text())
    environment = json.loads((runs["fb"][0].path / "environment.json").read_text())
    assert (written["data"], written["data_sha256"], written["images"]) == ("digits", environment["data_sha256"], 1285)
    assert (written["margin"], written["confidence"]) == (2, 0.9)
    assert [row["name"] for row in written["compared"]] == ["sgd", "fb"]
    assert [member["seed"] for member in written["compared"][0]["runs"]] == [0, 1, 2]
    assert [member["path"] for member in written["compared"][1]["runs"]] == list(map(str, paths(runs["fb"][:2])))
    accuracy = runs["fb"][2].rows()[-1]["test_accuracy"]
    assert written["against"]["accuracy_mean"] == pytest.approx(100 * accuracy, rel=1e-12)
    assert written["against"]["accuracy_std"] is None
    for row, group in zip(written["compared"], (runs["sgd"], runs["fb"][:2]), strict=True):
        expected = compare(correct(group), correct(runs["fb"][2:]), False)
        assert (row["difference"], row["standard_error"]) == (expected.difference, expected.standard_error)
        assert row["interval"] == list(expected.interval(0.9))
        assert (row["p"], row["p_equivalence"]) == (expected.p, expected.equivalence(2))
        assert not row["paired_by_seed"]
        assert row["interval_covers"] == "images only: one seed"
        assert row["variance_seeds"] is None
        right = row["who_is_right"]
        assert sum(right[key] for key in ("both", "only_this", "only_against", "neither")) == pytest.approx(1285)
    smaller, larger = sorted(row["p"] for row in written["compared"])
    adjusted = sorted(row["p_holm"] for row in written["compared"])
    assert adjusted == pytest.approx([min(1, 2 * smaller), max(min(1, 2 * smaller), larger)], rel=1e-12)


def test_one_seed_is_noted_wherever_an_interval_is_shown(runs):
    answer = call("compare", runs["sgd"][0].path, "--against", runs["fb"][0].path)
    assert answer.code == 0
    text = words(answer.out)
    assert "images only: one seed in a group, so the interval is over other test images" in text
    assert "images only:" in text.partition("who is right:")[0]


def test_swapped_groups_give_the_negative_difference(runs, tmp_path):
    results = []
    for one, other in (("sgd", "fb"), ("fb", "sgd")):
        file = tmp_path / f"{one}.json"
        assert call("compare", *paths(runs[one]), "--against", *paths(runs[other]), "--json", file).code == 0
        results.append(json.loads(file.read_text())["compared"][0])
    assert results[0]["difference"] == -results[1]["difference"]
    assert results[0]["interval"] == pytest.approx([-end for end in reversed(results[1]["interval"])], rel=1e-12)


def test_the_order_of_the_runs_does_not_matter(runs):
    output = call("compare", *paths(runs["sgd"]), "--against", *paths(runs["fb"])).out
    reversed_output = call("compare", *reversed(paths(runs["sgd"])), "--against", *reversed(paths(runs["fb"]))).out
    assert output == reversed_output


def test_recipes_of_one_name_are_shown_with_their_differences_and_fit(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    changes = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.2, "label_smoothing": 0.1, "momentum": 0.85}]
    run_paths = [run(tmp_path / str(n), small_recipe(tiny, "fb", **flags)).path for n, flags in enumerate(changes)]
    answer = call("compare", *run_paths[1:], "--against", run_paths[0])
    assert answer.code == 0, answer.err
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "fb (lr 0.1)" in words(answer.out)  # the others have the rate 0.2
    assert "…" not in answer.out


def test_compare_does_not_import_torch():
    program = "import sys, noiseless.study.compared, noiseless.report.comparison; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--margin", 0), ("--margin", "positive", "0")),
        (("--margin", -0.5), ("--margin", "-0.5")),
        (("--margin", "nan"), ("--margin", "nan")),
        (("--margin", "inf"), ("--margin", "inf")),
        (("--confidence", 0.5), ("--confidence", "between 0.5 and 1")),
        (("--confidence", 1), ("--confidence",)),
        (("--confidence", 95), ("--confidence", "95")),
        (("--confidence", "nan"), ("--confidence", "nan")),
        (("--json", "/proc/nowhere/x.json"), ("/proc/nowhere/x.json",)),
    ],
)
def test_values_out_of_range_are_refused(flags, names, runs):
    refused("compare", runs["sgd"][0].path, "--against", runs["fb"][0].path, *flags, names=names)


def test_missing_and_repeated_runs_are_refused(runs, tmp_path):
    sgd, fb = paths(runs["sgd"]), paths(runs["fb"])
    refused("compare", *sgd, names=("--against is missing", "noiseless compare RUN"))
    refused("compare", "--against", *fb, names=("at least one run",))
    refused("compare", *sgd, "--against", sgd[1], names=(sgd[1], "in both groups"))
    (tmp_path / "link").symlink_to(sgd[1])
    refused("compare", *sgd, "--against", tmp_path / "link", names=("in both groups",))
    refused("compare", sgd[0], sgd[0], "--against", fb[0], names=(sgd[0], "given twice"))
    refused("compare", sgd[0], "--against", fb[0], fb[0], names=(fb[0], "given twice"))
    twin = copy(runs["sgd"][0], tmp_path / "twin").path
    names = ("same recipe with the same seed 0", twin, sgd[0])
    refused("compare", sgd[0], twin, "--against", fb[0], names=names)
    refused("compare", sgd[0], "--against", twin, names=names)
    refused("compare", sgd[0], "--against", tmp_path / "nowhere", names=("nowhere does not exist",))


def test_several_recipes_on_the_other_side_are_refused_with_what_differs(runs):
    other = runs["sgd"][1].path, runs["fb"][1].path
    refused("compare", runs["sgd"][0].path, "--against", *other, names=("--against", *other, "regime", "one recipe"))


def test_runs_that_have_not_ended_or_have_no_predictions_are_refused_with_the_remedy(runs, tmp_path):
    fb = runs["fb"][0].path
    directory = copy(runs["sgd"][0], tmp_path / "run")
    file = directory.path / predictions.FILE
    file.unlink()
    names = (directory.path, f"noiseless evaluate {directory.path}")
    refused("compare", directory.path, "--against", fb, names=names)
    file.write_bytes(b"junk")
    refused("compare", directory.path, "--against", fb, names=names)
    assert call("evaluate", directory.path).code == 0
    assert call("compare", directory.path, "--against", fb).code == 0
    directory.model.unlink()
    refused("compare", fb, "--against", directory.path, names=("not ended", f"noiseless resume {directory.path}"))


def test_a_run_killed_between_its_last_row_and_its_end_is_compared_once_it_is_resumed(runs, tmp_path):
    directory = copy(runs["sgd"][0], tmp_path / "run")
    for file in (directory.model, directory.path / predictions.FILE):
        file.unlink()
    resume(directory)
    against = ("--against", runs["fb"][0].path)
    assert call("compare", directory.path, *against).out == call("compare", runs["sgd"][0].path, *against).out


def test_other_data_are_refused(runs, tiny, tmp_path):
    other = run(tmp_path / "tiny", small_recipe(tiny, "fb", steps=1)).path
    refused("compare", runs["sgd"][0].path, "--against", other, names=("different data", "digits", "npz:", other))


def test_an_environment_that_cannot_be_read_is_refused(runs, tmp_path):
    directory = copy(runs["sgd"][0], tmp_path / "run")
    file = directory.path / "environment.json"
    for content in ("", "[]", "{}"):
        file.write_text(content)
        refused("compare", directory.path, "--against", runs["fb"][0].path, names=(file, "cannot be read"))


def test_other_images_are_refused(runs, tmp_path):
    directory = copy(runs["sgd"][0], tmp_path / "run")
    saved = predictions.read(directory.path)
    against = ("--against", runs["fb"][0].path)
    predictions.write(directory.path, Predictions(saved.predicted[1:], saved.target[1:]))
    refused("compare", directory.path, *against, names=("different images", "1284", "1285"))
    predictions.write(directory.path, Predictions(saved.predicted, saved.target[::-1]))
    refused("compare", directory.path, *against, names=("different images", "labels differ"))


def test_held_out_images_are_compared_for_one_seed_and_refused_for_several(tiny, tmp_path):
    def held_out_run(name, seed, **changes):
        return run(tmp_path / f"{name}-{seed}", small_recipe(tiny, name, seed=seed, validation=0.25, **changes)).path

    one, other, next_seed = held_out_run("sgd", 0), held_out_run("fb", 0), held_out_run("fb", 1)
    assert call("compare", one, "--against", other).code == 0
    refused("compare", one, "--against", other, next_seed, names=("validation 0.25", "seeds 0, 1", "one seed"))
    plain = run(tmp_path / "plain", small_recipe(tiny, "fb", steps=1)).path
    refused("compare", one, "--against", plain, names=("different images", str(len(arrays()["y_test"]))))


def test_states_of_runs_are_compared_once_they_are_evaluated(tmp_path):
    recipe = small_recipe("digits", "fb", model="linear", **(DIGITS | {"steps": 4}))
    long, short = run(tmp_path / "long", recipe, keep_every=2), tmp_path / "short"
    state = f"{long.path}@2"
    names = (f"{state} has no analysis/predictions-00000002.npz", f"noiseless evaluate {state}")
    refused("compare", state, "--against", long.path, names=names)
    assert "predictions-00000002.npz" in call("evaluate", state).out
    answer = call("compare", state, "--against", long.path, "--json", tmp_path / "numbers.json")
    assert (answer.code, answer.err) == (0, "")
    assert "steps 2" in words(answer.out)
    (row,) = json.loads((tmp_path / "numbers.json").read_text())["compared"]
    assert row["runs"][0]["path"] == state
    assert row["accuracy_mean"] == pytest.approx(100 * predictions.read(long.path, 2).correct.mean())
    # a run of two steps with this warm-up and horizon is the same function of the step, and has the same bits
    run(short, small_recipe("digits", "fb", model="linear", **DIGITS, horizon=4))
    assert np.array_equal(predictions.read(short).predicted, predictions.read(long.path, 2).predicted)
    refused("compare", state, "--against", short, names=("same recipe with the same seed 0", state, short))


def test_a_state_of_a_run_with_an_average_is_refused(tmp_path):
    directory = run(tmp_path / "run", small_recipe("digits", "fb", model="linear", ema=0.9, **DIGITS), keep_every=1)
    names = (f"{directory.path}@1 cannot be compared", "average (--ema)")
    refused("compare", f"{directory.path}@1", "--against", directory.path, names=names)
