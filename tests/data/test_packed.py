"""Packed data sets: the same data from one memory-mapped file, or an error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from archives import CifarFiles, cifar10, class_folders, folder, image
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import wait_until

from noiseless.data import Images, ImageSet, datasets, load, pack, packed, packedheader


def _cifar(path, count=6) -> CifarFiles:
    files = cifar10(count=count)
    folder(path / "cifar-10-batches-py", files.python)
    return files


def _assert_same(one, other):
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert torch.equal(getattr(one, part), getattr(other, part)), part
    assert one.sha256() == other.sha256() == replace(one, facts=None).sha256()
    assert one.statistics() == other.statistics() == replace(one, facts=None).statistics()
    assert (one.name, one.classes) == (other.name, other.classes)


@pytest.mark.parametrize("pixels", [None, 8])
def test_a_packed_set_equals_the_original(tmp_path, pixels):
    _cifar(tmp_path)
    original = load("cifar10", tmp_path, pixels)
    path = pack("cifar10", tmp_path, pixels)
    assert path.name == ("cifar10.safetensors" if pixels is None else "cifar10-8px.safetensors")
    shutil.rmtree(tmp_path / "cifar-10-batches-py")
    data_set = load("cifar10", tmp_path, pixels)
    _assert_same(data_set, original)
    assert original.facts is None
    assert data_set.facts is not None
    written = path.stat().st_mtime_ns
    assert pack("cifar10", tmp_path, pixels) == path
    assert path.stat().st_mtime_ns == written


def test_the_file_can_be_read_by_safetensors(tmp_path):
    files = _cifar(tmp_path)
    tensors = safetensors.torch.load_file(pack("cifar10", tmp_path))
    for name, expected in zip(("x_train", "y_train", "x_test", "y_test"), files.parts(), strict=True):
        assert np.array_equal(tensors[name], expected)


def _mapping(path, field):
    """A number of kB from /proc: a field of this process's mappings of a file, summed."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith(f"{field}:"):
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
def test_only_the_pages_of_requested_images_are_read(tmp_path):
    _cifar(tmp_path, count=1000)
    path = pack("cifar10", tmp_path)
    data_set = load("cifar10", tmp_path)
    assert _mapping(path, "Size") > 18_000  # 6,000 images of 3 kB
    assert _mapping(path, "Rss") < 500  # of which the header and the labels have been read
    mean, std = data_set.statistics()
    images = Images(data_set.x_train, data_set.y_train, mean, std)
    images.take(torch.arange(2000, 2064))
    # a file system may map a few MB around a requested page
    assert 100 < _mapping(path, "Rss") < 9000


def test_large_sets_of_image_files_are_packed_at_first_use(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "IN_MEMORY", 0)
    pictures = class_folders(tmp_path / "mine")
    name = f"folder:{pictures}"
    expected = datasets.opened(name, tmp_path, None).in_memory()
    data_set = load(name, tmp_path)
    path = packed.place(tmp_path, name, None)
    assert capsys.readouterr().err == f"packing 12 images of {name} into {path} (2.3 kB), once\n"
    _assert_same(data_set, expected)
    _assert_same(load(name, tmp_path), expected)
    assert capsys.readouterr().err == ""
    # a changed file is packed again, and a folder that is gone is no longer needed
    (pictures / "train" / "bee" / "0.png").write_bytes(image(1234))
    changed = load(name, tmp_path)
    assert "has changed since it was packed" in capsys.readouterr().err
    assert changed.sha256() != expected.sha256()
    _assert_same(changed, datasets.opened(name, tmp_path, None).in_memory())
    shutil.rmtree(pictures)
    _assert_same(load(name, tmp_path), changed)


def test_a_touched_image_file_is_packed_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "IN_MEMORY", 0)
    pictures = class_folders(tmp_path / "mine")
    before = load(f"folder:{pictures}", tmp_path)
    capsys.readouterr()
    file = pictures / "train" / "bee" / "0.png"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))  # neither its size nor its content change
    _assert_same(load(f"folder:{pictures}", tmp_path), before)
    assert "packing 12 images" in capsys.readouterr().err
    _assert_same(load(f"folder:{pictures}", tmp_path), before)
    assert capsys.readouterr().err == ""


def test_a_small_set_that_the_user_has_packed_is_packed_again_when_it_changes(tmp_path):
    pictures = class_folders(tmp_path / "mine")
    path = pack(f"folder:{pictures}", tmp_path)
    (pictures / "train" / "bee" / "0.png").write_bytes(image(1234))
    changed = load(f"folder:{pictures}", tmp_path)
    _assert_same(changed, packed.read(path, f"folder:{pictures}", None))
    _assert_same(changed, datasets.opened(f"folder:{pictures}", tmp_path, None).in_memory())


def test_two_folders_of_one_name_have_two_files(tmp_path):
    names = [f"folder:{class_folders(tmp_path / parent / 'mine', per_class=k)}" for k, parent in enumerate("ab", 1)]
    assert len({pack(name, tmp_path) for name in names}) == 2
    assert [len(load(name, tmp_path).x_train) for name in names] == [3, 6]


def test_a_very_large_set_is_packed_only_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "IN_MEMORY", 0)
    monkeypatch.setattr(datasets, "AUTOMATIC", 100)
    class_folders(tmp_path / "imagenet", test="val")
    with pytest.raises(ValueError, match=r"not packed yet: noiseless data pack imagenet --pixels 8 .* 2.3 kB at /"):
        load("imagenet", tmp_path, 8)
    pack("imagenet", tmp_path, 8)
    assert load("imagenet", tmp_path, 8).x_train.shape == (6, 3, 8, 8)


