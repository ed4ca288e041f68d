"""CIFAR in its published forms: all give the same arrays, without unpacking files and without running code."""

from __future__ import annotations

import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from archives import Server, cifar10, cifar100, folder, published, python2, python3, tar, tiny_cifar10, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.data import cifar, pickled

FORMS = {
    "cifar10": (cifar10, cifar.CIFAR10, ("cifar-10-batches-py", "cifar-10-batches-bin")),
    "cifar100": (cifar100, cifar.CIFAR100, ("cifar-100-python", "cifar-100-binary")),
}


def _check(loaded, files):
    x_train, y_train, x_test, y_test = files.parts()
    assert np.array_equal(loaded.x_train, x_train)
    assert np.array_equal(loaded.x_test, x_test)
    assert (loaded.y_train.tolist(), loaded.y_test.tolist()) == (y_train, y_test)
    assert (loaded.x_train.dtype, loaded.y_train.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", ["python", "binary"])
@pytest.mark.parametrize("packing", ["archive", "folder"])
def test_each_published_form_is_read(tmp_path, name, form, packing):
    make, dataset, roots = FORMS[name]
    files, number = make(), ("python", "binary").index(form)
    members = getattr(files, form)
    if packing == "folder":
        folder(tmp_path / roots[number], members)
    else:
        content = tar(members, roots[number])
        dataset = published(dataset, content, form=number)
        (tmp_path / dataset.versions[number].source.file).write_bytes(content)
    before = tree(tmp_path)
    loaded = dataset.read(tmp_path)
    _check(loaded, files)
    assert (loaded.name, loaded.classes) == (name, {"cifar10": 10, "cifar100": 100}[name])
    assert tree(tmp_path) == before  # nothing is unpacked
    assert dataset.find(tmp_path) is not None


@pytest.mark.parametrize("write", [python2, *(python3(k) for k in range(6))])
def test_pickles_of_any_protocol_are_read(tmp_path, write):
    files = cifar10(write)
    folder(tmp_path / "cifar-10-batches-py", files.python)
    _check(cifar.CIFAR10.read(tmp_path), files)


def test_the_reader_agrees_with_pickles_own(tmp_path):
    content = cifar100().python["train"]
    expected = pickle.loads(content, encoding="bytes")
    assert list(expected) == [b"batch_label", b"fine_labels", b"data", b"filenames", b"coarse_labels"]
    actual = pickled.read(content, "train")
    assert np.array_equal(actual.pop("data"), expected.pop(b"data"))
    assert actual == {key.decode(): value for key, value in expected.items()}


def test_a_missing_archive_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.delenv("NOISELESS_MIRROR", raising=False)
    files, content, _ = tiny_cifar10()
    with Server({"cifar-10-python.tar.gz": content}) as server:
        dataset = published(cifar.CIFAR10, content, f"{server.url}/cifar-10-python.tar.gz")
        for _ in range(2):
            _check(dataset.read(tmp_path), files)
        assert len(server.requested) == 1


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path):
    _, content, dataset = tiny_cifar10()
    path = tmp_path / "cifar-10-python.tar.gz"
    for k in (0, 100, len(content) // 2, len(content) - 1):
        for changed in (content[:k], content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz is not the published file .*Remove it"):
                dataset.read(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="170,498,071"):  # the published set is not that of the tests
        cifar.CIFAR10.read(tmp_path)


def _link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member, b""


def test_members_that_leave_the_archive_are_not_followed(tmp_path):
    files = cifar10()
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    others = [
        (tarfile.TarInfo("../../evil"), b"evil"),
        (tarfile.TarInfo(str(tmp_path / "evil")), b"evil"),
        (tarfile.TarInfo("cifar-10-batches-py/../evil"), b"evil"),
        (tarfile.TarInfo("../cifar-10-batches-py/test_batch"), b"evil"),
        (tarfile.TarInfo("cifar-10-batches-py/sub/../../../outside"), b"evil"),
        _link("cifar-10-batches-py/batches.meta", "/etc/passwd"),
    ]  # fmt: skip
    content = tar(files.python, "cifar-10-batches-py", *others)
    dataset = published(cifar.CIFAR10, content)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cifar-10-python.tar.gz").write_bytes(content)
    before = tree(tmp_path)
    _check(dataset.read(tmp_path / "home"), files)
    assert tree(tmp_path) == before


def test_a_link_in_place_of_a_batch_is_refused(tmp_path):
    members = dict(cifar10().python)
    (tmp_path / "batch").write_bytes(members.pop("test_batch"))
    content = tar(members, "cifar-10-batches-py", _link("cifar-10-batches-py/test_batch", str(tmp_path / "batch")))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz lacks test_batch"):
        published(cifar.CIFAR10, content).read(tmp_path)


def test_a_broken_archive_with_the_right_digest_is_refused_with_its_name(tmp_path):
    archive = tar(cifar10().python, "cifar-10-batches-py")
    for content in (archive[:-500], archive[:5000], b"no archive", b"", archive[:1000] + bytes(500) + archive[1500:]):
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz"):
            published(cifar.CIFAR10, content).read(tmp_path)


class _Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["labels", "data", "filenames", "alone", "key"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol, where):
    evil = _Runs(os.mkdir, str(tmp_path / "evil"))
    dictionary = {b"labels": [1], b"data": np.zeros((1, 3072), np.uint8), b"filenames": [b"a"]}
    content = pickle.dumps(evil if where == "alone" else dictionary | {where.encode(): evil}, protocol)
    path = folder(tmp_path / "cifar-10-batches-py", cifar10().python | {"data_batch_3": content})
    with pytest.raises(ValueError, match=r"data_batch_3 cannot be read: it would run (posix|nt).mkdir, which no publ"):
        cifar.CIFAR10.read(tmp_path)
    assert not (tmp_path / "evil").exists()
    assert path.is_dir()
    pickle.loads(content)
    assert (tmp_path / "evil").is_dir()  # pickle's own reader runs it


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"\x80\x02cnumpy\nload\nU\x01a\x85R.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x02cnoiseless.data.pickled\npickle\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aU\x05rot13\x86R.",
        b"\x80\x02\x82\x01.",
        b"P1\n.",
    ],
)
def test_pickles_with_names_of_other_functions_are_refused(content):
    with pytest.raises(ValueError, match="some file cannot be read"):
        pickled.read(content, "some file")


