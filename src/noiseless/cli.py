"""The command line: parse, call, print. Torch is imported by the commands that need it, not by `--help`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from noiseless import __version__
from noiseless.errors import UnknownNameError, message
from noiseless.exits import INTERRUPTED, USER_ERROR, exit_status, first_worker


@dataclass(frozen=True)
class Command:
    """One of the program's commands."""

    run: Callable[[list[str]], int]
    """(arguments) -> exit code"""
    usage: str
    help: str


def _from(module: str, name: str) -> Callable[[list[str]], int]:
    """A function of a module of `commands/`, which is imported when it is called."""

    def run(arguments: list[str]) -> int:
        code: int = getattr(importlib.import_module(f"noiseless.commands.{module}"), name)(arguments)
        return code

    return run


COMMANDS: dict[str, Command] = {
    "train": Command(
        _from("training", "train"),
        "train [RECIPE] [--FLAG VALUE ...]",
        "train one model; the default is fb-regularized on digits",
    ),
    "plan": Command(
        _from("plan", "plan"),
        "plan [RECIPE] [--FLAG VALUE ...]",
        "what train would take: passes, memory, bytes sent, time",
    ),
    "reproduce": Command(
        _from("ladder", "reproduce"),
        "reproduce [--table T] [--quick]",
        "run a table of the paper: each row, several seeds",
    ),
    "race": Command(
        _from("race", "race"),
        "race [--FLAG VALUE ...]",
        "what accuracy costs: optimizers side by side, with budgets of passes",
    ),
    "resume": Command(
        _from("training", "resume"), "resume RUN", "go on with a run from its newest checkpoint, to the same bits"
    ),
    "evaluate": Command(
        _from("runs", "evaluate"), "evaluate RUN", "loss and accuracy of a run's model on the test images"
    ),
    "watch": Command(
        _from("watch", "watch"), "watch RUN [RUN ...]", "runs in the terminal while they go: curves, last rows"
    ),
    "report": Command(
        _from("runs", "report"), "report RUN [RUN ...]", "one HTML page with the table and all figures of runs"
    ),
    "compare": Command(
        _from("compare", "compare"),
        "compare RUN... --against RUN...",
        "differences in accuracy between recipes, with errors over seeds and test images",
    ),
    "sharpness": Command(
        _from("sharpness", "sharpness"),
        "sharpness RUN[@STEP]",
        "the Hessian's largest eigenvalues over the whole training set, its density and trace",
    ),
    "recipes": Command(
        _from("ladder", "recipes"), "recipes", "the ladder: what each recipe replaces in its predecessor"
    ),
    "data": Command(
        _from("data", "data"),
        "data list|fetch|info|pack [NAME]",
        "data sets: what there is, what is here, download, pack",
    ),
    "models": Command(_from("models", "models"), "models [NAME ...]", "the models, and how many parameters they have"),
    "verify": Command(
        _from("runs", "verify"),
        "verify RUN [--no-precision]",
        "whether a run's gradient has the same bits in any order, for any workers",
    ),
    "noise": Command(
        _from("noise", "noise"),
        "noise RUN[@STEP] [--FLAG VALUE ...]",
        "how noisy block gradients are: noise scale, alignment",
    ),
    "weights": Command(
        _from("noise", "weights"),
        "weights RUN[@STEP]",
        "norm, distance from the start and update of each parameter tensor",
    ),
    "landscape": Command(
        _from("landscape", "landscape"),
        "landscape RUN[@STEP] [OTHER]",
        "loss, accuracy and penalised loss on a line or in a plane around a state",
    ),
    "flatness": Command(
        _from("landscape", "flatness"),
        "flatness RUN[@STEP]",
        "mean rise of the loss along random directions, with its error",
    ),
    "digest": Command(_from("runs", "digest"), "digest RUN", "SHA-256 over a run's final parameters and buffers"),
    "bench": Command(
        _from("bench", "bench"), "bench [RECIPE] [--FLAG VALUE ...]", "how fast sweeps are here, beside a plain loop"
    ),
    "import": Command(
        _from("interop", "import_checkpoint"),
        "import FILE [RECIPE] [--FLAG VALUE ...]",
        "make a run of a published checkpoint",
    ),
    "export": Command(
        _from("interop", "export"), "export RUN DIRECTORY", "a run's model with a card, for from_pretrained and hubs"
    ),
}
"""by the name that is typed"""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 done, 2 a user's mistake, 3 not finite, 130 interrupted."""
    sys.exit(exit_status(run(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name.

    Returns:
        The exit code. Mistakes are told on standard error without a traceback, unless NOISELESS_TRACEBACK is set.
    """
    try:
        return _dispatch(arguments)
    except BrokenPipeError:  # the reader of a pipe has gone: nothing more to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        from noiseless.commands.console import tell_error

        if os.environ.get("NOISELESS_TRACEBACK"):
            traceback.print_exc()
        if first_worker():  # the workers of a job fail together, with one message
            tell_error(message(error))
        return USER_ERROR
    except KeyboardInterrupt:
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
    console = Console(highlight=False, markup=False)
    console.print("noiseless: train neural networks without gradient noise\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for command in COMMANDS.values():
        table.add_row(command.usage, command.help)
    console.print(table)
    console.print("\nnoiseless COMMAND --help explains each flag.\nStart with: noiseless reproduce --quick")
