"""The command `trust`, which lists the code that runs may use, adds to it and removes from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.own import package_found
from noiseless.trust import settings_file, trusted, write_trusted


@dataclass(frozen=True)
class TrustFlags:
    """Allow models and data sets of your own, in all runs that name them and in all commands of this user.

    A run is data: a function that it names is imported only if it is allowed here or by --trust. Without arguments, the
    allowed ones are listed.
    """

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[CODE ...]")] = ()
    """package.module, for all functions of a module, or package.module:function"""
    remove: bool = False
    """remove them instead"""


def trust(arguments: list[str]) -> int:
    """Lists or changes what is trusted."""
    args = parse(TrustFlags, arguments, "trust")
    before = trusted()
    if not args.names:
        if args.remove:
            raise ValueError("--remove needs the names of what is no longer trusted: noiseless trust CODE --remove")
        for name in before:
            console.print(name)
        if not before:
            console.print(f"no code is trusted; noiseless trust package.module adds to {settings_file()}")
        return 0
    if args.remove:
        if absent := [name for name in args.names if name not in before]:
            raise ValueError(f"{', '.join(absent)} is not trusted; noiseless trust lists what is")
        path = write_trusted(set(before) - set(args.names))
    else:
        path = write_trusted([*before, *args.names])
    console.print(f"{'no longer trusted' if args.remove else 'trusted'}: {', '.join(args.names)} (in {path})")
    if not args.remove and (absent := [name for name in args.names if not package_found(name)]):
        console.print(f"no such package is found from here, so look at the spelling: {', '.join(absent)}")
    return 0
