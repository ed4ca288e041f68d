"""Runs for the tests of report/ whose rows and answers are written by hand, so that every number is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.directory import RunDirectory
from noiseless.plain import sealed
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.report.contents import sections
from noiseless.report.summary import Run, by_recipe

COMMAND = ["noiseless", "train", "fb", "--run-dir", "runs/a b"]


def row(step: int, **values: Any) -> dict[str, Any]:
    """A row with what every row has: step + 1 passes, a loss of 1 / (step + 1)."""
    return {
        "step": step, "passes": step + 1.0, "lr": 0.1, "train_loss": 1 / (step + 1), "train_accuracy": 0.5,
        "gradient_norm": 2.0, "block_gradient_norm": 3.0, "parameter_norm": 10.0 + step, "penalty": 0.0, "clipped": 0.0,
        "seconds": 0.25,
    } | values  # fmt: skip


def shown(path: Path, rows: list[dict[str, Any]], ended: bool = True, **flags: Any) -> Run:
    """A run's directory with these rows, as a report sees it."""
    path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path)
    recipe = with_flags(Recipe(), **flags)
    (path / "config.json").write_text(json.dumps(sealed(Config(recipe, Settings()).as_json())))
    (path / "environment.json").write_text(json.dumps({"torch": "2", "command": COMMAND}))
    directory.metrics.write_text("".join(json.dumps(values) + "\n" for values in rows))
    if ended:
        directory.model.touch()
    return Run(directory, recipe, rows)


def answer(run: Run, kind: str, name: str, **values: Any) -> None:
    """Writes an answer of a run."""
    answers.write(run.directory, Answer(kind, name, values))


def sharpness(run: Run, name: str, **values: Any) -> None:
    """Writes an answer about sharpness; other values are those that `noiseless sharpness` writes by default."""
    defaults = {
        "of": "loss", "preconditioned": False, "batch_norm": "block", "density": None, "trace": None, "smallest": [],
        "stability": None, "converged": True, "passes": 0.0, "seconds": 0.5, "lr": 0.1,
    }  # fmt: skip
    answer(run, "sharpness", name, **(defaults | values))


def edge(run: Run, name: str, **values: Any) -> None:
    """Writes an answer about the edge of stability at the steps 0, 1 and 2; two eigenvalues change places at 2."""
    defaults = {
        "step": 0, "until": 3, "every": 1, "optimizer": "SGD", "momentum": 0.0, "measure": "eigenvalue", "of": "loss",
        "preconditioned": False, "reasons": [], "batch": 16, "steps": [0, 1, 2], "lr": [0.1] * 3,
        "sharpness": [9.0, 21.0, 22.0], "edge": [20.0, 20.0, None],
        "eigenvalues": [[9.0, 4.0], [21.0, 5.0], [22.0, 6.0]],
        "branches": [[0, 1], [0, 1], [2, 0]], "overlaps": [[None, None], [0.9, 0.9], [0.1, 0.8]],
        "batch_sharpness": [1.0, 2.0, 3.0], "losses": [1.0, 2.0, 0.5], "crossings": [{"branch": 0}],
        "catapults": [{"peak": 1, "peak_loss": 2.0}], "reproduced": {"equal": 3, "compared": 3}, "passes": 40.0,
        "seconds": 1.0,
    }  # fmt: skip
    answer(run, "edge", name, **(defaults | values))


def bowl(n: int, m: int) -> list[list[float]]:
    """`loss[i][j] = 0.1 + i**2 + 10 * j**2`, which differs between the two axes."""
    return [[0.1 + i**2 + 10 * j**2 for j in range(m)] for i in range(n)]


def axis(count: int, label: str = "direction 1", **values: Any) -> dict[str, Any]:
    """An axis of a landscape with its points at 0, 1, ..."""
    points = [float(k) for k in range(count)]
    return {"label": label, "kind": "random", "seed": 0, "normalised": "filter", "points": points} | values


