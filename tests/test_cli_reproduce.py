"""The ladder by one command: runs, table, report; finished runs are kept, and other runs are not overwritten."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from small_runs import arrays, call, files, npz, record, refused, run, words

from noiseless.files.directory import RunDirectory
from noiseless.recipes.ladder import row

ROWS, SEEDS = ("sgd", "fb"), 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def command(data, path, *more):
    return (
        "reproduce", "--form", "small", "--data", data, "--model", "resnet2", "--rows", *ROWS, "--seeds", SEEDS,
        "--run-dir", path, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ladder(data, tmp_path_factory):
    """The directory of a small ladder, and the command's output."""
    path = tmp_path_factory.mktemp("ladder") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "120")
        answer = call(*command(data, path))
    assert answer.code == 0, (answer.out, answer.err)
    return path, answer.out


def test_each_row_with_each_seed_is_a_run_that_ended(ladder):
    path, _ = ladder
    runs = {p.name: RunDirectory(p) for p in path.iterdir() if p.is_dir()}
    assert set(runs) == {f"{name}-seed{seed}" for name in ROWS for seed in range(SEEDS)}
    for name, directory in runs.items():
        recipe = directory.config().recipe
        assert f"{recipe.name}-seed{recipe.seed}" == name
        assert len(directory.rows()) == recipe.schedule.steps == row(recipe.name).schedule.steps == 10
        assert directory.model.exists()


def test_the_command_ends_with_a_table_and_the_path_of_a_report(ladder):
    path, out = ladder
    text = words(out)
    assert f"report: {path / 'report.html'}" in text
    for heading in ("row", "steps", "passes", "test accuracy %", "seconds", "seeds"):
        assert heading in text
    for name in ROWS:
        assert len(re.findall(rf"{name} seed [01] ", text)) >= SEEDS  # one line per finished run
        # mean and spread over the seeds
        assert re.search(rf"\n{name} +10 +10 +\d+\.\d\d ± \d+\.\d\d .* 2 *\n", out), out
    assert (path / "report.html").read_text().count('id="plot-train-loss"') == 1


def test_the_plan_comes_first_with_its_cost(ladder):
    text = words(ladder[1])
    assert text.index("plan: 4 runs") < text.index("sgd seed 0")
    assert re.search(r"40 passes to go, about [\d.]+ s from a short measurement", text)


def test_plan_only_runs_nothing(data, tmp_path):
    answer = call(*command(data, tmp_path / "runs", "--plan-only"))
    assert (answer.code, (tmp_path / "runs").exists()) == (0, False)
    assert "2 of 2" in answer.out


def test_quick_is_one_seed_of_the_rows_up_to_the_penalty(data, tmp_path):
    args = ("reproduce", "--quick", "--form", "small", "--data", data, "--plan-only", "--run-dir", tmp_path / "runs")
    answer = call(*args)
    assert (answer.code, answer.err) == (0, "")
    rows = ("sgd", "sgd-longer", "fb", "fb-longer", "fb-clipped", "fb-regularized")
    assert f"plan: {len(rows)} runs" in answer.out
    assert re.findall(r"│ (\S+) +│ \S+ +│ +\d+ │.*1 of 1", answer.out) == list(rows)


def test_the_table_is_written_as_markdown_and_csv(ladder):
    path, _ = ladder
    rows = {cells["row"]: cells for cells in csv.DictReader((path / "table.csv").read_text().splitlines())}
    assert list(rows) == list(ROWS)
    for name in ROWS:
        last_rows = [RunDirectory(path / f"{name}-seed{seed}").rows()[-1] for seed in range(SEEDS)]
        accuracies = [last["test_accuracy"] for last in last_rows]
        mean, spread = sum(accuracies) / 2, abs(accuracies[0] - accuracies[1]) / 2**0.5  # sample deviation of two
        assert float(rows[name]["test_accuracy_mean"]) == pytest.approx(mean, rel=1e-12)
        assert float(rows[name]["test_accuracy_std"]) == pytest.approx(spread, rel=1e-9)
        assert (rows[name]["n"], rows[name]["passes"]) == ("2", "10.0")
        line = f"| {name} | 10 | 10 | {100 * mean:.2f} ± {100 * spread:.2f} |"
        assert line in (path / "table.md").read_text()
    assert "`noiseless reproduce --form small --data" in (path / "table.md").read_text()


def test_a_table_with_fixed_copies_in_the_published_arithmetic(data, tmp_path):
    """Compat applies to every run, and the same command accepts the finished runs."""
    path = tmp_path / "runs"
    args = ("reproduce", "--form", "small", "--data", data, "--model", "resnet2", "--rows", "fb", "--seeds", 1)
    args = (*args, "--jobs", 1, "--table", "fixed", "--compat", "published", "--run-dir", path)
    assert call(*args).code == 0
    runs = {p.name: RunDirectory(p) for p in path.iterdir() if p.is_dir()}
    # of the 48 images one block of 32 is used, of ten copies 15 full blocks: 10 steps of 2 / 3 of a pass, and of 10
    assert {name: directory.rows()[-1]["passes"] for name, directory in runs.items()} == {
        "fb-noaug-seed0": pytest.approx(20 / 3), "fb-10x-seed0": 100,
    }  # fmt: skip
    for directory in runs.values():
        recipe = directory.config().recipe
        assert (recipe.compat, recipe.objective.drop_last, recipe.objective.statistics) == ("published", True, "ema")
    assert "2 of 2 runs have finished in" in words(call(*args).out)


