"""The fork of a run: two runs from bit-identical states that differ in one setting, or in one bit of one parameter.

How far they part over the steps, whether a barrier of the loss lies between their ends (linear mode connectivity,
Frankle et al., arXiv 1912.05671), and on which test images they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from noiseless.analysis.connectivity import Divergence, changed_elements, divergence
from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.directory import Row
from noiseless.files.parameters import read_parameters, write_parameters
from noiseless.files.pointfile import PointFile
from noiseless.run.build import Experiment, build
from noiseless.run.session import in_first
from noiseless.study.branches import Start, begin, branch_config, changed_start, go_on, replayed, start_of
from noiseless.study.forkline import answer_of, line_between
from noiseless.study.forks import ForkJob, points_file


def carry_out(
    job: ForkJob,
    on_row: Callable[[str, int, Row], None] = lambda name, until, row: None,
    on_point: Callable[[int], None] = lambda done: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Trains both runs, from what an interrupted call has left, and compares them.

    Args:
        job: the fork; every worker must call this.
        on_row: called with the name of a run, its last step and each row.
        on_point: called with the number of points of the line that are done.
        tell: gets messages for the user.

    Returns:
        The answer.

    Raises:
        ValueError: if a run diverges, or another process computes the same.
        Interrupted: if a worker was told to stop in a run.
        SweepStoppedError: if a worker was told to stop on the line.
    """
    start, workers = _start(job, tell), job.base.workers
    paths = {"base": job.place / "base", "changed": job.place / job.name}
    configs = {"base": job.base.config, "changed": job.config}
    torch_threads = torch.get_num_threads()
    changed = build(branch_config(configs["changed"], paths["changed"]), workers, read_only=True)
    other_start, notes = changed_start(start, job.base, changed, job.options.flip)
    flips = changed_elements(start.state["model"], other_start.state["model"])
    begin(paths["base"], build(branch_config(configs["base"], paths["base"]), workers, read_only=True), start)
    begin(paths["changed"], changed, other_start)
    file = points_file(job, "steps", start, Divergence)
    if workers.rank == 0:
        answers.folder(job.directory)
        (job.place / "marks").mkdir(exist_ok=True)
    with in_first(workers, file.opened):
        _mark(job, job.base, start.step, start)
        first = go_on(paths["base"], workers, job.until, lambda e, row: _base_row(job, e, row, on_row), tell)
        if workers.rank == 0 and (start.step,) not in file.points:
            thetas = [_theta(job.base, state.state["model"]) for state in (start, other_start)]
            file.add((start.step,), divergence(thetas[0], *thetas))
        second = go_on(
            paths["changed"], workers, job.until, lambda e, row: _changed_row(job, e, row, file, on_row), tell
        )
    torch.set_num_threads(torch_threads)
    line = line_between(job, start, (first, second), on_point)
    return answer_of(job, start, (first, second), file, line, flips, notes)


def _start(job: ForkJob, tell: Callable[[str], None]) -> Start:
    """The state at which the runs part."""
    held = start_of(job.directory, job.step, job.base)
    return held or replayed(job.directory, job.step, job.base, tell)


def _mark_path(job: ForkJob, step: int) -> Path:
    return job.place / "marks" / f"step-{step:08d}.safetensors"


def _mark(job: ForkJob, experiment: Experiment, step: int, start: Start | None = None) -> None:
    """Writes the parameters of the unchanged run after a number of steps, in the first worker."""
    if experiment.workers.rank == 0:
        theta = experiment.space.theta if start is None else _theta(experiment, start.state["model"])
        write_parameters(_mark_path(job, step), {"theta": theta})


def _theta(experiment: Experiment, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The parameters of a state as a vector `[P]`."""
    return torch.cat([state[name].reshape(-1).cpu() for name in experiment.space.names])


def _base_row(job: ForkJob, experiment: Experiment, row: Row, on_row: Callable[[str, int, Row], None]) -> None:
    if row["step"] + 1 in job.marks:
        _mark(job, experiment, row["step"] + 1)
    on_row("unchanged", job.until, row)


def _changed_row(
    job: ForkJob, experiment: Experiment, row: Row, file: PointFile[Divergence], on_row: Callable[[str, int, Row], None]
) -> None:
    step = row["step"] + 1
    path = _mark_path(job, step)
    if experiment.workers.rank == 0 and step in job.marks and path.exists():  # an unchanged run may end early
        begun, other = (read_parameters(p, sealed=True)["theta"] for p in (_mark_path(job, job.step), path))
        file.add((step,), divergence(begun, other, experiment.space.theta.detach().cpu()))
    on_row("changed", job.until, row)
