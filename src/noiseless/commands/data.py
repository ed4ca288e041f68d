"""The commands `data list`, `data fetch`, `data info` and `data pack`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.errors import UnknownNameError
from noiseless.recipes.checks import positive
from noiseless.recipes.parts.data import MOST_PIXELS
from noiseless.trust import permit_functions

if TYPE_CHECKING:
    from noiseless.data import ImageSet
    from noiseless.data.pictures import ImageFiles

Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]


def data(arguments: list[str]) -> int:
    """Runs `noiseless data list`, `fetch`, `info` or `pack`."""
    actions = {"list": list_sets, "fetch": fetch, "info": info, "pack": pack}
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        console.print("noiseless data list           list data sets, and which are on this machine")
        console.print("noiseless data fetch NAME     download a data set")
        console.print("noiseless data info NAME      show sizes, classes and statistics of a data set")
        console.print("noiseless data pack NAME      decode the images once, into a file that runs map into memory")
        console.print("\nnoiseless data COMMAND --help explains each flag.")
        return 0
    if name not in actions:
        raise UnknownNameError("data command", name, actions)
    return actions[name](rest)


@dataclass(frozen=True)
class List:
    """List data sets, and which of them are on this machine."""

    data_dir: str | None = None
    """directory of data sets; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""


def list_sets(arguments: list[str]) -> int:
    """Prints the data sets as a table."""
    args = parse(List, arguments, "data list")

    from noiseless.data import home
    from noiseless.data.catalogue import ENTRIES
    from noiseless.data.packedheader import sets

    directory = home(args.data_dir)
    table = Table(title=f"data sets, in {directory}")
    table.add_column("name", no_wrap=True)
    for heading in ("training + test", "shape", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("on this machine")
    for name, entry in ENTRIES.items():
        place = entry.here(directory)
        note = f"no, {entry.origin}" if place is None else place.removeprefix(f"{directory}/")
        table.add_row(name, f"{entry.train:,} + {entry.test:,}", entry.shape, str(entry.classes), note)
    console.print(table)
    console.print("npz:FILE     your arrays, made with numpy.savez")
    console.print("folder:PATH  your images, in PATH/train/CLASS/ and PATH/test/CLASS/")
    console.print("package.module:function  your function, which returns training and test images")
    for path, name, pixels in sets(directory):
        console.print(f"packed: {name}{f' --pixels {pixels}' if pixels else ''} in {path}")
    return 0


@dataclass(frozen=True)
class Fetch:
    """Download a data set, or continue its download; the file is checked by its hash."""

    name: Name
    """data set, see noiseless data list"""
    data_dir: str | None = None
    """directory of data sets; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""


def fetch(arguments: list[str]) -> int:
    """Downloads a data set."""
    args = parse(Fetch, arguments, "data fetch")

    from noiseless.data import home
    from noiseless.data.catalogue import ENTRIES, full_name

    directory, name = home(args.data_dir), full_name(args.name)
    if name not in ENTRIES:
        raise ValueError(f"{name} is your own data set: there is nothing to download")
    ENTRIES[name].fetch(directory)
    console.print(f"{name} is on this machine: {ENTRIES[name].here(directory)}")
    return 0


@dataclass(frozen=True)
class Info:
    """Show sizes, classes and statistics of a data set; nothing is downloaded."""

    name: Name
    """data set, see noiseless data list; npz:FILE or folder:PATH"""
    pixels: int | None = None
    """size to which images are resized and cropped; none: unchanged"""
    data_dir: str | None = None
    """directory of data sets; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""
    verify: bool = False
    """read a packed data set completely, and compare its digest with the one that was written"""


def info(arguments: list[str]) -> int:
    """Prints the contents of a data set."""
    args = parse(Info, arguments, "data info")
    permit_functions(args.name)
    positive("pixels", args.pixels, MOST_PIXELS)

    from noiseless.data import home
    from noiseless.data.catalogue import ENTRIES, full_name

    directory, name = home(args.data_dir), full_name(args.name, args.pixels)
    console.print(f"looking for {name}")
    from noiseless.data import packed
    from noiseless.data.datasets import opened, stale
    from noiseless.data.images import ImageSet
    from noiseless.data.pictures import resized

    path = packed.place(directory, name, args.pixels)
    if args.verify and not path.exists():
        raise ValueError(f"{name} is not packed, so there is no digest to verify: leave out --verify, or pack it first")
    if not path.exists() and name in ENTRIES and ENTRIES[name].here(directory) is None:
        console.print(f"{name} is not in {directory}: {ENTRIES[name].origin}")
        return 0
    images = packed.read(path, name, args.pixels) if path.exists() else opened(name, directory, args.pixels)
    if path.exists():
        stale(path, name, args.pixels)
    images = resized(images, args.pixels) if isinstance(images, ImageSet) else images
    table = Table(title=name, show_header=False)
    if path.exists():
        table.add_row("packed", str(path))
    elif name in ENTRIES:
        table.add_row("place", str(ENTRIES[name].here(directory)))
    for row in _described(images):
        table.add_row(*row)
    console.print(table)
    if args.verify:
        assert isinstance(images, ImageSet)
        packed.verify(path, images, args.pixels)
        console.print("verified: the contents have the digest that was written")
    return 0


def _described(images: ImageSet | ImageFiles) -> list[tuple[str, str]]:
    """Rows (what, value) of the table about a data set."""
    from noiseless.data.images import ImageSet
    from noiseless.data.progress import size

    if isinstance(images, ImageSet):
        mean, std = images.statistics()
        return [
            ("images", f"{len(images.x_train):,} for training, {len(images.x_test):,} for testing"),
            ("image", "x".join(map(str, images.x_train.shape[1:]))),
            ("classes", str(images.classes)),
            ("size", size(images.x_train.nbytes + images.x_test.nbytes)),
            ("mean", ", ".join(f"{value:.4f}" for value in mean)),
            ("deviation", ", ".join(f"{value:.4f}" for value in std)),
            ("sha256", images.sha256()),
        ]
    return [
        ("image files", f"{len(images.train):,} for training, {len(images.test):,} for testing"),
        ("image", "x".join(map(str, images.shape()))),
        ("classes", str(int(images.train.labels.max()) + 1)),
        ("size", f"{size(images.bytes())} when decoded; not packed yet"),
    ]


@dataclass(frozen=True)
class Pack:
    """Decode the images of a data set once, into a file that runs map into memory; downloads it if needed."""

    name: Name
    """data set, see noiseless data list; or folder:PATH"""
    pixels: int | None = None
    """size to which images are resized and cropped; none: unchanged"""
    data_dir: str | None = None
    """directory of data sets; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""


def pack(arguments: list[str]) -> int:
    """Packs a data set."""
    args = parse(Pack, arguments, "data pack")
    permit_functions(args.name)
    positive("pixels", args.pixels, MOST_PIXELS)

    from noiseless.data.catalogue import full_name

    full_name(args.name, args.pixels)  # before torch is imported
    from noiseless.data.datasets import pack as write

    path = write(args.name, Path(args.data_dir) if args.data_dir else None, args.pixels)
    console.print(f"packed: {path}")
    return 0