def analysed(path: Path, steps: int = 8, **flags: Any) -> Run:
    """A run with everything: analyses in its rows and all kinds of answers, a gap in most of them."""
    seed = flags.get("seed", 0)
    layers = ("conv1.weight", "bn1.weight", "linear.weight")
    rows = []
    for k in range(steps):
        values: dict[str, Any] = {
            "penalty": 0.01 * (k + 1),
            "gradient_norm": 2.0 / (k + 1) + 0.1 * seed,
            "test_loss": 1.0,
        }
        values |= {"test_accuracy": 0.5 + 0.05 * k + 0.01 * seed, "lr": 0.1 * (1 - k / steps), "train_loss": 2.0**-k}
        sharpness = None if k == 3 else 5.0 + k + seed
        values |= {
            "eigenvalues": [sharpness, 2.0 + 0.1 * k, 1.0], "eigenvalue_residuals": [1e-3] * 3, "sharpness": sharpness,
            "stability": 2 / (0.1 * (1 - k / steps)), "noise_scale": 100.0 * (k + 1), "signal_to_noise": 0.5 / (k + 1),
            "asked_passes": 10.0,
            "layers": {
                name: {"norm": 1.0 + i + k, "distance": 0.1 * k * i, "gradient_norm": 0.5, "update_ratio": 1e-3 * i}
                for i, name in enumerate(layers, 1)
            },
        }  # fmt: skip
        rows.append(row(k, **values))
    run = shown(path, rows, **flags)
    edge(run, "step-0")
    grid = [-2.0 + 0.1 * k for k in range(100)]
    density = {"grid": grid, "density": [math.exp(-8 * x * x) for x in grid], "probes": 3, "steps": 20, "width": 0.1}
    answer(
        run, "sharpness", f"{steps}", step=steps, of="loss", batch_norm="block", largest=[13.0, 4.0], smallest=[-0.5],
        largest_residuals=[1e-3, 1e-3], smallest_residuals=[1e-3], converged=True, passes=40.0, seconds=1.5, lr=0.1,
        stability=20.0, preconditioned=False, density=density, trace={"value": 30.0, "error": 0.5},
    )  # fmt: skip
    answer(
        run, "noise", f"{steps}", step=steps, block=16, blocks=3, norm_block=16, gradient_norm=0.1,
        block_norms=[1.0] * 3, noise_scale=850.0, covariance_trace=8.5, signal_to_noise=0.05,
        alignment=0.2, cosines=[0.4, 0.5, 0.6], momentum_cosine=0.9,
        by_block=[{"block": 16, "signal_to_noise": 0.05}, {"block": 32, "signal_to_noise": 0.1}],
        layers={name: {"signal_to_noise": 0.1 * (k + 1), "gradient_norm": 0.1} for k, name in enumerate(layers)},
        passes=1.0,
    )  # fmt: skip
    points = [-1.0, -0.5, 0.0, 0.5, 1.0]
    losses = [0.1 + 3 * x * x for x in points]
    answer(
        run, "landscape", f"{steps}-1d", step=steps, axes=[axis(5, points=points)], loss=[*losses[:-1], None],
        accuracy=[0.5, 0.8, 1.0, 0.8, 0.5], penalised=[x + 0.1 for x in losses], batch_norm="block", passes=5.0, done=5,
        total=5,
    )  # fmt: skip
    if seed == 0:
        loss: list[list[float | None]] = [list(line) for line in bowl(7, 6)]
        loss[0][5] = None
        flat = [[1 - value / 400 for value in line] for line in bowl(7, 6)]
        axes = [axis(7), axis(6, "direction 2", seed=1)]
        answer(
            run, "landscape", f"{steps}-2d", step=steps, axes=axes, loss=loss, accuracy=flat, penalised=None,
            batch_norm="running", passes=42.0, done=41, total=42,
        )  # fmt: skip
    answer(
        run, "flatness", f"{steps}", step=steps, radius=0.1, normalised="filter", directions=5, mean_increase=0.02,
        standard_error=0.001, increases=[0.02] * 5, stopped="converged", passes=5.0,
    )  # fmt: skip
    return run


def figures(*runs: Run) -> dict[str, Any]:
    """All figures by id."""
    all_figures = [figure for section in sections(by_recipe(runs)) for figure in section.figures]
    by_id = {figure.id: figure for figure in all_figures}
    assert len(by_id) == len(all_figures)
    return by_id


def series(figure: Any, over: str = "steps") -> Any:
    """The series of a figure over steps or passes."""
    return figure.views[over].series
