"""The command `models`, which lists models with their numbers of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.recipes.checks import at_least
from noiseless.trust import permit_functions


@dataclass(frozen=True)
class Models:
    """List models and their numbers of parameters, with default options."""

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME ...]")] = ()
    """names of models, also torchvision:NAME and timm:NAME; none: all models of noiseless"""
    channels: int = 3
    """number of channels of the images"""
    classes: int = 10
    """number of classes"""
    pixels: int = 32
    """height and width of the images"""


def models(arguments: list[str]) -> int:
    """Prints a table of models; no memory is allocated for parameters."""
    args = parse(Models, arguments, "models")
    for field, most in (("channels", 1024), ("classes", 1_000_000), ("pixels", 4096)):
        at_least(field, getattr(args, field), 1, most)
    permit_functions(*args.names)

    from noiseless.models import names, outline

    table = Table(title=f"images of {args.channels} x {args.pixels} x {args.pixels}, {args.classes} classes")
    table.add_column("model")
    table.add_column("parameters", justify="right")
    for name in args.names or names():
        model = outline(name, args.channels, args.classes, size=(args.pixels, args.pixels))
        table.add_row(name, f"{sum(p.numel() for p in model.parameters()):,}")
    console.print(table)
    return 0