BATCH = cifar10(count=1).python["test_batch"]


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, len(BATCH) - 1))
def test_a_pickle_cut_at_any_byte_is_refused(cut):
    with pytest.raises(ValueError, match="some file"):
        pickled.read(BATCH[:cut], "some file")


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(BATCH) - 1), value=st.integers(0, 255))
def test_a_damaged_pickle_is_a_dictionary_or_refused(position, value):
    try:
        assert isinstance(pickled.read(BATCH[:position] + bytes([value]) + BATCH[position + 1 :], "some file"), dict)
    except ValueError as error:
        assert "some file" in str(error)


IMAGES = np.zeros((2, 3072), np.uint8)
BAD = {
    "no labels": ({b"data": IMAGES}, "lacks data or labels; it holds data"),
    "no data": ({b"labels": [1, 2]}, "lacks data or labels; it holds labels"),
    "text for images": ({b"data": [b"a"], b"labels": [1]}, "lacks data or labels"),
    "too few labels": ({b"data": IMAGES, b"labels": [1]}, r"1 labels for images of shape \[2, 3072\]"),
    "no images": ({b"data": IMAGES[:0], b"labels": []}, r"0 labels for images of shape \[0, 3072\]"),
    "other images": ({b"data": IMAGES[:, :100], b"labels": [1, 2]}, r"images of shape \[2, 100\]"),
    "label too high": ({b"data": IMAGES, b"labels": [1, 10]}, "holds the label 10; there are 10 classes"),
    "label below 0": ({b"data": IMAGES, b"labels": [1, -1]}, "holds the label"),
    "huge label": ({b"data": IMAGES, b"labels": [1, 2**70]}, "labels must hold whole numbers"),
    "labels that are no numbers": ({b"data": IMAGES, b"labels": [1, b"2"]}, "labels must hold whole numbers"),
    "float images": ({b"data": IMAGES.astype(np.float32), b"labels": [1, 2]}, "an array of something else than bytes"),
    "objects": ({b"data": IMAGES.astype(object), b"labels": [1, 2]}, "an array of something else than bytes"),
    "a list": ([1, 2], "holds a list, not a dictionary"),
}


@pytest.mark.parametrize(("dictionary", "message"), BAD.values(), ids=BAD)
def test_a_batch_that_is_not_as_published_is_refused_with_its_name(tmp_path, dictionary, message):
    folder(tmp_path / "cifar-10-batches-py", cifar10().python | {"data_batch_2": pickle.dumps(dictionary, 4)})
    with pytest.raises(ValueError, match=f"data_batch_2.*{message}"):
        cifar.CIFAR10.read(tmp_path)


def test_a_folder_that_lacks_files_is_refused_with_their_names(tmp_path):
    members = cifar10().python
    del members["data_batch_4"], members["test_batch"]
    folder(tmp_path / "cifar-10-batches-py", members)
    with pytest.raises(ValueError, match=r"cifar-10-batches-py lacks data_batch_4, test_batch: unpack"):
        cifar.CIFAR10.read(tmp_path)


@pytest.mark.parametrize("cut", [1, 3072, 3074])
def test_records_that_are_cut_off_are_refused(tmp_path, cut):
    members = cifar10().binary
    members["data_batch_1.bin"] = members["data_batch_1.bin"][:-cut]
    folder(tmp_path / "cifar-10-batches-bin", members)
    with pytest.raises(ValueError, match=r"data_batch_1.bin has [\d,]+ bytes, no multiple of 3073: it was cut off"):
        cifar.CIFAR10.read(tmp_path)


def test_records_that_are_empty_are_refused(tmp_path):
    folder(tmp_path / "cifar-100-binary", cifar100().binary | {"test.bin": b""})
    with pytest.raises(ValueError, match=r"test\.bin holds 0 labels"):
        cifar.CIFAR100.read(tmp_path)
