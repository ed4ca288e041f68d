"""The screen of `watch`: it fits the terminal, and shows what is known of a run."""

from __future__ import annotations

import io
import json
import math
import os
import time

import pytest
from rich.console import Console

from noiseless.files.atomic import write_json
from noiseless.files.directory import RunDirectory
from noiseless.files.reading import Followed
from noiseless.plain import sealed
from noiseless.recipes.config import Config
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.report import watching
from noiseless.report.text import ASCII_BLOCKS, BLOCKS

RECIPE = with_flags(Recipe(), name="fb-tiny", data="digits", model="resnet8", steps=40, seed=3)


def row(step, **more):
    loss = math.exp(-step / 4)
    return {
        "step": step, "passes": 2.0 * (step + 1), "lr": 0.1, "train_loss": loss, "train_accuracy": 1 - loss / 2,
        "gradient_norm": 3 * loss, "block_gradient_norm": loss, "parameter_norm": 30.0, "penalty": 0.0, "clipped": 0.0,
        "seconds": 0.5,
    } | more  # fmt: skip


@pytest.fixture
def make(tmp_path):
    def make(rows, recipe=RECIPE, name="run"):
        path = tmp_path / name
        path.mkdir()
        write_json(path / "config.json", sealed(Config(recipe).as_json()))
        if rows:
            (path / "metrics.jsonl").write_text("".join(json.dumps(values) + "\n" for values in rows))
        run = Followed(path)
        run.look()
        return run

    return make


def drawn(content, width=100, encoding="utf-8"):
    """The lines of a terminal of a width and an encoding."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding=encoding)
    Console(file=file, width=width, highlight=False, markup=False, emoji=False).print(content)
    file.flush()
    return written.getvalue().decode(encoding).splitlines()


def full(step):
    """A row with everything that an analysis adds."""
    more = {"sharpness": 10.0 + step, "stability": 20.0, "noise_scale": 5.0 * step + 1, "penalty": 0.01}
    return row(step, **more, **({"test_accuracy": step / 40, "test_loss": 1.0} if step % 4 == 3 else {}))


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("rows", [[], [row(0)], [full(step) for step in range(30)]], ids=["none", "one", "many"])
@pytest.mark.parametrize("width", [20, 40, 60, 61, 80, 132, 300])
@pytest.mark.parametrize("height", [4, 8, 12, 20, 24, 60])
def test_the_screen_fits_the_terminal(make, rows, width, height, ascii_only):
    run = make(rows)
    lines = drawn(watching.screen([run], width, height, ascii_only), width, "ascii" if ascii_only else "utf-8")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("runs", [2, 3, 7])
def test_several_runs_share_the_height(make, runs):
    watched = [make([full(step) for step in range(30)], name=f"run{number}") for number in range(runs)]
    lines = drawn(watching.screen(watched, 90, 40), 90)
    assert len(lines) <= 40
    assert sum(line.startswith("fb-tiny") for line in lines) == runs
    assert sum("step 30 of 40" in line for line in lines) == runs
    assert sum("training loss" in line for line in lines) == runs


def test_a_block_shows_the_numbers_of_the_rows(make):
    run = make([full(step) for step in range(30)])
    text = "\n".join(drawn(watching.block(run, 140), 140))
    assert "fb-tiny: resnet8 on digits, seed 3" in text
    assert "step 30 of 40, 60 passes, 0.5 s a step, about 5 s left" in text
    curves = {line[:14].strip(): line for line in text.splitlines() if set(line) & set(BLOCKS)}
    assert list(curves) == [
        "training loss", "test accuracy", "gradient norm", "sharpness", "noise scale", "penalty", "learning rate",
    ]  # fmt: skip
    loss = [math.exp(-step / 4) for step in range(30)]
    assert f"{loss[29]:.2e}".replace("e-0", "e-") in curves["training loss"]
    assert "to 1, log" in curves["training loss"]  # e**(29 / 4) = 1400 is more than 30
    drawn_loss = "".join(c for c in curves["training loss"] if c in BLOCKS)
    assert drawn_loss[0] == "█"
    assert drawn_loss[-1] == "▁"
    assert sum(c in BLOCKS for c in curves["test accuracy"]) == 7  # evaluated after steps 3, 7, ... 27
    assert "10 to 39, edge 20" in curves["sharpness"]
    heading, *table = text.splitlines()[-9:]
    names = heading.split()
    assert names[0] == "step"
    assert len(table) == 8
    cells = dict(zip(names, table[-1].split(), strict=False))
    assert cells["step"] == "29"
    assert table[-1].split()[names.index("lr")] == "0.1"
    assert [line.split()[0] for line in table] == [str(step) for step in range(22, 30)]


def test_a_penalty_that_the_run_does_not_have_is_no_curve(make):
    text = "\n".join(drawn(watching.block(make([row(step) for step in range(5)]), 100)))
    assert "training loss" in text
    assert "sharpness" not in text
    assert not any(line.startswith("penalty") for line in text.splitlines())


def test_null_values_are_gaps(make):
    rows = [row(step, gradient_norm=None if step in (1, 2) else 1.0 + step) for step in range(5)]
    (line,) = [line for line in drawn(watching.block(make(rows), 100)) if line.startswith("gradient norm")]
    assert line.endswith(" ▁  ▇█")  # on a scale of 1 to 5, 4 is at 3/4: above six of eight levels


def test_ascii_has_its_own_levels(make):
    lines = drawn(watching.block(make([row(step) for step in range(30)]), 100, ascii_only=True), 100, "ascii")
    (line,) = [line for line in lines if line.startswith("training loss")]
    assert line.split()[-1].startswith(ASCII_BLOCKS[-1])
    assert line.endswith(ASCII_BLOCKS[0])


def test_a_path_that_ascii_lacks_is_escaped(make):
    run = make([], name="läuft")
    assert "l\\xe4uft" in drawn(watching.block(run, 300, ascii_only=True), 300, "ascii")[0]


def test_the_state_of_a_run_is_shown(make):
    run = make([row(0)])
    os.utime(run.path / "metrics.jsonl", (0, time.time() - 600))
    run.look()
    assert watching.state(run) == "stopped, no process on this machine holds it; last row 10 min ago"
    with RunDirectory(run.path).locked():
        run.look()
        assert watching.state(run) == f"running, process {os.getpid()}; last row 10 min ago"
    (run.path / "model.safetensors").touch()
    run.look()
    assert watching.state(run) == "ended"
    fresh = make([], name="fresh")
    assert watching.state(fresh) == "stopped, no process on this machine holds it; no row yet"
    assert "step 0 of 40" in "\n".join(drawn(watching.block(fresh, 100)))


def test_damaged_lines_are_counted(make):
    run = make([row(0)])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write("oops\n" + json.dumps(row(1)) + "\n")
    run.look()
    text = "\n".join(drawn(watching.block(run, 140), 140))
    assert "1 damaged line of metrics.jsonl left out" in text
    assert "step 2 of 40" in text


def test_rows_without_numbers_can_be_drawn(make):
    run = make([{"step": 0}, {"step": 1, "seconds": None, "train_loss": None, "passes": None}])
    lines = drawn(watching.screen([run], 80, 24), 80)
    assert any("step 2 of 40" in line for line in lines)
