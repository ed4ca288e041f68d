"""The command `predict`: the class of each image file, and its probability, by the model of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table

from noiseless.commands.addresses import TrustingState
from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.plain import read_file
from noiseless.recipes.checks import positive
from noiseless.recipes.parts.data import MOST_PIXELS
from noiseless.trust import permit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Predict(TrustingState):
    """Print the class that a run's model gives each image file, and its probability.

    Images are cropped to their largest centred square and resized to the size of the run's images. Classes are numbered
    from 0; those of folder:PATH have the names of its folders where these are on this machine.
    """

    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE [IMAGE ...]")] = field(
        kw_only=True
    )
    """image files: JPEG, PNG, BMP, GIF, WebP, PPM or TIFF"""
    pixels: int | None = None
    """size to which images are resized; none: that of the run's images if its config or the catalogue has it, else
    images keep their size"""
    json: bool = False
    """print a JSON list instead, with the probabilities of all classes"""


def predict(arguments: list[str]) -> int:
    """Classifies image files."""
    args = parse(Predict, arguments, "predict")
    permit(*args.trust)
    positive("pixels", args.pixels, MOST_PIXELS)
    if not args.images:
        raise ValueError("give at least one image file: noiseless predict RUN IMAGE [IMAGE ...]")
    from noiseless.files.address import StateAddress

    address = StateAddress.read(args.run)
    contents = [read_file(path) for path in args.images]  # before torch is imported
    if not args.json:
        console.print(f"classifying {len(contents)} image{'s' * (len(contents) > 1)} with {address}")
    import torch

    from noiseless.commands import subject
    from noiseless.objective.usercode import user_code
    from noiseless.portable import arithmetic
    from noiseless.run.evaluate import class_scores

    recipe = address.directory.config().recipe
    pixels = args.pixels or subject.pixels_of(recipe)
    images = [_image(*pair, pixels, recipe.data.mean) for pair in zip(contents, args.images, strict=True)]
    height, width = images[0].shape[1:]
    average = bool(recipe.evaluation.ema) and address.step is None
    model, _ = subject.loaded(address, (height, width), average)
    names = subject.class_names(recipe)
    rows: list[dict[str, Any]] = []
    for path, image in zip(args.images, images, strict=True):
        with torch.no_grad(), user_code(model), arithmetic(recipe.model.portable):
            scores = class_scores(model, subject.normalised(recipe, image[None]), recipe.evaluation.test_flips)
            probabilities = scores.double().softmax(1)[0].tolist()
        label = max(range(len(probabilities)), key=probabilities.__getitem__)
        row = {"image": path, "class": label, "probability": probabilities[label], "probabilities": probabilities}
        rows.append(row | ({"name": names[label]} if label < len(names) else {}))
    if args.json:
        print(json.dumps(rows))  # noqa: T201
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("image", "class", "probability"):
        table.add_column(heading, justify="right" if heading == "probability" else "left", overflow="fold")
    for row in rows:
        table.add_row(row["image"], str(row.get("name", row["class"])), f"{row['probability']:.4f}")
    console.print(table, soft_wrap=False)
    return 0


def _image(content: bytes, path: str, pixels: int | None, mean: tuple[float, ...] | None) -> Tensor:
    """An image file as bytes `[C, H, W]`, with as many channels as a run's images have: 1 (grey) or 3."""
    import numpy as np
    import torch
    from PIL import Image

    from noiseless.data.pictures import decode

    channels = len(mean or ())
    if channels not in (1, 3):
        raise ValueError(f"the run's images have {channels} channels, and image files are grey or have 3: use evaluate")
    colours = decode(content, path, pixels, upright=True)
    if channels == 1:
        colours = np.asarray(Image.fromarray(colours.transpose(1, 2, 0)).convert("L"))[None]
    return torch.from_numpy(np.array(colours))