def test_a_table_for_two_models_has_a_run_for_each(data, tmp_path):
    args = ("reproduce", "--form", "small", "--data", data, "--rows", "fb", "sgd", "--seeds", 1, "--plan-only")
    answer = call(*args, "--table", "architectures", "--model", "resnet8", "resnet20", "--run-dir", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "plan: 4 runs" in answer.out
    for name in ("fb-resnet8", "sgd-resnet8", "fb-resnet20", "sgd-resnet20"):
        assert name in answer.out


def test_a_run_of_the_ladder_is_the_run_that_train_makes(ladder, tmp_path):
    path, _ = ladder
    inside = RunDirectory(path / "fb-seed1")
    alone = run(tmp_path / "alone", inside.config().recipe)
    assert record(alone) == record(inside)


def test_finished_runs_are_kept_and_the_report_is_written_again(ladder, data):
    path, _ = ladder
    (path / "report.html").unlink()
    written = ("report.html", "table.md", "table.csv")
    before = {name: content for name, content in files(path).items() if name not in written}
    stamps = {name: (path / name).stat().st_mtime_ns for name in before}
    answer = call(*command(data, path))
    assert answer.code == 0, answer.err
    assert f"4 of 4 runs have finished in {path}" in words(answer.out)
    assert "all runs" not in answer.out  # there is nothing whose progress could be shown
    assert (path / "report.html").exists()
    assert {name: (path / name).stat().st_mtime_ns for name in before} == stamps


def test_a_directory_with_runs_of_another_recipe_is_refused_and_left_alone(ladder, data, tmp_path):
    path, _ = ladder
    before = files(path)
    other = npz(tmp_path / "other.npz")
    refused(*command(other, path), names=(path / "sgd-seed0", "another data", "--run-dir"))
    refused(*command(data, path, "--form", "paper"), names=("with another", "steps", "block"))
    assert files(path) == before


def test_data_that_changed_under_finished_runs_are_refused(ladder, data, tmp_path):
    """The same file name with other images: the finished runs are not results on these data."""
    path = tmp_path / "runs"
    shutil.copytree(ladder[0], path)
    file = Path(data.removeprefix("npz:"))
    content = file.read_bytes()
    npz(file, x_train=arrays(seed=9)["x_train"])
    try:
        refused(*command(data, path), names=(file, "changed"))
    finally:
        file.write_bytes(content)


def test_an_error_in_a_run_is_printed_without_changes(ladder, data, tmp_path):
    """The error comes from another process, which was not killed."""
    path = tmp_path / "runs"
    shutil.copytree(ladder[0], path)
    directory = RunDirectory(path / "fb-seed1")
    directory.model.unlink()
    with directory.locked():
        refused(*command(data, path), names=(directory.path, "in use by process"))


def test_the_table_grows_with_rows_and_seeds(data, tmp_path):
    """Runs that earlier commands have finished in the directory are in the table, in the table's order."""
    args = ("reproduce", "--form", "small", "--data", data, "--model", "resnet2", "--run-dir", tmp_path / "runs")
    for more in (("--rows", "fb", "--seeds", 2), ("--rows", "sgd", "--seeds", 1)):
        answer = call(*args, *more)
        assert answer.code == 0, answer.err
    rows = list(csv.DictReader((tmp_path / "runs" / "table.csv").read_text().splitlines()))
    assert [(line["row"], line["n"]) for line in rows] == [("sgd", "1"), ("fb", "2")]
    text = (tmp_path / "runs" / "table.md").read_text()
    assert text.index("| sgd | 10 |") < text.index("| fb | 10 |")
    assert re.search(r"\nfb +10 +10 ", answer.out)
    # runs of another table in the same directory are not in this one
    answer = call(*args, "--table", "fixed", "--rows", "sgd", "--seeds", 1)
    assert answer.code == 0, (answer.out, answer.err)
    rows = list(csv.DictReader((tmp_path / "runs" / "table.csv").read_text().splitlines()))
    assert [line["row"] for line in rows] == ["sgd-noaug", "sgd-10x"]


def test_what_cannot_run_as_planned_is_refused_at_once(data, tmp_path):
    args = ("reproduce", "--form", "small", "--data", data, "--rows", "fb", "--seeds", 1)
    twice = ("--model", "resnet8", "resnet8", "--run-dir", tmp_path / "runs")
    refused(*args, *twice, names=("fb-resnet8-seed0", "give resnet8 once"))
    file = tmp_path / "file"
    file.write_text("mine")
    refused(*args, "--run-dir", file / "runs", names=(file, "is not a directory", "--run-dir"))
    refused(*args, "--seeds", 0, names=("--seeds must be a finite number of at least 1, not 0",))
    refused(*args, "--jobs", -1, names=("--jobs must be a finite number of at least 1, not -1",))
    assert {p.name for p in tmp_path.iterdir()} == {"file"}
    assert call(*args, "--pixels", 4, "--run-dir", tmp_path / "runs").code == 0
    refused(*args, "--run-dir", tmp_path / "runs", names=("another pixels",))
