"""Messages of a run that has stopped before its end: what has happened, and how to go on."""

from __future__ import annotations

from noiseless import trust
from noiseless.errors import command
from noiseless.files.directory import RunDirectory
from noiseless.objective.base import square_norms
from noiseless.optim import Step
from noiseless.run.build import Training


def go_on(what: str, experiment: Training, directory: RunDirectory | None) -> str:
    """What has happened, and the command or call that goes on."""
    if directory is None:
        return what
    same = experiment.config.python and "fit with the same arguments"
    return f"{what}; go on with: {same or command('resume', directory.path, *trust.flags())}"


def diagnosis(update: Step, step: int, number: int, lr: float, run: RunDirectory | None) -> str:
    """The message of a run that diverged in an update of a step."""
    evaluation = update.evaluation
    norm = square_norms(evaluation.gradient).sqrt().item()
    kept = f"The checkpoints before it are kept in {run.checkpoints}. " if run else ""
    return (
        f"the objective is not finite at step {step}, update {number}: loss {evaluation.loss:g}, penalty"
        f" {evaluation.penalty:g}, lr {lr:g}, gradient norm {norm:g}. {kept}Try a smaller"
        " --lr, a longer --warmup or --clip"
    )
