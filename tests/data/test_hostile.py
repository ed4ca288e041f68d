"""Data files that were made to do harm: each is one sentence, at once."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest
import safetensors.torch
import torch
from small_runs import call, npz, refused

from noiseless.data import home, load, pickled
from noiseless.data.download import fetch
from noiseless.data.home import NOWHERE
from noiseless.data.sources import Source
from noiseless.files.parameters import load_parameters


def archive(path, header):
    """An npz file with an array whose header is that text."""
    content = io.BytesIO()
    content.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\x00" * 64)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x_train.npy", content.getvalue())
    return path


@pytest.mark.parametrize(
    "header",
    [
        "(" * 9000 + ")" * 9000,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 9), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (10**30,), }",
        "{'descr': " + "[" * 200 + "]" * 200 + ", 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "\x00",
    ],
)
def test_an_array_with_a_hostile_header_is_refused(tmp_path, header):
    path = archive(tmp_path / "hostile.npz", header)
    refused("train", "fb", "--data", f"npz:{path}", "--run-dir", tmp_path / "run", names=(path, "x_train"))


def nested(depth):
    """A pickle of a dictionary with a tuple of tuples of tuples ... as its key: to hash it needs the whole stack."""
    return b"\x80\x02}(" + b")" + b"\x85" * depth + b"K\x01u."


def test_a_deeply_nested_key_does_not_end_the_process():
    assert list(pickle.loads(nested(3)).values()) == [1]
    with pytest.raises(ValueError, match="more than 1000 lists, tuples and dictionaries"):
        pickled.read(nested(3_000_000), "batch")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_an_image_that_is_no_file_is_refused(tmp_path, kind):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            path = tmp_path / "set" / part / name / "0.png"
            if kind == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to("/dev/zero")
    message = refused(
        "train", "fb", "--data", f"folder:{tmp_path / 'set'}", "--pixels", 8, "--run-dir", tmp_path / "run",
        names=("0.png",),
    )  # fmt: skip
    assert "not a regular file" in message


def hostile_header(header):
    return struct.pack("<Q", len(header)) + header


def linear(weight):
    return safetensors.torch.save({"weight": weight, "bias": torch.zeros(2)})


ENDLESS = b'{"a":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (linear(torch.zeros(2, 3).to(torch.float8_e4m3fn)), "dtype float8_e4m3fn"),
        (linear(torch.zeros(2, 3, dtype=torch.complex64)), "dtype complex64"),
        (linear(torch.zeros(2, 3, dtype=torch.int32)), "dtype int32"),
        (linear(torch.full((2, 3), torch.nan)), "weight holds NaN"),
        (hostile_header(ENDLESS), "is not of this model: missing bias, weight"),
        (hostile_header(b"[" * 5000), "cannot be read as a safetensors file"),
    ],
)
def test_initial_parameters_that_a_model_cannot_hold_are_refused(tmp_path, content, problem):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        load_parameters(torch.nn.Linear(3, 2), path)


def test_parameters_of_another_real_dtype_are_cast(tmp_path):
    path = tmp_path / "model.safetensors"
    weight = torch.arange(6.0).reshape(2, 3)
    safetensors.torch.save_file({"weight": weight.to(torch.bfloat16), "bias": torch.ones(2).double()}, path)
    model = torch.nn.Linear(3, 2)
    load_parameters(model, path)
    assert torch.equal(model.weight, weight)


class OtherRange(BaseHTTPRequestHandler):
    """Answers with a range that nobody has asked for."""

    def do_GET(self):
        self.send_response(206)
        self.send_header("Content-Range", "bytes 5-9/12")
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"abcde")

    def log_message(self, *_):
        pass


def test_after_a_server_that_sends_another_range_the_next_one_is_asked(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), OtherRange)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/file"
    source = Source("file", 12, (), (url, "http://127.0.0.1:1/file"), "folder")
    try:
        with pytest.raises(ValueError, match=r"sends another range than requested; http://127.0.0.1:1/file: no"):
            fetch(source, tmp_path, pause=0.001)
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_home_directory_what_needs_none_works(tmp_path, monkeypatch):
    monkeypatch.delenv("NOISELESS_DATA", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 45678)  # a user without an entry in the list of users
    assert home() == NOWHERE
    assert len(load("digits").y_train) == 512
    assert len(load(npz(tmp_path / "tiny.npz")).y_train) == 48
    with pytest.raises(ValueError, match=r"no home directory for cifar-10.* NOISELESS_DATA or by --data-dir"):
        load("cifar10")
    answer = call("data", "list")
    assert answer.code == 0, answer
    with pytest.raises(ValueError, match="give a path without ~"):
        home("~/data")


def test_labels_stay_a_flat_list():
    content = pickle.dumps({b"labels": list(range(5000)), b"data": np.zeros(0).tolist()}, protocol=2)
    assert pickled.read(content, "batch")["labels"] == list(range(5000))
