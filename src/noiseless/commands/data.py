"""The commands about data sets: what there is, what is here, download, pack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from noiseless.commands.console import console
from noiseless.errors import UnknownNameError

if TYPE_CHECKING:
    from noiseless.data import ImageSet
    from noiseless.data.pictures import ImageFiles

Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]


def data(arguments: list[str]) -> int:
    """Runs `noiseless data list`, `fetch`, `info` or `pack`."""
    actions = {"list": list_sets, "fetch": fetch, "info": info, "pack": pack}
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        console.print("noiseless data list           which sets there are, and which are here")
        console.print("noiseless data fetch NAME     download a set")
        console.print("noiseless data info NAME      what a set holds; --verify reads all of it again")
        console.print("noiseless data pack NAME      decode a set once, into one file that runs map into memory")
        console.print("\nnoiseless data COMMAND --help explains each flag.")
        return 0
    if name not in actions:
        raise UnknownNameError("data command", name, actions)
    return actions[name](rest)


@dataclass(frozen=True)
class List:
    """Print which data sets there are, and which of them are on this machine."""

    data_dir: str | None = None
    """directory of data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""


def list_sets(arguments: list[str]) -> int:
    """The sets as a table."""
    asked = tyro.cli(List, args=arguments, prog="noiseless data list")

    from noiseless.data import home
    from noiseless.data.catalogue import ENTRIES
    from noiseless.data.packed import sets

    directory = home(asked.data_dir)
    table = Table(title=f"data sets, in {directory}")
    table.add_column("name", no_wrap=True)
    for heading in ("images", "of", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("here")
    for name, entry in ENTRIES.items():
        here = entry.here(directory)
        short = f"no, {entry.origin}" if here is None else here.removeprefix(f"{directory}/")
        table.add_row(name, f"{entry.train:,} + {entry.test:,}", entry.shape, str(entry.classes), short)
    console.print(table)
    console.print("npz:FILE     your arrays, made with numpy.savez")
    console.print("folder:PATH  your images, in PATH/train/CLASS/ and PATH/test/CLASS/")
    for path, name, pixels in sets(directory):
        console.print(f"packed: {name}{f' --pixels {pixels}' if pixels else ''} in {path}")
    return 0


@dataclass(frozen=True)
class Fetch:
    """Download a data set, or go on with its download; the file is checked before it gets its name."""

    name: Name
    """data set, see noiseless data list"""
    data_dir: str | None = None
    """directory of data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""


def fetch(arguments: list[str]) -> int:
    """Downloads a set."""
    asked = tyro.cli(Fetch, args=arguments, prog="noiseless data fetch")

    from noiseless.data import home
    from noiseless.data.catalogue import ENTRIES
    from noiseless.data.datasets import full_name

    directory, name = home(asked.data_dir), full_name(asked.name)
    if name not in ENTRIES:
        raise ValueError(f"{name} is your own: there is nothing to download")
    ENTRIES[name].fetch(directory)
    console.print(f"{name} is here: {ENTRIES[name].here(directory)}")
    return 0


@dataclass(frozen=True)
class Info:
    """Print what a data set holds; nothing is downloaded."""

    name: Name
    """data set, see noiseless data list; npz:FILE or folder:PATH"""
    pixels: int | None = None
    """size to which images are resized and cropped; none: as they are"""
    data_dir: str | None = None
    """directory of data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""
    verify: bool = False
    """read all of a packed set again, and compare its digest"""


def info(arguments: list[str]) -> int:
    """Describes a set."""
    asked = tyro.cli(Info, args=arguments, prog="noiseless data info")

    from noiseless.data import home, packed
    from noiseless.data.catalogue import ENTRIES
    from noiseless.data.datasets import full_name, opened, stale
    from noiseless.data.images import ImageSet
    from noiseless.data.pictures import resized

    directory, name = home(asked.data_dir), full_name(asked.name, asked.pixels)
    path = packed.place(directory, name, asked.pixels)
    if asked.verify and not path.exists():
        raise ValueError(f"{name} is not packed: there is no digest to compare its contents with")
    if not path.exists() and name in ENTRIES and ENTRIES[name].here(directory) is None:
        console.print(f"{name} is not in {directory}: {ENTRIES[name].origin}")
        return 0
    found = packed.read(path, name, asked.pixels) if path.exists() else opened(name, directory, asked.pixels)
    if path.exists():
        stale(path, name, asked.pixels)
    found = resized(found, asked.pixels) if isinstance(found, ImageSet) else found
    table = Table(title=name, show_header=False)
    if path.exists():
        table.add_row("packed", str(path))
    elif name in ENTRIES:
        table.add_row("place", str(ENTRIES[name].here(directory)))
    for row in _described(found):
        table.add_row(*row)
    console.print(table)
    if asked.verify:
        assert isinstance(found, ImageSet)
        packed.verify(path, found, asked.pixels)
        console.print("verified: the contents are those that were written")
    return 0


def _described(found: ImageSet | ImageFiles) -> list[tuple[str, str]]:
    """What a set holds, as rows of a table."""
    from noiseless.data.images import ImageSet
    from noiseless.data.progress import size

    if isinstance(found, ImageSet):
        mean, std = found.statistics()
        return [
            ("images", f"{len(found.x_train):,} for training, {len(found.x_test):,} for testing"),
            ("image", "x".join(map(str, found.x_train.shape[1:]))),
            ("classes", str(found.classes)),
            ("size", size(found.x_train.nbytes + found.x_test.nbytes)),
            ("mean", ", ".join(f"{value:.4f}" for value in mean)),
            ("deviation", ", ".join(f"{value:.4f}" for value in std)),
            ("sha256", found.sha256()),
        ]
    return [
        ("image files", f"{len(found.train):,} for training, {len(found.test):,} for testing"),
        ("image", "x".join(map(str, found.shape()))),
        ("classes", str(int(found.train.labels.max()) + 1)),
        ("size", f"{size(found.bytes())} when decoded; not packed yet"),
    ]


@dataclass(frozen=True)
class Pack:
    """Decode a data set once, into one file that runs map into memory; it is downloaded if it has to be."""

    name: Name
    """data set, see noiseless data list; or folder:PATH"""
    pixels: int | None = None
    """size to which images are resized and cropped; none: as they are"""
    data_dir: str | None = None
    """directory of data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""


def pack(arguments: list[str]) -> int:
    """Packs a set."""
    asked = tyro.cli(Pack, args=arguments, prog="noiseless data pack")

    from noiseless.data.datasets import pack as write

    path = write(asked.name, Path(asked.data_dir) if asked.data_dir else None, asked.pixels)
    console.print(f"packed: {path}")
    return 0
