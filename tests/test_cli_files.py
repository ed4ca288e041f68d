"""Files of users: npz data and initial parameters that are wrong or damaged are refused by name."""

import re
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from small_runs import arrays, call, npz, record, refused, run, small_recipe

from noiseless.files.directory import RunDirectory

FLAGS = ("--model", "resnet2", "--block", "16", "--steps", "1", "--threads", "1")
GOOD = arrays()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the tiny data."""
    path = tmp_path_factory.mktemp("finished")
    return run(path / "run", small_recipe(npz(path / "tiny.npz"), steps=1))


def changed(name, **replaced):
    array = GOOD[name].copy()
    for index, value in replaced.items():
        array[int(index.removeprefix("at"))] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (changed("y_train", at5=-1), ("y_train", "-1")),
        (changed("y_train", at5=1000), ("y_train", "1000")),
        (changed("y_test", at5=7), ("y_test", "7", "3")),
        ({"y_train": GOOD["y_train"].astype(float)}, ("y_train", "float64", "whole numbers")),
        ({"y_train": GOOD["y_train"][:-1]}, ("y_train", "48", "47")),
        ({"x_train": GOOD["x_train"][:-1]}, ("y_train", "47", "48")),
        ({"x_train": GOOD["x_train"][:0], "y_train": GOOD["y_train"][:0]}, ("x_train", "empty")),
        ({"x_test": GOOD["x_test"][:0], "y_test": GOOD["y_test"][:0]}, ("x_test", "empty")),
        ({"x_train": np.full((48, 8, 8), np.nan)}, ("x_train", "NaN", "uint8")),
        ({"x_train": GOOD["x_train"] / np.float32(255)}, ("x_train", "float32", "uint8")),
        ({"x_train": GOOD["x_train"].reshape(48, 64)}, ("x_train", "[48, 64]")),
        ({"x_test": GOOD["x_test"][:, :7]}, ("[8, 8]", "[7, 8]")),
        ({"x_train": np.array([None] * 48, dtype=object)}, ("x_train",)),
        ({"y_train": np.array(["cat"] * 48)}, ("y_train",)),
        ({"x_train": np.full((48, 8, 8), 9, np.uint8)}, ("standard deviation", "--std")),
    ],
)
def test_arrays_that_are_no_data_are_named(changes, names, tmp_path):
    data = npz(tmp_path / "bad.npz", **changes)
    message = refused("train", "fb", "--data", data, *FLAGS, "--run-dir", tmp_path / "run", names=names)
    assert "bad.npz" in message or "--std" in message
    assert not (tmp_path / "run").exists()


def squeezed(path):
    """A compressed npz whose data are damaged in the middle."""
    np.savez_compressed(path, **GOOD)
    with zipfile.ZipFile(path) as file:
        offset = file.getinfo("x_train.npy").header_offset + 200
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)


def lacking(path):
    np.savez(path, x_train=GOOD["x_train"], labels=GOOD["y_train"])


def cut(path):
    npz(path)
    path.write_bytes(path.read_bytes()[:-300])


def single(path):
    with path.open("wb") as file:
        np.save(file, GOOD["x_train"])


FILES = {
    "text": (lambda path: path.write_text("x,y\n1,2\n"), ()),
    "empty": (lambda path: path.write_bytes(b""), ()),
    "directory": (lambda path: path.mkdir(), ()),
    "missing": (lambda path: None, ("there is no file",)),
    "cut": (cut, ()),
    "one array": (single, ()),
    "damaged": (squeezed, ()),
    "lacking": (lacking, ("y_train, x_test, y_test", "labels", "numpy.savez")),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_npz_is_named(kind, tmp_path):
    make, names = FILES[kind]
    path = tmp_path / "bad.npz"
    make(path)
    refused("train", "fb", "--data", f"npz:{path}", *FLAGS, "--run-dir", tmp_path / "run", names=(path, *names))
    assert not (tmp_path / "run").exists()


def test_npz_without_a_file_is_refused_with_the_right_form(tmp_path):
    refused("train", "fb", "--data", "npz", *FLAGS, "--run-dir", tmp_path / "run", names=("'npz'", "npz:FILE"))


def test_images_with_channels_may_be_used(tmp_path):
    def coloured(x):
        return np.stack([x, 255 - x, x // 2], axis=-1)

    data = npz(tmp_path / "rgb.npz", x_train=coloured(GOOD["x_train"]), x_test=coloured(GOOD["x_test"]))
    answer = call("train", "fb", "--data", data, *FLAGS, "--run-dir", tmp_path / "run", "--mean", 0.5, 0.5, 0.5)
    assert answer.code == 0, answer.err


def test_a_run_begins_with_the_initial_parameters(finished, tmp_path):
    data = finished.config().recipe.data.name
    flags = ("--data", data, *FLAGS, "--init", finished.model, "--run-dir", tmp_path / "run")
    assert call("train", "fb", *flags, "--warmup", 1, "--seed", 9).code == 0
    state, initial = RunDirectory(tmp_path / "run").state(), finished.state()
    learned = [name for name in initial if re.search(r"(weight|bias)$", name)]
    assert all(torch.equal(state[name], initial[name]) for name in learned)  # the one step, at lr 0, moves nothing


def init_errors():
    def junk(path, state):
        path.write_bytes(b"this is no safetensors file" * 9)

    def empty(path, state):
        path.write_bytes(b"")

    def absent(path, state):
        pass

    def folder(path, state):
        path.mkdir()

    def cut_off(path, state):
        safetensors.torch.save_file(state, path)
        path.write_bytes(path.read_bytes()[:-9])

    def pickled(path, state):
        torch.save({"epoch": 3, "state": state}, path)

    def other_shape(path, state):
        safetensors.torch.save_file(state | {"stem.0.weight": torch.zeros(8, 1, 3, 3)}, path)

    def fewer(path, state):
        safetensors.torch.save_file({k: v for k, v in state.items() if k != "fc.bias"}, path)

    def more(path, state):
        safetensors.torch.save_file(state | {"head.bias": torch.zeros(1)}, path)

    return [
        (junk, ("safetensors",)),
        (empty, ("safetensors",)),
        (absent, ("there is no file",)),
        (folder, ()),
        (cut_off, ("safetensors",)),
        (pickled, ("tensors by name", "'epoch' is 3")),
        (other_shape, ("stem.0.weight", "[8, 1, 3, 3]", "[16, 1, 3, 3]")),
        (fewer, ("missing fc.bias",)),
        (more, ("unknown head.bias",)),
    ]


@pytest.mark.parametrize(("make", "names"), init_errors())
def test_a_file_that_holds_no_parameters_of_the_model_is_named(make, names, finished, tmp_path):
    path = tmp_path / "init.safetensors"
    make(path, finished.state())
    flags = ("--data", finished.config().recipe.data.name, *FLAGS, "--init", path, "--run-dir", tmp_path / "run")
    refused("train", "fb", *flags, names=(path, *names))
    assert not (tmp_path / "run").exists()


def test_a_run_depends_on_the_content_of_its_data_and_not_on_their_path(finished, tmp_path):
    """A run on the same bytes in another directory is the same run."""
    again = run(tmp_path / "run", small_recipe(npz(tmp_path / "elsewhere.npz"), steps=1))
    assert record(again) == record(finished)
