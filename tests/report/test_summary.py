"""The table of runs: one line a recipe, mean and spread over its seeds; runs that differ otherwise are not averaged."""

import io
import json
import re
import statistics
from dataclasses import replace

import pytest
from rich.console import Console
from small_runs import arrays, copy, npz, run, small_recipe

from noiseless.files.directory import RunDirectory
from noiseless.recipes.flags import with_flags
from noiseless.report import summary
from noiseless.report.facts import facts_of
from noiseless.report.seeds import column, place_of
from noiseless.screen import Screen


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def directories(data, tmp_path_factory):
    """Two seeds of fb and one of sgd, each with two steps."""
    path = tmp_path_factory.mktemp("runs")
    return [
        run(path / f"{name}-{seed}", small_recipe(data, name, seed=seed, steps=2))
        for name, seed in (("fb", 0), ("sgd", 0), ("fb", 1))
    ]


def test_runs_are_grouped_by_recipe_in_the_order_of_appearance(directories):
    groups = summary.by_recipe(summary.read(directories))
    assert [(g.name, [r.seed for r in g.runs]) for g in groups] == [("fb", [0, 1]), ("sgd", [0])]


def test_a_line_holds_mean_and_sample_standard_deviation_over_seeds(directories):
    fb, sgd = summary.by_recipe(summary.read(directories))
    cells = dict(zip(summary.HEADINGS, fb.cells(), strict=True))
    last = [directory.rows()[-1] for directory in (directories[0], directories[2])]
    accuracies = [100 * row["test_accuracy"] for row in last]
    losses = [row["train_loss"] for row in last]
    mean, spread = statistics.mean(accuracies), abs(accuracies[0] - accuracies[1]) / 2**0.5  # of two values
    assert cells["test accuracy %"] == f"{mean:.2f} ± {spread:.2f}"
    assert cells["train loss, last step"] == f"{sum(losses) / 2:.4f} ± {abs(losses[0] - losses[1]) / 2**0.5:.4f}"
    assert (cells["row"], cells["steps"], cells["passes"], cells["seeds"]) == ("fb", "2", "2", "2")
    seconds = [sum(row["seconds"] for row in directory.rows()) for directory in (directories[0], directories[2])]
    assert cells["seconds"] == f"{sum(seconds) / 2:.1f}"
    assert "±" not in "".join(sgd.cells())


def test_runs_of_one_name_with_other_settings_are_not_seeds_of_one_line(data, directories, tmp_path):
    other = run(tmp_path / "other", small_recipe(data, "fb", seed=2, steps=2, lr=0.7))
    lines = summary.by_recipe(summary.read([directories[0], other]))
    assert len(lines) == 2
    assert [line.name for line in lines] == ["fb (lr 0.1)", "fb (lr 0.7)"]


def test_the_same_recipe_with_the_same_seed_is_not_two_seeds(directories):
    runs = summary.read([directories[0], directories[2], directories[0]])
    with pytest.raises(ValueError, match=r"the same recipe with the same seed 0.*give one of them"):
        summary.by_recipe(runs)


def test_a_row_without_its_numbers_is_refused(directories, tmp_path):
    directory = copy(directories[0], tmp_path / "run")
    directory.metrics.write_text('{"step": 0, "lr": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl has a row without gradient_norm, parameter_norm"):
        summary.read([directory])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", [1]), ("seconds", None), ("passes", {}), ("asked_seconds", []), ("eigenvalues", ["x"]),
        ("eigenvalues", 1.0), ("layers", {"a": 1}), ("layers", {"a": {"norm": "x"}}), ("final", 3),
    ],
)  # fmt: skip
def test_a_row_with_another_kind_of_value_is_left_out(directories, tmp_path, capsys, name, value):
    directory = copy(directories[0], tmp_path / "run")
    first, last = directory.rows()
    directory.metrics.write_text(json.dumps(first) + "\n" + json.dumps(last | {name: value}) + "\n")
    (read,) = summary.read([directory])
    assert read.rows == [first]
    assert f"has a row without {name}: it is damaged, and left out" in capsys.readouterr().err


def test_an_unfinished_run_is_marked_and_its_last_evaluation_used(data, tmp_path):
    recipe = small_recipe(data, "fb", steps=20)  # evaluated every other step
    directory = run(tmp_path / "run", recipe, stop_after=4)
    (line,) = summary.by_recipe(summary.read([directory]))
    cells = dict(zip(summary.HEADINGS, line.cells(), strict=True))
    assert (cells["row"], cells["steps"]) == ("fb (unfinished)", "5")
    assert cells["test accuracy %"] == f"{100 * directory.rows()[3]['test_accuracy']:.2f}"
    assert "test_accuracy" not in directory.rows()[4]


