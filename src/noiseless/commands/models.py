"""The command `models`, which lists models with their numbers of parameters.

Those of small colour images are in a table, `models/parameters.json`, so that the list does not wait for torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
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
    fetch: bool = False
    """download the pretrained weights of these models, for --init pretrained, and count nothing"""
    weights: str | None = None
    """name of the weights that --fetch downloads; none: the library's default"""


def models(arguments: list[str]) -> int:
    """Prints a table of models; no memory is allocated for parameters."""
    args = parse(Models, arguments, "models")
    for field, most in (("channels", 1024), ("classes", 1_000_000), ("pixels", 4096)):
        at_least(field, getattr(args, field), 1, most)
    if args.weights is not None and not args.fetch:
        raise ValueError(f"--weights {args.weights} does nothing without --fetch")
    if args.fetch:
        return _fetch(args)
    permit_functions(*args.names)
    known = parameters()
    names = args.names or tuple(known)
    usual = (args.channels, args.classes, args.pixels) == (Models.channels, Models.classes, Models.pixels)
    if not usual or not set(names) <= known.keys():
        console.print(f"counting the parameters of {len(names)} models")
        known = counted(names, args.channels, args.classes, args.pixels)
    table = Table(title=f"images of {args.channels} x {args.pixels} x {args.pixels}, {args.classes} classes")
    table.add_column("model")
    table.add_column("parameters", justify="right")
    for name in names:
        table.add_row(name, f"{known[name]:,}")
    console.print(table)
    return 0


def _fetch(args: Models) -> int:
    """Downloads pretrained weights into the cache of their library."""
    if not args.names:
        raise ValueError("--fetch needs the names of models, such as noiseless models torchvision:resnet18 --fetch")
    console.print(f"looking for the weights of {', '.join(args.names)}")  # before torch is imported
    from noiseless.models.weights import fetch

    for name in args.names:
        weights = fetch(name, args.weights)
        console.print(f"{name}: the weights {weights.name} are in {weights.path}")
    return 0


def parameters() -> dict[str, int]:
    """The table: name of each model of noiseless -> number of parameters for the defaults of `Models`."""
    table: dict[str, int] = json.loads(resources.files("noiseless").joinpath("models/parameters.json").read_text())
    return table


def counted(
    names: tuple[str, ...] | None = None, channels: int = 3, classes: int = 10, pixels: int = 32
) -> dict[str, int]:
    """Counts the parameters of models.

    Args:
        names: of the models; None: all of noiseless, as the table has them.
        channels: of the images.
        classes: outputs.
        pixels: height and width of the images.

    Returns:
        Name -> number.
    """
    from noiseless.models import names as all_names
    from noiseless.models import outline

    return {
        name: sum(p.numel() for p in outline(name, channels, classes, size=(pixels, pixels)).parameters())
        for name in names or all_names()
    }
