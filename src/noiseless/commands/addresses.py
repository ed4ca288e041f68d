"""The arguments of commands that read a run: its directory, a state of it, and the code that it may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from noiseless.commands.parsing import parse
from noiseless.trust import permit

if TYPE_CHECKING:
    from noiseless.files.address import StateAddress


@dataclass(frozen=True)
class OneRun:
    """The argument of commands that read one run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """directory of the run, as printed by noiseless train"""


Trust = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="CODE")]
"""type of the flag `--trust`, which may be given several times"""


@dataclass(frozen=True)
class TrustingRun(OneRun):
    """The arguments of commands that build the model of one run."""

    trust: Trust = ()
    """package.module:function of yours that the run names, which may be imported; a run is data and allows nothing"""


@dataclass(frozen=True)
class TrustingState:
    """The arguments of commands that build the model of a run at one of its states."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN[@STEP]")]
    """directory of the run; @STEP is the state after that many steps, without it the final state"""
    trust: Trust = ()
    """package.module:function of yours that the run names, which may be imported; a run is data and allows nothing"""


def one_state(
    arguments: list[str], usage: str, description: str, flags_type: type[OneRun] | type[TrustingState] = TrustingState
) -> StateAddress:
    """Opens the run and the state that a command names as `RUN` or `RUN@STEP`, and permits what its `--trust` names.

    Args:
        arguments: of the command.
        usage: the command with its other flags, for help.
        description: text of the help.
        flags_type: dataclass of its flags.

    Returns:
        The run, and the state of it.
    """
    args = parse(flags_type, arguments, usage, description)
    permit(*getattr(args, "trust", ()))
    from noiseless.files.address import StateAddress

    return StateAddress.read(args.run)
