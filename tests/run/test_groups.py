"""Process groups that exist already: the program uses them, with the same bits, and leaves them as they were."""

from __future__ import annotations

import socket

import grouped_fit
import programs
import pytest
from small_runs import call


def _train(data, path, *more):
    short = ("--model", "resnet2", "--steps", 2, "--block", 16, "--chunk", 1, "--threads", 1)
    return [str(word) for word in ("train", "fb-clipped", "--data", data, *short, "--run-dir", path, *more)]


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _group(tmp_path, method, *arguments, count=2, program="grouped"):
    """Exit codes and outputs of processes with a group that exists before the program begins."""
    copies = []
    for rank in range(count):
        folder = tmp_path / f"output-{rank}"
        folder.mkdir()
        settings = {"GLOO_SOCKET_IFNAME": "lo"}
        copies.append(programs.Copy(folder, method, rank, count, *arguments, program=program, **settings))
    outputs = [copy.communicate(120) for copy in copies]
    return [copy.returncode for copy in copies], outputs


@pytest.fixture(scope="module")
def digest(data, tmp_path_factory):
    """Of an undisturbed run of one process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    assert call(*_train(data, path)).code == 0
    return call("digest", path).out


@pytest.mark.parametrize("kind", ["file", "tcp"])
def test_a_group_that_exists_gives_the_same_bits_and_stays(data, digest, tmp_path, kind):
    method = tmp_path / "group" if kind == "file" else _free_port()
    first, second = tmp_path / "first", tmp_path / "second"
    codes, outputs = _group(tmp_path, method, *_train(data, first), "then", *_train(data, second))
    assert codes == [0, 0], outputs
    assert call("digest", first).out == call("digest", second).out == digest
    assert "2 workers" in outputs[0][0]
    assert outputs[1] == ("", "")  # the second worker prints nothing


def test_a_group_of_one_is_one_process(data, digest, tmp_path):
    codes, outputs = _group(tmp_path, tmp_path / "group", *_train(data, tmp_path / "run"), count=1)
    assert codes == [0], outputs
    assert call("digest", tmp_path / "run").out == digest


def test_a_mistake_is_one_sentence_of_the_first_worker(data, tmp_path):
    codes, outputs = _group(tmp_path, tmp_path / "group", "train", "fb", "--data", data, "--steps", "1")
    assert codes == [2, 2]
    assert outputs[0][1] == "error: --run-dir is required in a job, so that all workers find the run\n"
    assert outputs[1] == ("", "")


def test_fit_shares_its_blocks_in_a_group_that_exists(tmp_path):
    codes, outputs = _group(tmp_path, tmp_path / "group", program="grouped_fit")
    assert codes == [0, 0], outputs
    alone = grouped_fit.train()
    assert [out.split() for out, _ in outputs] == [[alone, alone]] * 2
    assert (tmp_path / "group-run" / "model.safetensors").exists()


def test_an_error_of_one_process_alone_in_fit_ends_the_others(tmp_path):
    codes, outputs = _group(tmp_path, tmp_path / "group", "alone", program="grouped_fit")
    assert codes == [1, 1]
    assert "ValueError" in outputs[1][1]
    assert "JobFailedError: another worker of this job has ended with exit code 1" in outputs[0][1]
