"""The line between the ends of a fork's two runs, point by point, and the answer of a fork that is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from noiseless.analysis.connectivity import Divergence, LinearPath, barrier
from noiseless.analysis.landscape import spread
from noiseless.files import checkpoint
from noiseless.files.answers import Answer
from noiseless.files.directory import RunDirectory
from noiseless.files.parting import compare_records
from noiseless.files.pointfile import PointFile
from noiseless.objective import EmpiricalRisk
from noiseless.run.build import Experiment
from noiseless.run.evaluate import score
from noiseless.run.session import in_first
from noiseless.study.branches import Start
from noiseless.study.forks import KIND, ForkJob, LinePoint, answer_name, points_file
from noiseless.study.pairs import paired


def line_between(
    job: ForkJob, start: Start, ends: tuple[RunDirectory, RunDirectory], on_point: Callable[[int], None]
) -> list[LinePoint] | None:
    """The points of the line between the ends; None where the ends are equal to the bit."""
    states = [end.state() for end in ends]
    if checkpoint.digest(states[0]) == checkpoint.digest(states[1]):
        return None
    base, workers, file = job.base, job.base.workers, points_file(job, "line", start, LinePoint)
    path = LinearPath(plain_risk(base), states[0], states[1], job.options.batch_norm)
    coordinates = spread(0, 1, job.options.points)
    with in_first(workers, file.opened):
        known = {int(k) for k in workers.exchange(" ".join(str(k) for k, *_ in file.points))[0].split()}
        for number, coordinate in enumerate(coordinates):
            if number not in known:
                with path.at(coordinate) as point:
                    if workers.rank == 0:
                        tested = score(base.model, base.test, base.config.recipe.evaluation.test_flips)
                        file.add((number,), LinePoint(
                            point.loss, _complement(point.accuracy), _finite(tested.loss),
                            None if point.loss is None else 1 - tested.accuracy, point.passes,
                        ))  # fmt: skip
            on_point(number + 1)
    return [file.points[number,] for number in range(len(coordinates))] if workers.rank == 0 else []


def plain_risk(experiment: Experiment) -> EmpiricalRisk:
    """The loss over all training images of a run without augmentation, each once, in the order of the data set."""
    risk, recipe = experiment.regime.risk_at(0), experiment.config.recipe
    images = replace(experiment.train, augment="none", policy=None)
    draws = recipe.objective.max_up  # a loss that takes the largest of an image's draws gets equal ones
    order = torch.arange(len(images)).repeat_interleave(draws) if draws > 1 else None
    selection = replace(risk.selection, examples=images, order=order, examples_per_pass=len(images), step=0)
    return risk.at(selection)


def answer_of(
    job: ForkJob, start: Start, ends: tuple[RunDirectory, RunDirectory], file: PointFile[Divergence],
    line: list[LinePoint] | None, flips: dict[str, int], notes: list[str],
) -> Answer:  # fmt: skip
    """The answer of a fork that is done."""
    steps = sorted(step for (step,) in file.points)
    measured = [file.points[step,] for step in steps]
    rows = [{row["step"]: row for row in end.rows()} for end in ends]
    losses = [[of_run.get(step, {}).get("train_loss") for step in steps] for of_run in rows]
    parted = compare_records(*ends).first
    reproduced = compare_records(job.directory, ends[0])
    coordinates = spread(0, 1, job.options.points)
    quantities = ("loss", "error", "test_loss", "test_error")
    columns = {name: [getattr(point, name) for point in line or []] for name in quantities}
    heights = {name: barrier(coordinates, values) if values else None for name, values in columns.items()}
    passes = [of_run[max(of_run)]["passes"] - start.state["passes"] for of_run in rows if of_run]
    values = {
        "step": job.step,
        "until": job.until,
        "changes": job.changes,
        "flip": None if job.options.flip is None else asdict(job.options.flip),
        "notes": notes,
        "changed_at_start": flips,
        "parted": parted and {"step": parted.step, "columns": {name: list(v) for name, v in parted.columns.items()}},
        "reproduced": {"steps": reproduced.common, "parted": reproduced.first and reproduced.first.step},
        "steps": steps,
        **{name: [getattr(point, name) for point in measured] for name in Divergence.__dataclass_fields__},
        "losses": losses,
        "parameters": len(job.base.space),
        "equal_ends": line is None,
        "points": coordinates,
        "line": columns,
        "barriers": {name: height and asdict(height) for name, height in heights.items()},
        "batch_norm": job.options.batch_norm,
        "images": paired(*(end.path for end in ends)),
        "runs": [str(end.path.relative_to(job.directory.path)) for end in ends],
        "passes": math.fsum([*passes, *(point.passes for point in line or [])]),
    }
    return Answer(KIND, answer_name(job), values)


def _complement(accuracy: float | None) -> float | None:
    return None if accuracy is None else 1 - accuracy


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
