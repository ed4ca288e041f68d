"""The command line: finds the command and calls it. Torch is imported by the commands that need it, not by `--help`."""

from __future__ import annotations

import contextvars
import importlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table

from noiseless import __version__
from noiseless.errors import UnknownNameError, out_of_memory
from noiseless.exits import INTERRUPTED, UNEXPECTED, USER_ERROR
from noiseless.screen import PLAINER, Screen


@dataclass(frozen=True)
class Command:
    """A command of the program."""

    run: Callable[[list[str]], int]
    """(arguments) -> exit code"""
    usage: str
    """command and arguments, for help"""
    help: str
    """what the command does, in one line"""


def _from(module: str, name: str) -> Callable[[list[str]], int]:
    """A function in a module of `commands/`; the module is imported when the function is called."""

    def run(arguments: list[str]) -> int:
        code: int = getattr(importlib.import_module(f"noiseless.commands.{module}"), name)(arguments)
        return code

    return run


COMMANDS: dict[str, Command] = {
    "train": Command(
        _from("training", "train"),
        "train [RECIPE] [--FLAG VALUE ...]",
        "train a model; default: fb-regularized on digits",
    ),
    "plan": Command(
        _from("plan", "plan"),
        "plan [RECIPE] [--FLAG VALUE ...]",
        "cost of train before it begins: passes, memory, time",
    ),
    "reproduce": Command(
        _from("ladder", "reproduce"),
        "reproduce [--table T] [--quick]",
        "run a table of the paper: all recipes, several seeds",
    ),
    "race": Command(
        _from("race", "race"),
        "race [--FLAG VALUE ...]",
        "compare optimizers that have equal budgets of passes",
    ),
    "dial": Command(
        _from("dial", "dial"),
        "dial [RECIPE] [--FLAG VALUE ...]",
        "one recipe with each source of gradient noise switched on alone",
    ),
    "resume": Command(
        _from("training", "resume"), "resume RUN", "continue a run from its newest checkpoint, bit for bit"
    ),
    "evaluate": Command(
        _from("evaluating", "evaluate"),
        "evaluate RUN[@STEP] [--data D]",
        "loss and accuracy of a run on its images, or on others",
    ),
    "predict": Command(
        _from("predicting", "predict"), "predict RUN[@STEP] IMAGE...", "class of each image file, and its probability"
    ),
    "runs": Command(_from("listing", "runs"), "runs [DIR]", "list runs: settings, progress, accuracy"),
    "diff": Command(
        _from("diff", "diff"), "diff RUN RUN", "where two runs part: settings, record, parameters; exit code 5 if so"
    ),
    "watch": Command(
        _from("watch", "watch"), "watch RUN [RUN ...]", "show the progress of runs in the terminal: curves, last rows"
    ),
    "report": Command(
        _from("reporting", "report"), "report RUN [RUN ...]", "write an HTML page with a table and all figures of runs"
    ),
    "compare": Command(
        _from("compare", "compare"),
        "compare RUN... --against RUN...",
        "differences in accuracy, with errors over seeds and images",
    ),
    "sharpness": Command(
        _from("sharpness", "sharpness"),
        "sharpness RUN[@STEP]",
        "largest Hessian eigenvalues over all training images",
    ),
    "edge": Command(
        _from("edge", "edge"),
        "edge RUN[@STEP]",
        "sharpness at each step beside the edge of its optimizer",
    ),
    "sharpen": Command(
        _from("sharpen", "sharpen"),
        "sharpen RUN[@STEP]",
        "why the sharpness changes in a step: drift, decay, ...",
    ),
    "recipes": Command(
        _from("ladder", "recipes"), "recipes", "list the recipes: what each one replaces in the one before"
    ),
    "data": Command(
        _from("data", "data"),
        "data list|fetch|info|pack [NAME]",
        "list, download, describe and pack data sets",
    ),
    "models": Command(_from("models", "models"), "models [NAME ...]", "list models and their numbers of parameters"),
    "verify": Command(
        _from("checking", "verify"),
        "verify RUN[@STEP] [--no-precision], verify --published",
        "check that a gradient has the same bits for any workers",
    ),
    "noise": Command(
        _from("noise", "noise"),
        "noise RUN[@STEP]",
        "gradient noise: noise scale, signal to noise, alignment",
    ),
    "weights": Command(
        _from("noise", "weights"),
        "weights RUN[@STEP]",
        "norm, distance and update of each parameter tensor",
    ),
    "landscape": Command(
        _from("landscape", "landscape"),
        "landscape RUN[@STEP] [OTHER]",
        "loss on a line or in a plane around a state of a run",
    ),
    "decompose": Command(
        _from("decompose", "decompose"),
        "decompose RUN[@STEP]",
        "what one pass of mini-batches does beyond the full batch",
    ),
    "fork": Command(
        _from("fork", "fork"),
        "fork RUN[@STEP] --change FLAG=VALUE",
        "two runs from one state with one thing changed: how they part",
    ),
    "flatness": Command(
        _from("landscape", "flatness"),
        "flatness RUN[@STEP]",
        "mean increase of the loss along random directions",
    ),
    "flow": Command(
        _from("flow", "flow"),
        "flow RUN[@STEP] [--steps N]",
        "central, stable and gradient flow beside a run's steps",
    ),
    "trust": Command(
        _from("trust", "trust"),
        "trust [CODE ...] [--remove]",
        "allow code of your own by package.module",
    ),
    "digest": Command(
        _from("checking", "digest"), "digest RUN[@STEP]", "SHA-256 of the final parameters and buffers of a run"
    ),
    "bench": Command(_from("bench", "bench"), "bench [RECIPE]", "speed on this machine, beside a plain PyTorch loop"),
    "import": Command(
        _from("interop", "import_checkpoint"),
        "import FILE [RECIPE]",
        "convert a checkpoint of the paper's code to a run",
    ),
    "export": Command(
        _from("interop", "export"),
        "export RUN[@STEP] DIRECTORY",
        "write a model and its card, for from_pretrained and hubs",
    ),
}
"""the commands by name"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, also from Python: `main(["report", "runs/a"])`.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        The exit code: 0 done, 2 wrong input, 3 diverged, 130 interrupted; others are in `exits.py`.
    """
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as end:  # of the parser, after a help
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def run(arguments: list[str]) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code. Errors are printed to standard error, with a traceback only if NOISELESS_TRACEBACK is set.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAINER)  # a character that the terminal lacks must not cost a result
    try:
        return contextvars.copy_context().run(_dispatch, arguments)  # what it permits ends with it, see trust.py
    except Exception as error:
        from noiseless.commands import console, job

        told = isinstance(error, (ValueError, OSError)) or out_of_memory(error)
        first = job.fail_before_joining(USER_ERROR if told else UNEXPECTED)
        if not told:
            raise
        if first:
            console.tell_exception(error)
        return USER_ERROR
    except KeyboardInterrupt:
        from noiseless.commands import job

        if job.fail_before_joining(INTERRUPTED):
            print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        _help()
        return 0
    if name == "--version":
        print(f"noiseless {__version__}")  # noqa: T201
        return 0
    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    return COMMANDS[name].run(rest)


def _help() -> None:
    console = Screen(soft_wrap=False)
    console.print("noiseless: train neural networks without gradient noise\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for command in COMMANDS.values():
        table.add_row(command.usage, command.help)
    console.print(table)
    console.print("\nnoiseless COMMAND --help explains each flag. RECIPE is one of noiseless recipes.")
    console.print("RUN is the directory that train prints, RUN@STEP its state after STEP steps.")
    console.print("\nStart with: noiseless reproduce --quick")
