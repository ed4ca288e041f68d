"""The command that lists the models: models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from noiseless.commands.console import console


@dataclass(frozen=True)
class Models:
    """List models in their default form with their numbers of parameters."""

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME ...]")] = ()
    """names of models; none: all that noiseless makes by itself"""
    channels: int = 3
    """channels of the images"""
    classes: int = 10
    """classes"""
    pixels: int = 32
    """height and width of the images"""


def models(arguments: list[str]) -> int:
    """Prints a table of models; nothing is computed, no parameter gets memory."""
    asked = tyro.cli(Models, args=arguments, prog="noiseless models")
    for field in ("channels", "classes", "pixels"):
        if getattr(asked, field) < 1:
            raise ValueError(f"--{field} must be at least 1, not {getattr(asked, field)}")

    from noiseless.models import names, outline

    table = Table(title=f"images of {asked.channels} x {asked.pixels} x {asked.pixels}, {asked.classes} classes")
    table.add_column("model")
    table.add_column("parameters", justify="right")
    for name in asked.names or names():
        made = outline(name, asked.channels, asked.classes, size=(asked.pixels, asked.pixels))
        table.add_row(name, f"{sum(p.numel() for p in made.parameters()):,}")
    console.print(table)
    return 0