def test_a_run_that_stopped_short_is_in_no_mean_with_those_that_ended(data, directories, tmp_path):
    short = run(tmp_path / "run", small_recipe(data, "fb", seed=2, steps=2), stop_after=0)
    (alone,) = summary.by_recipe(summary.read([directories[0]]))
    (line,) = summary.by_recipe(summary.read([directories[0], short]))
    assert line.figures() == alone.figures()
    assert line.cells() == ("fb (1 of 2 unfinished)", *alone.cells()[1:])


def test_large_losses_have_an_exponent(data, directories):
    (run_,) = summary.read([directories[0]])
    rows = [*run_.rows[:-1], run_.rows[-1] | {"train_loss": 8.3153e29}]
    (line,) = summary.by_recipe([replace(run_, rows=rows)])
    assert line.cells()[4] == "8.32e+29"


def test_a_run_without_any_evaluation_has_a_dash(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb", steps=20), stop_after=0)
    (line,) = summary.by_recipe(summary.read([directory]))
    assert line.cells()[3] == "-"


def test_a_run_without_rows_is_refused(tmp_path, directories):
    (tmp_path / "config.json").write_text((directories[0].path / "config.json").read_text())
    with pytest.raises(ValueError, match="no finished step yet"):
        summary.read([RunDirectory(tmp_path)])


def test_the_table_and_the_line_for_the_terminal(directories):
    runs = summary.read(directories)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(summary.table(summary.by_recipe(runs), "two rows"))
    text = shown.get()
    assert "two rows" in text
    assert all(cell in text for line in summary.by_recipe(runs) for cell in line.cells())
    line = summary.line(runs[1])
    row = directories[1].rows()[-1]
    assert f"2 steps       2 passes  test accuracy {row['test_accuracy']:.2%}" in line
    assert json.dumps(row["train_loss"])[:5] in line


def test_recipes_on_other_data_have_short_names(data, directories, tmp_path):
    (tmp_path / "set").mkdir()
    other = npz(tmp_path / "set" / "a-data-set-with-a-long-name.npz", x_test=arrays(1)["x_test"])
    runs = summary.read([directories[0], run(tmp_path / "other", small_recipe(other, "fb", steps=2, seed=0))])
    names = [line.name for line in summary.by_recipe(runs)]
    assert names == [
        "fb (data tiny)",
        "fb (data a-data-set-with...g-name)",
    ]  # no path, no mean
    recipes = [replace(run_, recipe=with_flags(run_.recipe, lr=lr, seed=k)) for k, (run_, lr) in enumerate(
        [(runs[0], 0.1), (runs[0], 0.1), (runs[0], 0.2), (runs[0], 0.3)])]  # fmt: skip
    assert [line.name for line in summary.by_recipe(recipes)] == ["fb (lr 0.1)", "fb (lr 0.2)", "fb (lr 0.3)"]


def test_labels_are_one_for_each_recipe(directories):
    runs = summary.read(directories)
    assert [line.name for line in summary.by_recipe(runs, ("noise-free", "usual"))] == ["noise-free", "usual"]
    for labels in (("one",), ("same", "same"), ("a", "b", "c")):
        with pytest.raises(ValueError, match=r"--label needs a label of its own for each of the 2 recipes \(fb; sgd\)"):
            summary.by_recipe(runs, labels)


def test_the_table_fits_into_80_columns(directories, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    runs = summary.read(directories)
    console = Screen(file=io.StringIO(), soft_wrap=False)
    console.print(summary.table(summary.by_recipe(runs, ("a label that is longer than its column", "short")), "runs"))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("±" in line for line in lines) == 1  # no number is broken into lines


def test_the_head_of_the_page_has_data_model_recipe_date_and_result(directories):
    runs = summary.read(directories)
    (fb, _) = lines = summary.by_recipe(runs)
    text = facts_of([fb])
    mean = 100 * statistics.mean(run_.accuracy for run_ in fb.runs)
    trained = 100 * statistics.mean(run_.rows[-1]["train_accuracy"] for run_ in fb.runs)
    for part in ("<dd>npz:tiny.npz</dd>", "<dd>resnet2</dd>", "<dd>fb</dd>", "<dd>2, seed 0, seed 1</dd>",
                 f"<dd>{mean:.2f} ± ", f"<dd>{trained:.2f} %</dd>"):  # fmt: skip
        assert part in text, part
    assert re.search(r"<dt>date</dt><dd>\d{4}-\d\d-\d\d</dd>", text)
    assert " % (fb)" in facts_of(lines)


def test_curves_over_seconds_are_at_the_time_that_the_steps_took(directories):
    (run_, *_) = summary.read(directories)
    points = column(run_, "seconds", "train_loss")
    times = [row["seconds"] for row in run_.rows]
    assert list(points) == [times[0], times[0] + times[1]]
    assert list(points.values()) == [row["train_loss"] for row in run_.rows]
    assert place_of(run_, 2, "seconds") == times[0] + times[1]
