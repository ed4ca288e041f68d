"""Tiny ImageNet from its zip and from its folder; ImageNet, which the program cannot download."""

from __future__ import annotations

import re

import numpy as np
import pytest
from archives import Server, class_folders, folder, image, source, tiny_imagenet, tree, zipped

from noiseless.data import load, sources
from noiseless.data.pictures import decode
from noiseless.data.tinyimagenet import tiny_imagenet as read

ZIP = "tiny-imagenet-200.zip"


def _source(content, *urls):
    return source(ZIP, content, *urls, unpacked="tiny-imagenet-200")


def _write(path, files, form="zip"):
    """Writes the data set into a directory, and gives its source."""
    content = zipped(files)
    if form == "zip":
        path.mkdir(parents=True, exist_ok=True)
        (path / ZIP).write_bytes(content)
    else:
        folder(path / "tiny-imagenet-200", files)
    return _source(content)


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_it_is_read_as_published(tmp_path, form):
    files = tiny_imagenet()
    zip_source = _write(tmp_path, files, form)
    before = tree(tmp_path)
    data_set = read(tmp_path, source=zip_source).in_memory()
    assert tree(tmp_path) == before
    assert (data_set.name, data_set.classes) == ("tinyimagenet", 3)
    # classes by name: n01, n02, n03; the annotations name n02, n01, n03
    assert (data_set.y_train.tolist(), data_set.y_test.tolist()) == ([0, 0, 1, 1, 2, 2], [1, 0, 2])
    for k, name in enumerate(("n01", "n02", "n03")):
        for j in range(2):
            expected = decode(files[f"train/{name}/images/{name}_{j}.JPEG"], "x")
            assert np.array_equal(data_set.x_train[2 * k + j], expected)
    assert np.array_equal(data_set.x_test[1], decode(files["val/images/val_1.JPEG"], "x"))


def test_it_is_downloaded_once_and_loaded_by_its_name(tmp_path, monkeypatch):
    files = tiny_imagenet()
    content = zipped(files)
    with Server({ZIP: content}) as server:
        monkeypatch.setattr(sources, "TINY_IMAGENET", _source(content))
        monkeypatch.setenv("NOISELESS_MIRROR", server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        data_set = load("tinyimagenet", tmp_path, 16)
        assert data_set.x_train.shape == (6, 3, 16, 16)
        load("tinyimagenet", tmp_path, 16)
        assert server.requested == [None]


def test_members_that_leave_the_archive_are_not_followed(tmp_path):
    files = tiny_imagenet()
    escaping = {
        "../../evil.JPEG": b"evil", "/evil.JPEG": b"evil", "train/n01/images/../../../../evil.JPEG": b"evil",
        "train/../images/evil.JPEG": b"evil",
    }  # fmt: skip
    zip_source = _write(tmp_path / "home", files | escaping)
    before = tree(tmp_path)
    assert len(read(tmp_path / "home", source=zip_source).in_memory().x_train) == 6
    assert tree(tmp_path) == before


def _without(name):
    return lambda files: files.pop(name)


def _annotated(text):
    return lambda files: files.update({"val/val_annotations.txt": text})


BAD = {
    "no training": (
        lambda files: [files.pop(name) for name in list(files) if name.startswith("train")], "lacks train/CLASS/images"
    ),
    "no annotations": (_without("val/val_annotations.txt"), "lacks val/val_annotations.txt"),
    "empty annotations": (_annotated(b""), "val/val_annotations.txt names no images"),
    "an image is missing": (_without("val/images/val_1.JPEG"), r"names 'val_1.JPEG\\tn01.*not there"),
    "an unknown class": (_annotated(b"val_0.JPEG\tn99\t0\n"), r"names 'val_0.JPEG\\tn99"),
    "no class": (_annotated(b"val_0.JPEG\n"), "names 'val_0.JPEG'"),
    "no text": (_annotated(b"\xff\xfe"), "lacks val/val_annotations.txt"),
    "a damaged image": (
        lambda files: files.update({"train/n02/images/n02_1.JPEG": b"no image"}),
        "tiny-imagenet-200.*train/n02/images/n02_1.JPEG cannot be read as an image",
    ),
    "an empty image": (
        lambda files: files.update({"train/n02/images/n02_1.JPEG": b""}), "train/n02/images/n02_1.JPEG is empty"
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["zip", "folder"])
@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_files_that_are_not_as_published_are_refused_with_their_names(tmp_path, form, spoil, message):
    files = tiny_imagenet()
    spoil(files)
    zip_source = _write(tmp_path, files, form)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, source=zip_source).in_memory()


def test_a_zip_that_is_not_the_published_one_is_refused(tmp_path):
    _write(tmp_path, tiny_imagenet())
    with pytest.raises(ValueError, match=r"tiny-imagenet-200.zip is not the published file .*248,100,043"):
        load("tinyimagenet", tmp_path)


def test_a_broken_zip_with_the_right_digest_is_refused_with_its_name(tmp_path):
    archive = zipped(tiny_imagenet())
    middle = len(archive) // 2
    spoiled = [archive[:k] + bytes(9) + archive[k + 9 :] for k in range(300, middle, 1500)]
    for content in (archive[:-30], archive[:middle], b"no zip", *spoiled):
        (tmp_path / ZIP).write_bytes(content)
        with pytest.raises(ValueError, match=r"tiny-imagenet-200\.zip"):
            read(tmp_path, source=_source(content)).in_memory()


def test_imagenet_is_not_downloaded(tmp_path):
    with pytest.raises(ValueError, match="without an account") as error:
        load("imagenet", tmp_path, 8)
    for text in ("https://image-net.org/download", f"{tmp_path}/imagenet/train/WNID/", "--data folder:PATH"):
        assert text in str(error.value)


def test_imagenet_is_read_from_class_folders(tmp_path):
    class_folders(tmp_path / "imagenet", ("n01", "n02"), test="val")
    folder(tmp_path / "imagenet", {"train/n02/9.JPEG": image(3, (20, 30), kind="jpeg")})
    with pytest.raises(ValueError, match=re.escape("give --pixels N (224 is usual)")):
        load("imagenet", tmp_path)
    data_set = load("imagenet", tmp_path, 8)
    assert data_set.name == "imagenet"
    assert (data_set.x_train.shape, data_set.y_train.tolist()) == ((5, 3, 8, 8), [0, 0, 1, 1, 1])
