"""The commands `evaluate`, `report`, `digest` and `verify`, which read runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from noiseless.commands.arguments import OneRun, one_run, take
from noiseless.commands.asking import as_worker
from noiseless.commands.console import console, tell_aside
from noiseless.commands.parsing import parse
from noiseless.errors import message
from noiseless.exits import DIFFERENT
from noiseless.run import prepared

if TYPE_CHECKING:
    from noiseless.ask.verify import RoundingDifference
    from noiseless.files.directory import RunDirectory
    from noiseless.objective.workers import Workers
    from noiseless.run.evaluate import Score


def evaluate(arguments: list[str]) -> int:
    """Prints loss and accuracy of a run's model, and of the average of its parameters if the run keeps one."""
    from noiseless.files.parameters import fill
    from noiseless.run.build import rebuild
    from noiseless.run.evaluate import score

    directory = one_run(
        arguments,
        "evaluate",
        "Print the loss and accuracy of a run's model on the training and test images, and save its test predictions.",
    )
    experiment = rebuild(directory)
    recipe, ended = experiment.config.recipe, directory.model.exists()
    if recipe.evaluation.test_flips:
        console.print("class probabilities are averaged over the image and its mirror image (--test-flips)")
    test_scores = []
    ema = recipe.evaluation.ema
    for average in (True, False) if ema else (False,):
        if ema:
            title = f"exponential average of the parameters (momentum {ema:g}), as in the test columns of the record:"
            console.print(title if average else "final parameters:")
        file = directory.average if average else directory.model
        fill(experiment.model, directory.state(average), file if ended else directory.checkpoints)
        for part, images in (("train", experiment.train), ("test", experiment.test)):
            result = score(experiment.model, replace(images, augment="none", policy=None), recipe.evaluation.test_flips)
            console.print(f"{part:5}  loss {result.loss:.6f}  accuracy {result.accuracy:.4%}  ({len(images)} images)")
        test_scores.append(result)  # on the test images; the first one is that of the record
    if ended:
        _save_predictions(directory.path, test_scores[0])
    else:
        console.print("the run has not ended: these are the results of its newest checkpoint")
    return 0


def _save_predictions(path: Path, score: Score) -> None:
    """Writes the predictions of a run unless the file exists, and warns if they differ from the file."""
    from noiseless.files import predictions

    file = path / predictions.FILE
    try:
        differing = predictions.keep(path, score.predictions)
    except OSError as error:
        console.print(f"predictions are not saved: {message(error)}", style="yellow")
        return
    if differing is None:
        console.print(f"predictions: {file}")
    elif differing:
        console.print(
            f"{file} is left unchanged, but {differing} of its predictions differ from those computed now",
            style="yellow",
        )


@dataclass(frozen=True)
class Report:
    """Write one HTML page with a table and all figures of runs; runs of one recipe are shown as mean and band.

    The page works without a network. --figures also writes each figure as PNG and SVG, and its data as CSV.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """directories of runs"""
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"])] = None
    """path of the page; none: report.html in the directory of the first run"""
    figures: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """directory for NAME.png, NAME.svg and NAME.csv of each figure; none: no such files"""
    over: Literal["passes", "steps"] = "passes"
    """horizontal axis of the curves in the files of --figures; the page has both"""


def report(arguments: list[str]) -> int:
    """Writes the report of runs."""
    args = parse(Report, arguments, "report")
    if not args.runs:
        raise ValueError("give at least one run: noiseless report RUN [RUN ...]")

    from noiseless.files.directory import RunDirectory
    from noiseless.report import page, summary

    runs = summary.read(RunDirectory.open(Path(run)) for run in args.runs)
    summaries = summary.by_recipe(runs)
    console.print(summary.table(summaries, "runs"))
    path = Path(args.output) if args.output else runs[0].directory.path / "report.html"
    page.write(path, runs, "Noiseless: report")
    console.print(f"report: {path}")
    if args.figures is not None:
        from noiseless.report import contents, drawing  # import matplotlib, which the page does not need

        figures = [figure for section in contents.sections(summaries) for figure in section.figures]
        drawing.write(Path(args.figures), figures, args.over)
        console.print(f"figures: {len(figures)} in {args.figures}, each as {', '.join(drawing.FORMATS)}")
    return 0


def digest(arguments: list[str]) -> int:
    """Prints the SHA-256 of a run's final parameters and buffers."""
    from noiseless.files.plaindigest import final_digest

    directory = one_run(
        arguments,
        "digest",
        "Print the SHA-256 of the final parameters and buffers: equal digests mean equal bits.",
        OneRun,
    )
    digest = final_digest(directory)
    if digest is None:
        from noiseless.files import checkpoint

        digest = checkpoint.digest(directory.state())
        if not directory.model.exists():
            tell_aside("the run has not ended: this is the digest of its newest checkpoint")
    console.print(digest)
    return 0


def verify(arguments: list[str]) -> int:
    """Compares the bits of a run's gradient between orders of blocks and numbers of workers, and with other sums."""
    part, arguments = take(arguments, "--part")  # given in the worker jobs that verify starts: file for the digest
    precision = "--no-precision" not in arguments  # float64 may be many times slower
    directory = one_run(
        [argument for argument in arguments if argument != "--no-precision"],
        "verify [--no-precision]",
        "Check that the gradient at the newest state of a run has the same bits for other orders of blocks and other"
        " numbers of workers. Then print how much it differs from plain float32 sums, and loss and gradient from those"
        " in float64; --no-precision leaves out the latter, which may be slow.",
    )
    if part is None:
        prepared.start()  # for the jobs; it imports torch while this process does
    from noiseless.ask import verify as verification

    if part is not None:
        return _verify_part(directory, Path(part))
    digests, differences = verification.verify(directory)
    equal = len({gradient.digest for gradient in digests}) == 1
    table = Table(title="the gradient of the newest state, computed in several ways")
    for heading in ("way", "digest of gradient, loss, hits and statistics", ""):
        table.add_column(heading)
    for gradient in digests:
        table.add_row(gradient.way, gradient.digest, "equal" if gradient.digest == digests[0].digest else "DIFFERENT")
    console.print(table)
    console.print(_differences("what plain float32 sums of the same block gradients differ by", "summed", differences))
    if precision:
        from noiseless.ask.precision import against_float64

        title = "what gradient and loss differ by from those in float64 throughout"
        console.print(_differences(title, "computed", against_float64(directory)))
    console.print("all equal" if equal else "not equal")
    return 0 if equal else DIFFERENT


def _verify_part(directory: RunDirectory, path: Path) -> int:
    """Computes the gradient as one worker of a job that `verify` has started, and writes its digest."""
    from noiseless.ask.verify import write_digest

    def work(workers: Workers) -> int:
        write_digest(directory, path, workers)
        return 0

    return as_worker(work, ["verify", str(directory.path)], "start again with")


def _differences(title: str, heading: str, differences: list[RoundingDifference]) -> Table:
    """Table of the largest and the relative difference of each way of computing the gradient."""
    table = Table(title=title)
    losses = any(difference.loss is not None for difference in differences)
    for name in (heading, "largest difference", "relative, in L2", *(["loss, relative"] if losses else [])):
        table.add_column(name)
    for difference in differences:
        numbers = [difference.largest, difference.relative, difference.loss]
        table.add_row(difference.way, *(f"{number:.2e}" for number in numbers if number is not None))
    return table
