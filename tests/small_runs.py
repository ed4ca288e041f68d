"""Small real runs for the tests of run/, report/ and the command line: tiny data, commands in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from noiseless import cli, keyed
from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.files.parameters import write_parameters
from noiseless.objective.workers import Alone, Workers
from noiseless.plain import sealed, unsealed
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import Experiment, build, rebuild
from noiseless.run.train import Interrupted, Progress, train

IMAGES, TESTED, CLASSES, SIDE = 48, 20, 4, 8


def read_config(run: Path) -> dict[str, Any]:
    """The values of a run's config."""
    return unsealed(json.loads((run / "config.json").read_text()))


def write_config(run: Path, values: dict[str, Any]) -> None:
    """Writes a run's config as anybody could: with the digest that fits."""
    (run / "config.json").write_text(json.dumps(sealed(values)))


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Keyed noise whose mean depends on the class: 48 training and 20 test images of 8x8, 4 classes."""
    data: dict[str, np.ndarray] = {}
    for part, count in (("train", IMAGES), ("test", TESTED)):
        labels = keyed.integers(seed, f"labels-{part}", 0, torch.arange(count), CLASSES)
        labels[:CLASSES] = torch.arange(CLASSES)  # every class occurs
        pixels = keyed.integers(seed, f"pixels-{part}", 0, torch.arange(count * SIDE**2), 128).reshape(-1, SIDE, SIDE)
        data[f"x_{part}"] = (pixels + 40 * labels[:, None, None]).clamp(max=255).numpy().astype(np.uint8)
        data[f"y_{part}"] = labels.numpy()
    return data


def npz(path: Path, **changes: np.ndarray) -> str:
    """Writes the tiny data set, some arrays replaced; returns the value of --data."""
    np.savez(path, **(arrays() | changes))
    return f"npz:{path}"


def call(*arguments: object) -> Answer:
    """Runs a command line in this process; restores signal handlers and the number of threads."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.run([str(a) for a in arguments])
            except SystemExit as stop:  # raised by the parser; main() does not catch it
                code = stop.code if isinstance(stop.code, int) else 1
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Answer(code, out.getvalue(), err.getvalue())


def refused(*arguments: object, names: tuple[object, ...]) -> str:
    """Asserts that a command is refused as the design asks; returns the message.

    Exit code 2, one line on standard error with each of `names` in it, nothing that looks like a traceback.
    """
    answer = call(*arguments)
    assert answer.code == 2, answer
    assert "Traceback" not in answer.out + answer.err
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1, answer.err
    for name in names:
        assert str(name) in lines[0], lines[0]
    return lines[0]


def start_program(*arguments: object, cwd: Path | None = None, **environ: str) -> subprocess.Popen[str]:
    """Starts the program in another process."""
    command = [sys.executable, "-m", "noiseless", *(str(a) for a in arguments)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environ
    return subprocess.Popen(command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def count_lines(path: Path) -> int:
    """The number of complete lines of a file; 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def words(text: str) -> str:
    """Text as one line, so that where a terminal breaks it does not matter."""
    return re.sub(r"\s+", " ", text)


def small_recipe(data: str, name: str = "fb-practice", **changes: Any) -> Recipe:
    """A row of the ladder on tiny data: 3 steps, blocks of 16, a warm-up of one step."""
    tiny = {"data": data, "model": "resnet2", "steps": 3, "block": 16, "warmup": 1, "horizon": 4}
    return with_flags(row(name), **(tiny | changes))


def prepare(recipe: Recipe, workers: Workers | None = None, **settings: Any) -> Experiment:
    """The objects of a run on one thread."""
    return build(Config(recipe, Settings(threads=1, **settings)), workers)


def run(path: Path, recipe: Recipe, stop_after: int | None = None, **settings: Any) -> RunDirectory:
    """A new run, trained to its end or until the step `stop_after` is done."""
    steps_done = [-1]
    workers = Alone(lambda: stop_after is not None and steps_done[-1] >= stop_after)
    experiment = prepare(recipe, workers, run_dir=str(path), **settings)
    directory = RunDirectory(path)
    progress = Progress(on_row=lambda row: steps_done.append(row["step"]))
    with (
        directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, ["test"])),
        contextlib.suppress(Interrupted),
    ):
        train(experiment, directory, progress)
    return directory


def resume(directory: RunDirectory) -> list[str]:
    """Resumes a run to its end, in new objects; returns the messages."""
    messages: list[str] = []
    with directory.locked():
        train(rebuild(directory), directory, Progress(on_message=messages.append))
    return messages


def examples_of_step(experiment: Experiment, step: int) -> list[tuple[torch.Tensor, ...]]:
    """The examples of each objective of a step: (images `[n, C, H, W]`, labels `[n]`), in the order of the blocks."""
    parts = []
    for objective in experiment.regime.objectives(step):
        risk = getattr(objective, "risk", objective)
        blocks = [risk.selection.examples.take(chunk.index.flatten()) for chunk in risk.blocks.chunks(1)]
        parts.append(tuple(torch.cat(column) for column in zip(*blocks, strict=True)))
    return parts


def record(directory: RunDirectory) -> tuple[str, list[dict[str, Any]]]:
    """The digest and the rows without their seconds, which are equal for equal runs."""
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "asked_seconds")} for row in directory.rows()]
    assert directory.model.exists()
    return checkpoint.digest(directory.state()), rows


def replace_final(directory: RunDirectory, state: dict[str, torch.Tensor]) -> None:
    """Makes a state that of a run's end, as if the run had written it; the last checkpoint is removed."""
    rows = directory.rows()
    for path in directory.checkpoints.glob(f"step-{rows[-1]['step'] + 1:08d}.*"):
        path.unlink()
    rows[-1]["final"] = {"model": checkpoint.digest(state)}
    directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_parameters(directory.model, state)


def copy(directory: RunDirectory, path: Path) -> RunDirectory:
    """A copy of a run, to be damaged or resumed."""
    shutil.copytree(directory.path, path)
    return RunDirectory(path)


def files(path: Path) -> dict[str, bytes]:
    """Every file below a directory with its content."""
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}