@pytest.mark.parametrize("name", ["digits", "mnist-5k", "npz:/some/file.npz"])
def test_data_sets_in_memory_are_not_packed(tmp_path, name):
    with pytest.raises(ValueError, match="there is nothing to pack"):
        pack(name, tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A packed set of six images of 32x32: directory, file and content."""
    directory = tmp_path_factory.mktemp("packed")
    _cifar(directory, count=1)
    path = pack("cifar10", directory)
    return directory, path, path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_cut_at_any_byte_is_refused(written, data):
    directory, path, content = written
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ValueError, match=r"damaged.*Remove it; noiseless data pack cifar10 writes it again"):
        load("cifar10", directory)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_changed_byte_of_header_or_labels_is_refused_and_verify_finds_one_of_an_image(written, data):
    directory, path, content = written
    start = 8 + int.from_bytes(content[:8], "little")
    text, labels = len(content[:start].rstrip()), start + 6 * 8
    position = data.draw(st.integers(0, text - 1) | st.integers(start, len(content) - 1))
    changed = content[:position] + bytes([content[position] ^ data.draw(st.integers(1, 255))]) + content[position + 1 :]
    path.write_bytes(changed)
    if position < labels:
        with pytest.raises(ValueError, match=r"cifar10\.safetensors is damaged"):
            load("cifar10", directory)
    else:
        data_set = load("cifar10", directory)
        with pytest.raises(ValueError, match=r"has changed since it was written .*Remove it"):
            packed.verify(path, data_set, None)


def test_an_unchanged_file_passes_verify(written):
    directory, path, content = written
    path.write_bytes(content)
    packed.verify(path, load("cifar10", directory), None)


def test_a_file_of_another_set_is_refused(written):
    directory, path, content = written
    path.write_bytes(content)
    for name, pixels in (("cifar100", None), ("cifar10", 16)):
        shutil.copy(path, packed.place(directory, name, pixels))
        with pytest.raises(ValueError, match="it holds cifar10"):
            load(name, directory, pixels)


def test_a_file_of_another_format_is_refused(written):
    directory, path, content = written
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["format"] = "noiseless image set 2"
    header["__metadata__"].pop("seal")
    header["__metadata__"]["seal"] = packedheader.seal_of(header)
    path.write_bytes(content[:8] + json.dumps(header).encode().ljust(length) + content[8 + length :])
    with pytest.raises(ValueError, match="it is of another format"):
        load("cifar10", directory)
    safetensors.torch.save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"damaged, or no packed set"):
        load("cifar10", directory)


def test_a_pack_that_fails_leaves_no_file_and_does_not_change_an_existing_one(tmp_path):
    pictures = class_folders(tmp_path / "mine")
    (pictures / "test" / "cat" / "1.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cat/1\.png"):
            pack(f"folder:{pictures}", tmp_path)
        assert [p.name for p in (tmp_path / "packed").iterdir() if not p.name.endswith(".lock")] == []
    (pictures / "test" / "cat" / "1.png").write_bytes(image(1))
    path = pack(f"folder:{pictures}", tmp_path)
    before = path.read_bytes()
    (pictures / "test" / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cat/1\.png"):
        pack(f"folder:{pictures}", tmp_path)
    assert path.read_bytes() == before


KILLED = """
import sys, time
from pathlib import Path
from noiseless.data import pack, pictures
real = pictures.decode
def slow(content, place, *rest, **options):
    time.sleep(60 if place.endswith("test/cat/1.png") else 0)
    return real(content, place, *rest, **options)
pictures.decode = slow
pack(sys.argv[1], Path(sys.argv[2]))
"""


def test_a_killed_pack_leaves_only_a_temporary_file(tmp_path):
    name = f"folder:{class_folders(tmp_path / 'mine')}"
    process = subprocess.Popen([sys.executable, "-c", KILLED, name, tmp_path], stderr=subprocess.DEVNULL)
    path = packed.place(tmp_path, name, None)
    temporary = path.with_name(f".{path.name}.tmp")
    wait_until(process, temporary.exists)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert temporary.exists()
    assert not path.exists()
    assert load(name, tmp_path).facts is None  # decoded again
    pack(name, tmp_path)
    assert not temporary.exists()
    assert load(name, tmp_path).facts is not None


def test_concurrent_workers_pack_a_set_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "IN_MEMORY", 0)
    name = f"folder:{class_folders(tmp_path / 'mine')}"
    digests = []
    threads = [threading.Thread(target=lambda: digests.append(load(name, tmp_path).sha256())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4
    assert len(set(digests)) == 1
    assert capsys.readouterr().err.count("packing") == 1


def test_a_set_that_does_not_fit_on_the_disk_is_refused_before_it_is_decoded(tmp_path):
    def never():
        raise AssertionError
        yield

    labels = np.zeros(10, np.int64)
    contents = packed.Contents("huge", None, (3, 10**6, 10**6), labels, labels, never(), never())
    with pytest.raises(ValueError, match=r"huge takes 60000.0 GB when packed, but .* GB free: make room"):
        packed.write(tmp_path / "huge.safetensors", contents)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    _cifar(tmp_path)
    (tmp_path / "packed").write_text("a file")
    with pytest.raises(OSError, match=os.strerror(17)):
        pack("cifar10", tmp_path)


def test_large_sets_are_not_resident(tmp_path, monkeypatch):
    _cifar(tmp_path)
    pack("cifar10", tmp_path)
    assert load("cifar10", tmp_path).resident
    monkeypatch.setattr(packed, "RESIDENT", 1000)
    data_set = load("cifar10", tmp_path)
    assert not data_set.resident
    assert isinstance(data_set, ImageSet)
