"""A dial by one command: runs, measured noise, table and figure; continued and refused."""

import csv
import json

import numpy as np
import pytest
from small_runs import arrays, call, npz, refused

from noiseless.analysis import gradient_noise
from noiseless.ask.state import load_state
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    more = {name: np.concatenate([arrays(seed)[name] for seed in (0, 1)]) for name in ("x_train", "y_train")}
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz", **more)


def command(data, path, *more):
    return (
        "dial", "fb", "--data", data, "--model", "linear", "--model-options", "", "--steps", 16, "--lr", 0.02,
        "--norm-block", 8, "--batches", "48,24", "--seeds", 2, "--jobs", 1, "--copies", 2, "--padding", 1,
        "--run-dir", path, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dial(data, tmp_path_factory):
    """The directory of a small dial, and the command's output."""
    path = tmp_path_factory.mktemp("dial") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        answer = call(*command(data, path))
    assert answer.code == 0, (answer.out, answer.err)
    return path, answer.out


def rows(path):
    return list(csv.DictReader((path / "noise.csv").read_text().splitlines()))


def test_arms_without_noise_have_exactly_none_and_the_others_some(dial):
    path, out = dial
    variances = {}
    for line in rows(path):
        variances.setdefault(line["arm"], []).append(float(line["variance"]))
    assert set(variances) == {
        "full batch", "sampling, 48", "sampling, 24", "augmentation", "fixed copies", "rounding", "all, 24"
    }  # fmt: skip
    assert all(len(values) == 6 for values in variances.values())  # three states of two seeds
    assert not any(variances["full batch"] + variances["fixed copies"])
    for name in set(variances) - {"full batch", "fixed copies"}:
        assert all(value > 0 for value in variances[name]), name
    assert out.count("measuring the noise of") == 14
    assert "no noise" in out and (path / "test-accuracy-over-noise.png").stat().st_size > 1000


def test_noise_of_mini_batches_is_that_of_their_size(dial):
    """Without batch norm the variance is S / b (1 - b / N), with S from all examples. Eight draws estimate it with a
    relative error of about sqrt(2 / 7) at most; twelve such estimates together, at three states of two seeds and two
    sizes, with a sixth of that or so. A factor of 1.6 is three of these errors."""
    path, _ = dial
    ratios = []
    for line in rows(path):
        if line["arm"].startswith("sampling"):
            size, covariance = int(line["arm"].split()[1]), float(line["covariance_trace"])
            ratios.append(float(line["variance"]) / (covariance / size * (1 - size / 96)))
    assert len(ratios) == 12
    assert 1 / 1.6 < np.exp(np.mean(np.log(ratios))) < 1.6


def test_signal_and_covariance_are_those_of_the_state(dial):
    path, _ = dial
    (line,) = (line for line in rows(path) if (line["arm"], line["seed"], line["step"]) == ("sampling, 48", "1", "4"))
    state = load_state(StateAddress(RunDirectory(path / "dial-sampling-48-seed1"), 4))
    noise = gradient_noise(state.risk.at(state.risk.selection)).total
    assert float(line["signal"]) == pytest.approx(noise.square, rel=1e-6)
    assert float(line["share"]) == 0.5


def test_a_second_command_computes_nothing_and_says_the_same(dial, data, monkeypatch):
    path, out = dial
    monkeypatch.setenv("COLUMNS", "80")
    before = (path / "noise.csv").read_bytes()
    answer = call(*command(data, path))
    assert answer.code == 0 and "measuring" not in answer.out
    assert (path / "noise.csv").read_bytes() == before
    assert answer.out[answer.out.index("accuracy on") :] == out[out.index("accuracy on") :]


def test_a_noise_that_is_lost_is_measured_again(dial, data):
    path, _ = dial
    run = path / "dial-all-24-seed0"
    (lost,) = (run / "analysis").glob("draws-00000002.json")
    before = json.loads(lost.read_text())
    lost.unlink()
    answer = call(*command(data, path))
    assert answer.out.count("measuring the noise of") == 1
    assert json.loads(lost.read_text()) == before


def test_a_plan_writes_nothing(data, tmp_path):
    answer = call(*command(data, tmp_path / "runs", "--plan-only"))
    assert answer.code == 0 and "passes for the noise" in answer.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--draws", 2), "--draws must be at least 3, not 2"),
        (("--batches", "48,"), "--batches must be a whole number"),
        (("--penalty", 0.5), "--penalty 0.5 acts on blocks"),
        (("--seeds", 0), "--seeds must be a whole number of at least 1"),
        (("fb-clipped",), "the recipe must come before the flags"),
    ],
)
def test_mistakes_are_one_sentence(data, tmp_path, more, message):
    refused("dial", "--data", data, "--run-dir", tmp_path / "runs", *more, names=(message,))
