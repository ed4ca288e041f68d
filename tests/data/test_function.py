"""Data sets from functions of the user's own: the same bytes in each form, or one sentence."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch
from small_runs import call, refused

from noiseless.data import extent, from_function, load, npz
from noiseless.errors import UnknownNameError
from noiseless.trust import trusting

SOURCE = """
import numpy as np
import torch
from PIL import Image

rng = np.random.default_rng(0)
x = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
y = np.arange(30) % 3
channels_first = torch.from_numpy(x).permute(0, 3, 1, 2)

def arrays():
    return (x[:20], y[:20]), (x[20:], y[20:])

def names():
    return {"x_train": x[:20], "y_train": y[:20], "x_test": x[20:], "y_test": y[20:]}

def tensors():
    return [(channels_first[:20], torch.from_numpy(y[:20])), (channels_first[20:], y[20:].tolist())]

def items():
    return [(image, int(label)) for image, label in zip(x[:20], y)], torch.utils.data.TensorDataset(
        channels_first[20:], torch.from_numpy(y[20:]))

def pictures():
    return tuple([(Image.fromarray(x[k]).convert(mode), y[k]) for k in part]
                 for mode, part in (("RGB", range(20)), ("RGBA", range(20, 30))))

def grey():
    return (torch.from_numpy(x[:20, ..., 0]), y[:20]), [(Image.fromarray(x[k, ..., 0]), y[k]) for k in range(20, 30)]

def floats():
    return (x[:20] / 255, y[:20]), (x[20:] / 255, y[20:])

def last():
    return (torch.from_numpy(x[:20]), y[:20]), (torch.from_numpy(x[20:]), y[20:])

def sizes():
    return [(x[0], 0), (x[1, :5], 1)], arrays()[1]

def bare():
    return list(x), list(x)

def stream():
    return iter(arrays()[0]), arrays()[1]

def empty():
    return [], arrays()[1]

def fails():
    return open("/not/there")

def one():
    return x

def wants(root):
    return arrays()

number = 7
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (tmp_path / "noiseless_images.py").write_text(SOURCE)
    with trusting(("noiseless_images", "noiseless_nowhere")):
        yield
    sys.modules.pop("noiseless_images", None)


def _same(a, b):
    return all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("x_train", "y_train", "x_test", "y_test"))


@pytest.mark.parametrize("form", ["arrays", "names", "tensors", "items", "pictures"])
def test_every_form_gives_the_same_bytes(tmp_path, form):
    data_set = load(f"noiseless_images:{form}")
    np.savez(tmp_path / "a.npz", **from_names())
    expected = npz(tmp_path / "a.npz")
    assert _same(data_set, expected)
    assert data_set.sha256() == expected.sha256()
    assert data_set.name == f"noiseless_images:{form}"


def from_names():
    names = sys.modules["noiseless_images"].names()
    return {key: np.asarray(value) for key, value in names.items()}


def test_grey_images_have_one_channel():
    data_set = from_function("noiseless_images:grey")
    x = sys.modules["noiseless_images"].x
    assert np.array_equal(data_set.x_train[:, 0], x[:20, ..., 0])
    assert np.array_equal(data_set.x_test[:, 0], x[20:, ..., 0])
    assert extent("noiseless_images:grey").shape == (1, 8, 8)
    assert load("noiseless_images:grey", pixels=4).x_test.shape == (10, 1, 4, 4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("floats", "noiseless_images:floats: x_train must be uint8 (0 ... 255), but is float64"),
        ("last", "x_train is a tensor of shape [20, 8, 8, 3], which looks like [N, H, W, C]; a tensor's channels must"),
        ("sizes", "x_train: the image of item 1 has shape [5, 8, 3], but that of item 0 [8, 8, 3]; resize"),
        ("bare", "x_train: item 0 is of type ndarray; it must be (image, label)"),
        ("stream", "x_train is of type tuple_iterator; it must be (images, labels), or a data set with __len__"),
        ("empty", "x_train is empty"),
        (
            "fails",
            "noiseless_images:fails failed: FileNotFoundError: [Errno 2] No such file or directory: '/not/there'",
        ),
        ("one", "noiseless_images:one returned a value of type ndarray; it must return (train, test), each"),
        (
            "wants",
            "noiseless_images:wants(root) cannot be called with no arguments: missing a required argument: 'root'",
        ),
        ("number", "noiseless_images:number is of type int; it must be a function that returns training and test"),
        ("", "noiseless_images: is no name of a function; write package.module:function, npz:FILE or folder:PATH"),
    ],
)
def test_functions_that_give_no_images_are_refused(function, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(f"noiseless_images:{function}")


def test_unknown_functions_and_modules_are_refused():
    with pytest.raises(UnknownNameError, match="unknown function of noiseless_images 'aray'; did you mean arrays"):
        load("noiseless_images:aray")
    with pytest.raises(ValueError, match="the module noiseless_nowhere cannot be imported"):
        load("noiseless_nowhere:arrays")
    with pytest.raises(ValueError, match="digits: is no name of a function"):
        load("digits:")


STEP = ("--model", "linear", "--block", "20", "--steps", "1", "--threads", "1", "--compile", "off")


def test_a_run_records_and_calls_the_function_again(tmp_path):
    answer = call("train", "fb", "--data", "noiseless_images:arrays", *STEP, "--run-dir", tmp_path / "run")
    assert answer.code == 0, answer.err
    record = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert record["data_sha256"] == load("noiseless_images:arrays").sha256()
    assert call("evaluate", tmp_path / "run").code == 0
    sys.modules["noiseless_images"].x[3, 0, 0] += 1
    refused("evaluate", tmp_path / "run", names=("noiseless_images:arrays",))


def test_mistakes_end_the_command_before_a_run_begins(tmp_path):
    for function, part in (("floats", "uint8"), ("fails", "FileNotFoundError"), ("nothing", "unknown function")):
        name = f"noiseless_images:{function}"
        refused("train", "fb", "--data", name, *STEP, "--run-dir", tmp_path / "run", names=(part,))
    assert not (tmp_path / "run").exists()
    refused("data", "pack", "noiseless_images:arrays", names=("there is nothing to pack",))
    refused("data", "fetch", "noiseless_images:arrays", names=("your own data set",))
    assert "20 for training, 10 for testing" in call("data", "info", "noiseless_images:arrays").out
