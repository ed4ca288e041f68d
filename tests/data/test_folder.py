"""Class folders and their image files: every format gives bytes in red, green and blue, or an error."""

from __future__ import annotations

import io
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from archives import class_folders, encoded, folder, image
from PIL import Image

from noiseless.data import digits, load
from noiseless.data.pictures import decode, resized


def _pixels(seed, size=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


@pytest.mark.parametrize("test", ["test", "val"])
def test_class_folders_are_read_in_the_order_of_their_names(tmp_path, test):
    data_set = load(f"folder:{class_folders(tmp_path, ('bee', 'ant', 'cat'), test=test)}")
    assert data_set.name == f"folder:{tmp_path}"
    assert (data_set.y_train.tolist(), data_set.y_test.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    order = [100, 110, 0, 10, 200, 210]  # ant before bee, as `class_folders` draws them
    for x, extra in ((data_set.x_train, 1), (data_set.x_test, 0)):
        assert (x.dtype, x.shape) == (torch.uint8, (6, 3, 8, 8))
        for k, seed in enumerate(order):
            assert np.array_equal(x[k].permute(1, 2, 0), _pixels(seed + extra))


def test_files_at_any_depth_count_and_others_do_not(tmp_path, capsys):
    class_folders(tmp_path, ("a", "b"), 1)
    folder(tmp_path, {
        "train/a/deep/er/x.PNG": image(1), "train/a/.hidden.png": b"", "train/b/notes.txt": b"no image",
        "train/.git/x.png": b"", "train/a/.checkpoints/x.png": image(2), "readme.md": b"", "test/b/Thumbs.db": b"",
    })  # fmt: skip
    data_set = load(f"folder:{tmp_path}")
    assert data_set.y_train.tolist() == [0, 0, 1]
    assert np.array_equal(data_set.x_train[1].permute(1, 2, 0), _pixels(1))
    text = "2 files left out, of other types than images: 1 .txt, 1 .db"
    assert capsys.readouterr().err == f"note: {tmp_path}: {text}\n"


def test_files_that_are_left_out_are_counted_by_ending(tmp_path, capsys):
    class_folders(tmp_path, ("a",), 1)
    load(f"folder:{tmp_path}")
    assert capsys.readouterr().err == ""
    folder(tmp_path, {f"train/{place}": b"x" for place in ("1.heic", "a/2.HEIC", "a/3.heic", "a/b/LICENSE")})
    load(f"folder:{tmp_path}")
    text = "4 files left out, of other types than images: 3 .heic, 1 without an ending"
    assert capsys.readouterr().err == f"note: {tmp_path}: {text}\n"


@pytest.mark.parametrize(("ending", "kind"), [("jfif", "jpeg"), ("JPE", "jpeg"), ("apng", "png"), ("pnm", "ppm")])
def test_less_common_endings_count(tmp_path, capsys, ending, kind):
    class_folders(tmp_path, ("a",), 1)
    folder(tmp_path, {f"train/a/1.{ending}": image(1, kind=kind)})
    assert np.array_equal(load(f"folder:{tmp_path}").x_train[1], decode(image(1, kind=kind), "x"))
    assert capsys.readouterr().err == ""


TURNED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}
"""EXIF orientation -> how the stored pixels `[H, W, 3]` are turned upright (Exif 2.3, 4.6.4: the place of row 0)"""


def _with_orientation(picture, orientation, kind="png", tags=()):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif.update({**dict(tags), 274: orientation})
    picture.save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", TURNED)
def test_photos_are_turned_upright(tmp_path, orientation):
    size = (8, 8) if orientation < 5 else (6, 8)
    class_folders(tmp_path, ("a",), 1)
    stored = _pixels(3, size)
    content = _with_orientation(Image.fromarray(stored), orientation)
    assert np.array_equal(decode(content, "x"), stored.transpose(2, 0, 1))  # published sets, as elsewhere
    upright = TURNED[orientation](stored).transpose(2, 0, 1)
    assert np.array_equal(decode(content, "x", upright=True), upright)
    folder(tmp_path, {"train/a/1.png": content})
    squares = load(f"folder:{tmp_path}", pixels=8).x_train
    assert np.array_equal(squares[1], decode(encoded(Image.fromarray(upright.transpose(1, 2, 0))), "x", 8))


def test_other_metadata_may_be_damaged():
    content = _with_orientation(Image.fromarray(_pixels(3)), 6, "jpeg", {271: "a maker"})
    damaged = content.replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02")  # a width that is a text
    assert damaged != content
    assert np.array_equal(decode(damaged, "x", upright=True), decode(content, "x", upright=True))


def test_a_relative_path_is_recorded_as_an_absolute_one(tmp_path, monkeypatch):
    class_folders(tmp_path / "mine", ("a",), 1)
    monkeypatch.chdir(tmp_path)
    assert load("folder:mine").name == f"folder:{tmp_path / 'mine'}"


def _remove(path, name):
    shutil.rmtree(path / name)


def _remove_images(path):
    for file in (path / "train" / "bee").iterdir():
        file.unlink()
    (path / "train" / "bee" / "a.txt").write_text("x")


BAD = {
    "nothing there": (lambda path: shutil.rmtree(path), "there is no folder"),
    "no training": (lambda path: _remove(path, "train"), "must hold train/CLASS/IMAGE .* it holds test"),
    "no test": (lambda path: _remove(path, "test"), "must hold train/CLASS/IMAGE .* it holds train"),
    "class without test": (lambda path: _remove(path, "test/bee"), "differ: bee in one of them only. Both need"),
    "class without training": (lambda path: _remove(path, "train/bee"), "differ: bee in one of them only"),
    "class without images": (_remove_images, r"train/bee holds no images \(.apng, .bmp, .gif, .* it holds a.txt"),
    "no classes": (
        lambda path: [_remove(path, f"{p}/{c}") for p in ("train", "test") for c in ("ant", "bee", "cat")],
        "train holds no class folders; it holds nothing",
    ),
    "empty file": (lambda path: (path / "test/cat/1.png").write_bytes(b""), "test/cat/1.png is empty"),
    "no image": (
        lambda path: (path / "test/cat/1.png").write_bytes(b"text"),
        "test/cat/1.png cannot be read as an image: its content is of no known format$",
    ),
    "link to itself": (
        lambda path: (path / "test/cat/again").symlink_to(path / "test/cat"),
        "test/cat/again is a link to a folder of the same class: its images would count twice",
    ),
    "another size": (
        lambda path: (path / "test/cat/1.png").write_bytes(image(1, (9, 8))),
        "test/cat/1.png is 9x8, but .*train/ant/0.png is 8x8; --pixels N crops and resizes all",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_bad_folders_are_refused(tmp_path, spoil, message):
    path = class_folders(tmp_path / "set")
    load(f"folder:{path}")
    spoil(path)
    with pytest.raises(ValueError, match=message):
        load(f"folder:{path}")


def test_a_folder_needs_a_path():
    with pytest.raises(ValueError, match="folder: lacks a path: folder:PATH"):
        load("folder:")


def test_grey_images_and_images_with_alpha_get_three_channels():
    grey = _pixels(0)[..., 0]
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), "x"), np.stack([grey] * 3))
    colours = np.concatenate((_pixels(0), _pixels(1)[..., :1]), 2)
    assert np.array_equal(decode(encoded(Image.fromarray(colours)), "x"), _pixels(0).transpose(2, 0, 1))
    both = np.stack((grey, _pixels(1)[..., 0]), 2)
    assert np.array_equal(decode(encoded(Image.fromarray(both, mode=None)), "x"), np.stack([grey] * 3))
    bits = Image.fromarray(grey > 99)
    assert np.array_equal(decode(encoded(bits), "x"), np.stack([255 * (grey > 99)] * 3))


