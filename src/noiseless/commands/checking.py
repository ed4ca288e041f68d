"""The commands `digest` and `verify`, which check the bits of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from noiseless.commands.addresses import OneRun, one_state
from noiseless.commands.arguments import take
from noiseless.commands.asking import as_worker
from noiseless.commands.console import console, tell_aside
from noiseless.exits import DIFFERENT
from noiseless.run import prepared

if TYPE_CHECKING:
    from torch import Tensor

    from noiseless.ask.verify import RoundingDifference
    from noiseless.files.address import StateAddress
    from noiseless.objective.workers import Workers


def digest(arguments: list[str]) -> int:
    """Prints the SHA-256 of a run's final parameters and buffers."""
    address = one_state(
        arguments,
        "digest",
        "Print the SHA-256 of the final parameters and buffers: equal digests mean equal bits.",
        OneRun,
    )
    from noiseless.files.plaindigest import final_digest

    digest = final_digest(address.directory) if address.step is None else None
    if digest is None:
        address.refuse_missing()
        from noiseless.files import checkpoint

        digest = checkpoint.digest(_state(address))
        if address.step is None and not address.directory.model.exists():
            tell_aside("the run has not ended: this is the digest of its newest checkpoint")
    console.print(digest)
    return 0


def _state(address: StateAddress) -> dict[str, Tensor]:
    """Parameters and buffers of a state."""
    if address.step is None:
        return address.directory.state()
    from noiseless.files.stored import read_state

    state = read_state(address).model
    if state is None:
        raise ValueError(f"{address} is the initial state, which no file holds: a checkpoint of step 0 would have it")
    return state


def verify(arguments: list[str]) -> int:
    """Compares the bits of a run's gradient between orders of blocks and numbers of workers, and with other sums."""
    part, arguments = take(arguments, "--part")  # given in the worker jobs that verify starts: file for the digest
    if arguments[:1] == ["--published"]:
        return _verify_published(arguments[1:])
    precision = "--no-precision" not in arguments  # float64 may be many times slower
    address = one_state(
        [argument for argument in arguments if argument != "--no-precision"],
        "verify [--no-precision | --published]",
        "Check that the gradient at a state of a run, by default its newest, has the same bits for other orders of"
        " blocks and other numbers of workers. Then print how much it differs from plain float32 sums, and loss,"
        " gradient and a penalty's finite difference from those in float64; --no-precision leaves out the latter, which"
        " may be slow. With --published and no run, compute the published digests of tiny portable runs instead: see"
        " docs/portable.md.",
    )
    if part is None:
        console.print(f"computing the gradient of {address} in several ways")
        prepared.start()  # for the jobs; it imports torch while this process does
    from noiseless.ask import verify as verification

    if part is not None:
        return _verify_part(address, Path(part))
    digests, differences = verification.verify(address)
    equal = len({gradient.digest for gradient in digests}) == 1
    state = "the newest state" if address.step is None else f"the state after {address.step} steps"
    table = Table(title=f"the gradient of {state}, computed in several ways")
    for heading in ("way", "digest of gradient, loss, hits and statistics", ""):
        table.add_column(heading)
    for gradient in digests:
        table.add_row(gradient.way, gradient.digest, "equal" if gradient.digest == digests[0].digest else "DIFFERENT")
    console.print(table)
    console.print(_differences("what plain float32 sums of the same block gradients differ by", "summed", differences))
    if precision:
        from noiseless.ask.precision import against_float64, penalty_noise

        title = "what gradient and loss differ by from those in float64 throughout"
        console.print(_differences(title, "computed", against_float64(address)))
        noise = penalty_noise(address)
        if noise is not None:
            console.print(
                f"the penalty's finite difference on the first block is {noise:.2e} of its length from that in float64"
            )
    console.print("all equal" if equal else "not equal")
    return 0 if equal else DIFFERENT


def _verify_published(arguments: list[str]) -> int:
    """Computes the published digests of portable runs on this machine."""
    if arguments:
        raise ValueError(f"verify --published takes no run and no other flag: leave {' '.join(arguments)} out")
    from noiseless.ask import published

    equal = True
    for case in published.compare():
        equal &= case.equal
        verdict = "equal" if case.equal else f"DIFFERENT, published: {case.published}"
        console.print(f"{case.digest}  {verdict}  {case.name}")
    console.print("all equal" if equal else "not equal")
    return 0 if equal else DIFFERENT


def _verify_part(address: StateAddress, path: Path) -> int:
    """Computes the gradient as one worker of a job that `verify` has started, and writes its digest."""
    from noiseless.ask.verify import write_digest

    def work(workers: Workers) -> int:
        write_digest(address, path, workers)
        return 0

    return as_worker(work, ["verify", str(address)], "start again with")


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
