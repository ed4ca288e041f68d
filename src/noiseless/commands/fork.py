"""The command `fork`: two runs from one state that differ in one setting, or in one bit of one parameter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table

from noiseless.ask.options import BatchNorm
from noiseless.commands.asking import CostlyFlags, answer_question
from noiseless.commands.console import console, duration
from noiseless.commands.flags import read_flags
from noiseless.commands.interrupt import interruptible
from noiseless.errors import shown
from noiseless.recipes.checks import at_least
from noiseless.report.text import number

if TYPE_CHECKING:
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.files.directory import Row
    from noiseless.objective.workers import Workers
    from noiseless.recipes.config import Config
    from noiseless.study.branches import Flip
    from noiseless.study.forks import ForkJob

FLIP = re.compile(r"(?P<name>[^\[\]:]+)(?:\[(?P<index>[0-9, ]*)\])?(?::(?P<bit>[0-9]+))?")
"""form of --flip-bit"""
SHOWN = 12
"""rows of the table of distances, and images that are listed"""


@dataclass(frozen=True)
class ForkFlags(CostlyFlags):
    """Train on from a state of a run twice, once with one thing changed, and compare the two runs.

    The state is the one after @STEP steps, without it the initial one. A state that the run has not kept is made again.
    Give --change, --flip-bit, or both; with neither, the two runs are the same. An interrupted fork goes on with the
    same command.
    """

    change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FLAG=VALUE [FLAG=VALUE ...]")] = ()
    """flags of noiseless train that are others in the changed run, such as lr=0.1, seed=1 or threads=2"""
    flip_bit: Annotated[str | None, tyro.conf.arg(metavar="NAME[INDEX]:BIT")] = None
    """bit of a parameter that is the other one in the changed run, such as fc.weight[0,3]:0; bit 0 is the lowest"""
    steps: int | None = None
    """steps of both runs; none: to the end of the recipe"""
    every: int | None = None
    """steps between measurements of the distance; none: a twentieth of the steps. Steps 1, 2, 4, 8, ... after the state
    are measured, too"""
    points: int = 11
    """points on the line between the ends, with both ends"""
    batch_norm: BatchNorm = "block"
    """block: training loss by the statistics of each block, and test error with their average at each point; running:
    both with running statistics on the line between those of the ends"""

    def check(self) -> None:
        """Refuses values that are wrong for any run."""
        super().check()
        at_least("steps", self.steps, 1)
        at_least("every", self.every, 1)
        at_least("points", self.points, 3)
        for change in self.change:
            flag, equals, _ = change.partition("=")
            if not equals or not re.fullmatch(r"[a-z][a-z_-]*", flag):
                raise ValueError(f"--change must have the form FLAG=VALUE, such as lr=0.1, not {shown(change)!r}")
        if self.flip_bit is not None and not FLIP.fullmatch(self.flip_bit):
            raise ValueError(
                f"--flip-bit must have the form NAME[INDEX]:BIT, such as fc.weight[0,3]:0, not {shown(self.flip_bit)!r}"
            )


def fork(arguments: list[str]) -> int:
    """Forks a run."""
    stopped = "what is done is saved; continue with"
    return answer_question("fork", arguments, ForkFlags, _fork, _print, stopped, replays=True)


def changed(config: Config, changes: tuple[str, ...]) -> Config:
    """A config with some flags changed.

    Args:
        config: of a run.
        changes: `FLAG=VALUE` each.

    Returns:
        The config.

    Raises:
        ValueError: for an unknown flag, or a value that it cannot have.
    """
    flags = [f"--{flag.replace('_', '-')}={value}" for flag, _, value in (change.partition("=") for change in changes)]
    other = read_flags(flags, config, "fork --change", "") if flags else config
    other.check()
    return other


def flip_of(text: str | None) -> Flip | None:
    """Parses `--flip-bit`, whose form has been checked."""
    from noiseless.study.branches import Flip

    parts = FLIP.fullmatch(text or "")
    if parts is None:
        return None
    index = tuple(int(k) for k in (parts["index"] or "").split(",") if k.strip())
    return Flip(parts["name"], index, int(parts["bit"] or 0))


def _fork(args: ForkFlags, address: StateAddress, workers: Workers) -> Iterator[Answer]:
    from noiseless.report import live
    from noiseless.study.fork import carry_out
    from noiseless.study.forks import ForkOptions, prepare

    options = ForkOptions(
        lambda config: changed(config, args.change), flip_of(args.flip_bit), args.steps, args.every, args.points,
        args.batch_norm,
    )  # fmt: skip
    with interruptible():
        job = prepare(address, options, workers)
        _print_cost(job)
    if args.estimate:
        return
    with live.Live(console) as shown_runs:

        def on_row(name: str, until: int, row: Row) -> None:
            shown_runs.advance(name, until, row)

        def on_point(done: int) -> None:
            shown_runs.count("line", done, options.points)

        answer = carry_out(job, on_row, on_point, lambda text: console.print(text, style="yellow"))
    yield answer


def _print_cost(job: ForkJob) -> None:
    """Prints what the fork will take, by the steps that the run has recorded."""
    from noiseless.study.forks import cost

    price = cost(job)
    replay = f"{job.replays} steps to make again, " if job.replays else ""
    seconds = "" if price.seconds is None else f", about {duration(price.seconds)}"
    console.print(
        f"at step {job.step}: {replay}2 runs of {job.until - job.step} steps, {job.options.points}"
        f" points of the line; {price.passes:,.4g} passes{seconds}, and {price.bytes / 2**20:,.3g} MiB on disk"
    )
    what = [f"{flag.replace('_', '-')} {shown(pair[0])} -> {shown(pair[1])}" for flag, pair in job.changes.items()]
    flip = job.options.flip
    what += [] if flip is None else [f"bit {flip.bit} of {flip.name}{list(flip.index)}"]
    console.print(f"changed: {', '.join(what) or 'nothing'}")


def _print(args: ForkFlags, address: StateAddress, answer: Answer) -> None:
    values = answer.values
    console.print(_distances(values, f"{address.directory.path}@{values['step']}"))
    for note in values["notes"]:
        console.print(note, style="yellow")
    reproduced = values["reproduced"]
    if reproduced["parted"] is not None:
        console.print(
            f"the unchanged run parts from the record of {address.directory.path} at step {reproduced['parted']}, so"
            " this machine or program rounds in another way than the one that made it",
            style="yellow",
        )
    if values["equal_ends"]:
        console.print(f"the two runs are equal to the bit after {values['until']} steps")
        return
    parted = values["parted"]
    if parted is not None:
        console.print(f"their records part at step {parted['step']}, in {', '.join(parted['columns'])}")
    console.print(_line(values))
    images = values["images"]
    if images is not None:
        low, high = images["interval"]
        console.print(
            f"of {images['images']} test images, both have {images['both']} right, only the unchanged run"
            f" {images['only_first']}, only the changed run {images['only_second']}, neither {images['neither']}:"
            f" changed minus unchanged {images['difference']:+.2f} points ({low:+.2f} to {high:+.2f}, 95 % over"
            f" images); their classes differ on {len(images['differ'])} images"
        )
    console.print(f"{values['passes']:,.4g} passes")


def _distances(values: dict[str, Any], title: str) -> Table:
    """Table of the distance over the steps, thinned."""
    table = Table(title=f"{title}: distance of the two runs")
    for heading in ("steps", "distance", "moved", "moved, changed", "cosine", "differ", "loss", "loss, changed"):
        table.add_column(heading, justify="right")
    count = len(values["steps"])
    stride = -(-count // SHOWN)
    for k in sorted({*range(0, count, stride), count - 1}):
        lengths = (values[name][k] for name in ("distance", "first_displacement", "second_displacement"))
        cosine = values["cosine"][k]
        table.add_row(
            str(values["steps"][k]), *(f"{length:.4g}" for length in lengths),
            "-" if cosine is None else f"{cosine:.4f}", f"{values['different'][k] / values['parameters']:.1%}",
            *(number(of_run[k]) for of_run in values["losses"]),
        )  # fmt: skip
    return table


def _line(values: dict[str, Any]) -> Table:
    """Table of the line between the ends."""
    mode = "statistics of each block" if values["batch_norm"] == "block" else "running statistics on the line"
    table = Table(title=f"The line between the ends, 0 unchanged, 1 changed (batch norm, if any: {mode})")
    headings = {"loss": "train loss", "error": "train error", "test_loss": "test loss", "test_error": "test error"}
    for heading in ("", *headings.values()):
        table.add_column(heading, justify="right")
    for k, at in enumerate(values["points"]):
        table.add_row(f"{at:.3g}", *(number(values["line"][name][k]) for name in headings))
    table.add_section()
    for label, key in (("barrier", "height"), ("at", "at"), ("over mean", "over_mean")):
        barriers = [values["barriers"][name] for name in headings]
        table.add_row(label, *("-" if one is None else number(one[key]) for one in barriers))
    return table