def test_palettes_are_looked_up():
    table = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
    numbers = np.random.default_rng(0).integers(0, 4, (8, 8), dtype=np.uint8)
    picture = Image.fromarray(numbers, mode=None)
    picture.putpalette(table.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", transparency=bytes([0, 255, 9, 255]))
    for content in (encoded(picture), encoded(picture, "gif"), buffer.getvalue()):
        assert np.array_equal(decode(content, "x"), table[numbers].transpose(2, 0, 1))


def test_cmyk_becomes_red_green_and_blue():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan alone: no red
    pixels = decode(encoded(Image.fromarray(ink, "CMYK"), "jpeg"), "x").astype(int)
    assert np.abs(pixels - np.array([0, 255, 255])[:, None, None]).max() <= 2  # a JPEG rounds


def _deep_png(channels):
    """A PNG of 16 bits a channel, which Pillow does not write: signature, IHDR, IDAT, IEND (ISO 15948)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", 8, 8, 16, colour, 0, 0, 0)
    rows = (b"\0" + bytes(8 * channels * 2)) * 8  # no filter
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _deep_tiff():
    """An uncompressed TIFF of 8x8 pixels in three channels of 16 bits: header, directory, three depths, pixels."""
    entries = [(256, 8), (257, 8), (258, 122), (259, 1), (262, 2), (273, 128), (277, 3), (278, 8), (279, 384)]
    directory = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, 9) + directory + bytes(4) + struct.pack("<3H", 16, 16, 16) + bytes(384)


DEEP = {
    "grey": encoded(Image.fromarray(np.full((8, 8), 40_000, np.uint16))),
    **{f"PNG, {channels} channels": _deep_png(channels) for channels in (1, 2, 3, 4)},
    "TIFF": _deep_tiff(),
    "PPM": b"P6 8 8 65535\n" + bytes(384),
    "plain PPM": b"P3 8 8 65535\n" + b"0 " * 192,
    "PGM": b"P5 8 8 65535\n" + bytes(128),
}


@pytest.mark.parametrize("deep", DEEP.values(), ids=DEEP)
def test_sixteen_bits_are_refused(deep):
    assert Image.open(io.BytesIO(deep)).size == (8, 8)  # it is an image: nothing else is wrong with it
    with pytest.raises(ValueError, match=r"a/b cannot be read as an image: it has more than 8 bits a channel"):
        decode(deep, "a/b")


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp"])
def test_an_image_cut_at_any_byte_is_refused_or_complete(kind):
    content = image(3, (16, 16), kind=kind)
    complete = decode(content, "x")
    for cut in {*range(0, len(content), 7), *range(len(content) - 20, len(content))}:
        try:
            assert np.array_equal(decode(content[:cut], "some/file"), complete)
            assert cut >= len(content) - 20  # only the bytes after the pixels are missing
        except ValueError as error:
            assert "some/file" in str(error)


@pytest.mark.parametrize("size", [(24, 8), (8, 24)])
def test_a_long_image_is_cropped_to_its_middle(size):
    long = np.zeros((8, 24, 3), np.uint8)
    long[:, 8:16] = _pixels(0)
    picture = Image.fromarray(long if size[0] == 24 else long.transpose(1, 0, 2))
    middle = _pixels(0) if size[0] == 24 else _pixels(0).transpose(1, 0, 2)
    assert np.array_equal(decode(encoded(picture), "x", 8), middle.transpose(2, 0, 1))


def _halved(line):
    """Every second of a float64 line, under a triangle of half-width 2 centred between pixels: weights 1 3 3 1."""
    weights, padded = np.array([1, 3, 3, 1]), np.pad(line, 1)
    inside = np.pad(np.ones_like(line), 1)
    starts = range(0, len(line), 2)
    return np.array([(weights * padded[k : k + 4]).sum() / (weights * inside[k : k + 4]).sum() for k in starts])


def test_resizing_is_bilinear_with_a_filter_as_wide_as_the_step():
    pixels = _pixels(5, (16, 16))
    expected = np.apply_along_axis(_halved, 1, np.apply_along_axis(_halved, 0, pixels.astype(float)))
    resized_pixels = decode(encoded(Image.fromarray(pixels)), "x", 8)
    # rounded to a whole level after either direction: half a level each
    assert np.abs(resized_pixels - expected.transpose(2, 0, 1)).max() <= 1


def test_images_of_different_sizes_are_resized(tmp_path):
    class_folders(tmp_path, ("a", "b"), 1)
    folder(tmp_path, {"train/a/1.png": image(7, (31, 17)), "test/b/3.jpg": image(8, (5, 6), "L", "jpeg")})
    data_set = load(f"folder:{tmp_path}", pixels=10)
    assert data_set.x_train.shape == (3, 3, 10, 10)
    assert np.array_equal(data_set.x_train[1], decode(image(7, (31, 17)), "x", 10))
    assert data_set.x_test.shape == (3, 3, 10, 10)


def test_data_sets_in_memory_are_resized_like_image_files():
    original = digits()
    small = load("digits", pixels=4)
    assert small.x_train.shape == (512, 1, 4, 4)
    assert torch.equal(small.y_test, original.y_test)
    for k in range(5):
        grey = encoded(Image.fromarray(original.x_test[k, 0].numpy()))
        assert np.array_equal(small.x_test[k, 0], decode(grey, "x", 4)[0])
    assert resized(original, 8) is original
    assert resized(original, None) is original


@pytest.mark.parametrize("pixels", [0, -3])
def test_pixels_must_be_at_least_one(pixels):
    with pytest.raises(ValueError, match=re.escape(f"--pixels must be at least 1, not {pixels}")):
        load("digits", pixels=pixels)
