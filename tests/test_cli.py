"""The command line: help, flags, and what each command does on a small run."""

import json
import re
import resource
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from small_runs import TESTED, call, npz, prepare, run, small_recipe, start_program, words

import noiseless
from noiseless.commands.flags import FIRST, help_texts
from noiseless.files.directory import RunDirectory
from noiseless.recipes.config import Settings
from noiseless.recipes.flags import FLAGS as FLAGS_OF_RECIPES
from noiseless.recipes.flags import flag_values
from noiseless.recipes.ladder import LADDER
from noiseless.recipes.recipe import Recipe
from noiseless.run.evaluate import score

COMMANDS = ("train", "reproduce", "resume", "evaluate", "report", "recipes", "digest")
# flags that must keep these names
FLAGS = {
    "--data", "--model", "--steps", "--seed", "--run-dir", "--threads", "--init", "--lr", "--warmup", "--horizon",
    "--block", "--norm-block", "--clip", "--penalty", "--augment", "--mean", "--std", "--device", "--dtype",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run by the command, and the command's output."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    flags = ("--form", "small", "--data", data, "--steps", 3, "--block", 16, "--warmup", 1, "--horizon", 4)
    answer = call("train", "fb-clipped", *flags, "--threads", 1, "--run-dir", path)
    assert answer.code == 0, answer.err
    return RunDirectory(path), answer


def test_help_is_quick_and_imports_no_torch():
    code = (
        "import sys; from noiseless.cli import run; code = run(['--help']);"
        " print([m for m in ('torch', 'numpy', 'matplotlib', 'sklearn') if m in sys.modules], code)"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.splitlines()[-1] == "[] 0"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = start_program("--help")
    out, err = program.communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (program.returncode, err) == (0, "")
    # processor time, which hardly depends on what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
    assert all(re.search(rf"^ *{command}\b", out, re.MULTILINE) for command in COMMANDS), out


def test_what_the_files_names_show_to_be_wrong_is_refused_before_torch_is_imported(finished):
    run = str(finished[0].path)
    cases = {
        ("sharpness", f"{run}@2"): "has no state of step 2",
        ("evaluate", f"{run}@2"): "has no state of step 2",
        ("digest", f"{run}@2"): "has no state of step 2",
        ("export", f"{run}@2", "there"): "has no state of step 2",
        ("import", "none.pth"): "there is no file none.pth",
        ("train", "--init", "none.safetensors"): "there is no file",
        ("train", "fb-clipped", "--lr", "7", "--run-dir", run): "holds a run already, made by another config",
        ("race", "--contenders", "sgd,admw"): "did you mean adamw",
        ("compare", run, "--against", "no-run"): "no-run does not exist",
        ("resume", run): "has ended",
    }
    program = (
        "import json, sys\nfrom noiseless import cli\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    cli.main(arguments)\n"
        "    print('torch' in sys.modules, file=sys.stderr)"
    )
    program = [sys.executable, "-c", program, json.dumps([list(arguments) for arguments in cases])]
    ended = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "True" not in ended.stderr.splitlines()
    for message in cases.values():
        assert message in ended.stdout + ended.stderr


def test_the_installed_command_is_the_module():
    program = Path(sys.executable).with_name("noiseless")
    completed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    module = start_program("--version")
    assert module.communicate(timeout=60)[0] == completed.stdout == f"noiseless {noiseless.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_without_a_command_the_commands_are_listed(arguments):
    answer = call(*arguments)
    assert answer.code == 0
    assert "noiseless reproduce --quick" in words(answer.out)
    assert all(command in answer.out for command in COMMANDS)
    assert "train [RECIPE] [--FLAG VALUE ...]" in words(answer.out)


def test_the_help_does_not_break_commands_in_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip() for line in call("--help").out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "Start with: noiseless reproduce --quick" in lines
    assert any(line.startswith("train [RECIPE] [--FLAG VALUE ...]  ") for line in lines)
    assert "RUN" in call("resume", "--help").out


def test_train_help_lists_every_field_with_type_default_and_its_line():
    answer = call("train", "--help-all")
    assert answer.code == 0
    text = words(re.sub(r"[│─╭╮╰╯]", " ", answer.out))
    lines = help_texts()
    assert list(lines) == [*FLAGS_OF_RECIPES, *(f.name for f in fields(Settings))]
    for name, line in lines.items():
        flag = f"--{name.replace('_', '-')}"
        assert re.search(rf"{flag}\b", text), flag
        assert line
        assert re.sub(r"\s", "", line) in re.sub(r"\s", "", text), (flag, line)  # a long word may be broken too
    assert re.search(r"--lr FLOAT peak learning rate \(default: 0\.8\)", text)  # fb-regularized, the default recipe
    assert "--augment {none,crop-flip}" in text
    assert "fb-practice" in text  # RECIPE is one of ...


def test_train_help_begins_with_the_flags_that_matter_most_and_has_the_others_by_part(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # in one column
    pieces = re.split(r"^ ([a-z ]*)options +$", call("train", "--help-all").out, flags=re.MULTILINE)
    groups = dict(zip(map(str.strip, pieces[1::2]), pieces[2::2], strict=True))
    shown = {name: re.findall(r"^  --([a-z-]+)", text, re.MULTILINE) for name, text in groups.items()}
    parts = [f.name for f in fields(Recipe) if is_dataclass(getattr(Recipe(), f.name))]
    assert list(shown) == ["", *parts, "recipe", "settings"]
    assert shown[""] == [name.replace("_", "-") for name in FIRST]
    assert len(FIRST) == 12
    for name, flag in FLAGS_OF_RECIPES.items():
        group = "" if name in FIRST else flag.part or "recipe"
        assert [g for g, flags in shown.items() if name.replace("_", "-") in flags] == [group]


def test_train_help_has_the_twelve_flags_that_matter_most_with_the_recipes_values(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = call("train", "fb-clipped", "--help").out
    assert re.findall(r"^  --([a-z-]+)", out, re.MULTILINE) == [name.replace("_", "-") for name in FIRST]
    text = words(out.replace("│", " "))
    assert "peak learning rate (default: 0.4)" in text
    assert "None: no clipping (default: 0.25)" in text
    assert "--help-all" in text


def test_the_promised_flags_exist():
    listed = set(re.findall(r"--[a-z][a-z-]*", call("train", "--help-all").out))
    assert listed >= FLAGS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    answer = call(command, "--help")
    assert answer.code == 0
    assert f"noiseless {command}" in words(answer.out)


def test_defaults_are_fb_regularized_on_digits_in_the_small_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call("train", "--steps", 1, "--threads", 1, "--seed", 5)
    assert answer.code == 0, answer.err
    path = Path("runs/fb-regularized-digits-resnet8-seed5")  # config.py: runs/NAME-DATA-MODEL-seedSEED
    recipe = RunDirectory(path).config().recipe
    assert (recipe.name, recipe.data.name, recipe.objective.block, recipe.seed) == ("fb-regularized", "digits", 32, 5)
    assert (recipe.schedule.warmup, recipe.schedule.horizon) == (0, 1)  # 13 and 133 of 100 steps, scaled with --steps
    assert (recipe.objective.penalty, recipe.optimizer.lr) == (0.5, 0.8)
    assert str(path) in answer.out
    # a second run takes a free name, and the first is not changed
    before = (path / "metrics.jsonl").read_bytes()
    assert call("train", "--steps", 1, "--threads", 1, "--seed", 5).code == 0
    assert Path(f"{path}-2").is_dir()
    assert (path / "metrics.jsonl").read_bytes() == before


def test_flags_reach_the_recipe(data, tmp_path):
    flags = {
        "model": "resnet8", "steps": 1, "seed": 3, "threads": 1, "lr": 0.25, "warmup": 0, "horizon": 7, "block": 12,
        "norm_block": 6, "clip": None, "penalty": 0.125, "augment": "none", "mean": 0.5, "std": 0.25, "device": "cpu",
        "dtype": "float64",
    }  # fmt: skip
    arguments = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert call("train", "fb-clipped", "--data", data, "--run-dir", tmp_path / "run", *arguments).code == 0
    config = RunDirectory(tmp_path / "run").config()
    values = flag_values(config.recipe) | vars(config.settings)
    assert {name: values[name] for name in flags} == flags | {"mean": (0.5,), "std": (0.25,)}


def test_train_writes_the_promised_files_and_prints_the_report(finished):
    directory, answer = finished
    names = {p.name for p in directory.path.iterdir()}
    promised = {
        "config.json", "environment.json", "metrics.jsonl", "checkpoints", "predictions.npz", "model.safetensors",
        "report.html",
    }  # fmt: skip
    assert promised <= names
    assert not list(directory.path.rglob("*.tmp"))
    assert str(directory.path / "report.html") in words(answer.out)
    assert "recipe fb-clipped in its small form" in words(answer.out)
    assert json.loads((directory.path / "environment.json").read_text())["command"][:3] == [
        "noiseless", "train", "fb-clipped",
    ]  # fmt: skip


def test_the_command_line_is_the_library(finished, data, tmp_path):
    directory, _ = finished
    by_library = run(tmp_path / "same", small_recipe(data, "fb-clipped", model="resnet8"))
    assert call("digest", directory.path).out == call("digest", by_library.path).out


def test_digest_is_a_hash_and_nothing_else_on_standard_output(finished):
    answer = call("digest", finished[0].path)
    assert (answer.code, answer.err) == (0, "")
    assert re.fullmatch(r"[0-9a-f]{64}\n", answer.out)


def test_evaluate_scores_the_final_parameters_on_both_parts(finished):
    directory, _ = finished
    answer = call("evaluate", directory.path)
    assert answer.code == 0
    experiment = prepare(directory.config().recipe)
    experiment.model.load_state_dict(directory.state())
    experiment.model.eval()
    with torch.no_grad():
        x, y = experiment.test.take(torch.arange(TESTED))
        hits = int((experiment.model(x).argmax(1) == y).sum())
    loss = score(experiment.model, experiment.test).loss
    assert re.search(rf"test +loss {loss:.6f} +accuracy {hits / TESTED:.4%} +\({TESTED} images\)", answer.out)
    last = directory.rows()[-1]
    assert (last["test_loss"], last["test_accuracy"]) == (pytest.approx(loss), hits / TESTED)
    assert re.search(r"train +loss \d+\.\d{6} +accuracy", answer.out)


@pytest.mark.parametrize("form", ["paper", "small"])
def test_recipes_prints_the_ladder_as_differences(form):
    answer = call("recipes", "--form", form)
    assert answer.code == 0
    assert all(re.search(rf"\b{name} ", answer.out) for name in LADDER)
    line = next(line for line in answer.out.splitlines() if "fb-clipped" in line)
    assert "clip 0.25" in line
    assert "lr" not in line  # only what it replaces
    assert re.search(r"\bfb +│ +\d+ │ \(in sgd\) regime full-batch +│", answer.out)  # not in the row above it
    assert re.search(r"aggregated.*\(in fb; docs/price\.md\)", answer.out)  # not a row of the paper
    assert re.search(rf"fb-practice.*{'3000' if form == 'paper' else '100'}.*shuffle True", answer.out)


def test_a_report_is_written_to_the_given_file(finished, tmp_path):
    target = tmp_path / "both.html"
    answer = call("report", finished[0].path, "-o", target)
    assert answer.code == 0
    assert target.read_text().count('id="plot-train-loss"') == 1
    assert str(target) in words(answer.out)


def test_a_directory_with_brackets_in_its_name_is_printed_without_changes(data, tmp_path):
    flags = ("--data", data, "--model", "resnet2", "--steps", 1, "--block", 16, "--threads", 1)
    path = tmp_path / "a[red]b"
    answer = call("train", "fb", *flags, "--run-dir", path)
    assert answer.code == 0
    assert f"report: {path}/report.html" in words(answer.out)
    path = tmp_path / "a[" / "b]"  # "[/b]" would close what is not open
    assert call("train", "fb", *flags, "--run-dir", path).code == 0
    assert call("evaluate", path).code == 0
