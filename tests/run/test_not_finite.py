"""A loss that is not finite: the run stops at that step with a diagnosis, and keeps finite checkpoints."""

import json
import re

import pytest
import safetensors.torch
import torch
from small_runs import call, refused

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory

FLAGS = ("--clip", "None", "--warmup", "0", "--threads", "1", "--model", "resnet8", "--block", "16", "--steps", "5")


def all_finite(state):
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


@pytest.mark.parametrize("recipe", ["fb", "fb-regularized", "sgd"])
def test_a_run_that_diverges_stops_with_a_diagnosis_and_finite_checkpoints(recipe, data, tmp_path):
    path = tmp_path / "run"
    answer = call("train", recipe, "--data", data, *FLAGS, "--lr", 1e30, "--run-dir", path, "--checkpoint-seconds", 0)
    directory = RunDirectory(path)
    assert answer.code == 3
    assert "Traceback" not in answer.out + answer.err
    diagnosis = re.search(r"not finite at step (\d+).*lr (\S+), gradient norm (\S+?)\. ", answer.err)
    assert diagnosis, answer.err
    assert int(diagnosis[1]) == len(directory.rows())
    assert float(diagnosis[2]) > 0
    assert str(directory.checkpoints) in answer.err
    assert not directory.model.exists()
    assert list(directory.checkpoints.glob("*.json"))
    for file in directory.checkpoints.glob("*.json"):
        assert all_finite(checkpoint.read(file)[1]["model"]), file.name


# Batch norm bounds what the weights do, so at a rate of 10 the numbers grow, but only to some thousand. At 1e12 the
# first step moves weights and scales to 1e11 and more: the second convolution's outputs are above 1e19, and their
# variance, of squares above 1e38, is no float32.
@pytest.mark.parametrize(("lr", "code", "steps"), [(10, 0, 5), (1e12, 3, 1)])
def test_a_run_at_a_large_rate_ends_with_finite_numbers_or_as_diverged(lr, code, steps, data, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    answer = call("train", "fb", "--data", data, *FLAGS, "--lr", lr, "--run-dir", directory.path)
    assert (answer.code, directory.model.exists(), len(directory.rows())) == (code, code == 0, steps)
    assert ("not finite" in answer.err) == (code == 3)
    assert directory.rows()[-1]["parameter_norm"] > lr  # the rate is a large one: it moves the parameters far
    assert all_finite(directory.state())


def test_each_row_of_a_run_that_diverged_is_strict_json(data, tmp_path):
    path = tmp_path / "run"
    answer = call("train", "fb", "--data", data, *FLAGS, "--lr", 1e30, "--evaluate-every", 1, "--run-dir", path)
    assert answer.code == 3

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON: other readers of metrics.jsonl stop there")

    for line in (path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_diverged_run_gives_the_digest_of_its_last_finite_state(data, tmp_path):
    path = tmp_path / "run"
    assert call("train", "fb", "--data", data, *FLAGS, "--lr", 1e30, "--run-dir", path).code == 3
    digest = call("digest", path)
    assert digest.code == 0
    assert re.fullmatch(r"[0-9a-f]{64}\n", digest.out)
    assert "has not ended" in digest.err
    resumed = call("resume", path)
    assert resumed.code == 3
    assert "not finite" in resumed.err


def test_initial_parameters_that_are_not_finite_are_refused(data, tmp_path, practice):
    state = practice.state()
    state["fc.bias"] = torch.full_like(state["fc.bias"], torch.nan)
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    refused(
        "train", "--data", data, "--model", "resnet2", "--init", tmp_path / "nan.safetensors", "--block", 16,
        names=("nan.safetensors", "fc.bias", "NaN"),
    )  # fmt: skip
