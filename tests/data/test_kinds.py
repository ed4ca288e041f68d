"""An image file is opened in the format of its name: no other program is started for it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from archives import folder
from PIL import Image
from small_runs import refused

from noiseless.data import load
from noiseless.data.pictures import KINDS, decode

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(hi) print\nshowpage\n%%EOF"


def _encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(
        buffer, kind, **({"lossless": True} if kind == "WEBP" else {})
    )
    return buffer.getvalue()


@pytest.mark.parametrize("ending", KINDS)
def test_each_ending_is_read_in_its_format_only(ending):
    assert decode(_encoded(KINDS[ending]), f"a{ending.upper()}").shape == (3, 8, 8)
    for kind in {*KINDS.values()} - {KINDS[ending]}:
        with pytest.raises(ValueError, match=f"a{ending} .*its content is {kind}, not {KINDS[ending]}: rename it"):
            decode(_encoded(kind), f"a{ending}")


@pytest.mark.parametrize("ending", [*KINDS, ""])
def test_postscript_is_never_read(ending, tmp_path, monkeypatch):
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\necho 10.0; touch {tmp_path}/STARTED\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(gs.parent), prepend=":")
    with pytest.raises(ValueError, match="its content is of no known format"):
        decode(POSTSCRIPT, f"a{ending}")
    if ending:
        folder(
            tmp_path / "set", {f"{part}/{name}/1{ending}": POSTSCRIPT for part in ("train", "test") for name in "ab"}
        )
        refused("data", "info", f"folder:{tmp_path}/set", names=("of no known format",))
    assert not (tmp_path / "STARTED").exists()


def test_the_png_of_imagenet_is_named_jpeg(tmp_path):
    files = {f"{part}/n{k}/1.JPEG": _encoded("PNG") for part in ("train", "val") for k in (1, 2)}
    folder(tmp_path / "imagenet", files)
    assert load("imagenet", tmp_path, pixels=8).x_train.shape == (2, 3, 8, 8)
