"""The commands that read a run: evaluate, report, digest, verify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from noiseless.commands.arguments import one_run, take
from noiseless.commands.asking import in_job
from noiseless.commands.console import console
from noiseless.errors import message
from noiseless.exits import DIFFERENT

if TYPE_CHECKING:
    from noiseless.ask.verify import RoundingDifference
    from noiseless.files.directory import RunDirectory
    from noiseless.objective.workers import Workers
    from noiseless.run.evaluate import Score


def evaluate(arguments: list[str]) -> int:
    """Loss and accuracy of a run's model, and of the average of its states where the run keeps one."""
    from noiseless.files.parameters import fill
    from noiseless.run.build import rebuild
    from noiseless.run.evaluate import score

    directory = one_run(arguments, "evaluate")
    experiment = rebuild(directory)
    recipe, ended = experiment.config.recipe, directory.model.exists()
    if recipe.evaluation.test_flips:
        console.print("class probabilities are averaged with those of the mirror image")
    tested = []
    ema = recipe.evaluation.ema
    for average in (True, False) if ema else (False,):
        if ema:
            kept = f"the average of its states, momentum {ema:g}: what the record's test columns are of"
            console.print(kept if average else "the model as training has left it:")
        file = directory.average if average else directory.model
        fill(experiment.model, directory.state(average), file if ended else directory.checkpoints)
        for part, images in (("train", experiment.train), ("test", experiment.test)):
            result = score(experiment.model, replace(images, augment="none", policy=None), recipe.evaluation.test_flips)
            console.print(f"{part:5}  loss {result.loss:.6f}  accuracy {result.accuracy:.4%}  ({len(images)} images)")
        tested.append(result)  # on the test images; the first is what the record's test columns are of
    if ended:
        _keep_predictions(directory.path, tested[0])
    else:
        console.print("the run has not ended: this is its newest checkpoint")
    return 0


def _keep_predictions(path: Path, tested: Score) -> None:
    """Writes a run's predictions where they are not there yet, and tells what a comparison of runs has to know."""
    from noiseless.files import predictions

    file = path / predictions.FILE
    try:
        differing = predictions.keep(path, tested.predictions)
    except OSError as error:
        console.print(f"predictions are not written: {message(error)}", style="yellow")
        return
    if differing is None:
        console.print(f"predictions: {file}")
    elif differing:
        console.print(f"{file} is kept as the run has written it: {differing} predictions differ there", style="yellow")


@dataclass(frozen=True)
class Report:
    """Write one HTML page with the table and all figures of runs; runs of one recipe become mean and band.

    The page opens without a network. --figures writes each figure as PNG and SVG and its data as CSV, too.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """directories of runs"""
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"])] = None
    """path of the page; none: report.html in the first run"""
    figures: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """directory for NAME.png, NAME.svg and NAME.csv of each figure; none: they are in the page alone"""
    over: Literal["passes", "steps"] = "passes"
    """horizontal axis of the curves in these files; the page has both"""


def report(arguments: list[str]) -> int:
    """Writes the report of runs."""
    flags = tyro.cli(Report, args=arguments, prog="noiseless report")
    if not flags.runs:
        raise ValueError("give at least one run: noiseless report RUN [RUN ...]")

    from noiseless.files.directory import RunDirectory
    from noiseless.report import page, summary

    runs = summary.read(RunDirectory.open(Path(run)) for run in flags.runs)
    summaries = summary.by_recipe(runs)
    console.print(summary.table(summaries, "runs"))
    path = Path(flags.output) if flags.output else runs[0].directory.path / "report.html"
    page.write(path, runs, "Noiseless: report")
    console.print(f"report: {path}")
    if flags.figures is not None:
        from noiseless.report import contents, drawing  # matplotlib, which the page does not need

        figures = [figure for section in contents.sections(summaries) for figure in section.figures]
        drawing.write(Path(flags.figures), figures, flags.over)
        console.print(f"figures: {len(figures)} in {flags.figures}, each as {', '.join(drawing.FORMATS)}")
    return 0


def digest(arguments: list[str]) -> int:
    """SHA-256 over a run's final parameters and buffers."""
    from noiseless.files import checkpoint

    directory = one_run(arguments, "digest")
    state = directory.state()
    if not directory.model.exists():
        Console(stderr=True).print("the run has not ended: this is its newest checkpoint")
    console.print(checkpoint.digest(state))
    return 0


def verify(arguments: list[str]) -> int:
    """Compares the bits of a run's gradient, computed in several orders, with several workers, in other precisions."""
    part, arguments = take(arguments, "--part")  # in a job that verify has started: the file of its digest
    precision = "--no-precision" not in arguments  # float64 may take many times as long
    directory = one_run([argument for argument in arguments if argument != "--no-precision"], "verify")

    from noiseless.ask import verify as verification

    if part is not None:
        return _verify_part(directory, Path(part))
    digests, differences = verification.verify(directory)
    equal = len({way.digest for way in digests}) == 1
    table = Table(title="the gradient of the newest state, computed in several ways")
    for heading in ("way", "digest of gradient, loss, hits and statistics", ""):
        table.add_column(heading)
    for way in digests:
        table.add_row(way.way, way.digest, "equal" if way.digest == digests[0].digest else "DIFFERENT")
    console.print(table)
    console.print(_differences("what plain float32 sums of the same block gradients differ by", "summed", differences))
    if precision:
        from noiseless.ask.precision import against_float64

        title = "what the gradient differs by from the one in float64 throughout"
        console.print(_differences(title, "computed", against_float64(directory)))
    console.print("all equal" if equal else "not equal")
    return 0 if equal else DIFFERENT


def _verify_part(directory: RunDirectory, path: Path) -> int:
    """As one worker of a job that verify has started: computes the gradient with the others."""
    from noiseless.ask.verify import write_digest

    def work(workers: Workers) -> int:
        write_digest(directory, path, workers)
        return 0

    return in_job(work, ["verify", str(directory.path)], "start again with")


def _differences(title: str, heading: str, differences: list[RoundingDifference]) -> Table:
    table = Table(title=title)
    for name in (heading, "largest difference", "relative, in L2"):
        table.add_column(name)
    for difference in differences:
        table.add_row(difference.way, f"{difference.largest:.2e}", f"{difference.relative:.2e}")
    return table
