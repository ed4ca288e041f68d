"""`noiseless noise` and `noiseless weights`: what they print and save, the same bits for two workers, wrong input."""

from __future__ import annotations

import json

import printed
import pytest
from small_runs import call, copy, npz, refused, replace_final, run, small_recipe, words

from noiseless.commands.console import console
from noiseless.files import answers


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 3 steps with all its states, in chunks of one block."""
    data = npz(tmp_path_factory.mktemp("data") / "tiny.npz")
    path = tmp_path_factory.mktemp("runs") / "run"
    return run(path, small_recipe(data, "fb-clipped", block=8), keep_every=1, chunk=1)


@pytest.fixture
def _wide(monkeypatch):
    """A terminal in which no name is folded."""
    monkeypatch.setattr(console, "_width", 200)
    monkeypatch.setattr(console, "_height", 50)


@pytest.mark.usefixtures("_wide")
def test_noise_prints_and_saves_an_answer(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    answer = call("noise", f"{directory.path}@2", "--sizes", 1, 8, "--layers")
    assert (answer.code, answer.err) == (0, "")
    text = words(answer.out)
    (saved,) = answers.read(directory, "noise")
    for part in ("after 2 steps: 6 blocks of 8", "noise scale tr(Sigma) / |G|^2", "2 passes", f"noise-{saved.name}"):
        assert part in text, part
    assert all(name in answer.out for name in saved.values["layers"])
    assert f"{saved.values['covariance_trace']:.4g}" in text
    assert saved.values["step"] == 2
    assert len(saved.values["cosines"]) == 6
    call("noise", f"{directory.path}@2")
    assert len(answers.read(directory, "noise")) == 1  # a second answer replaces the first
    call("noise", directory.path, "--block", 12, "--batch-norm", "running", "--shuffle")
    assert [analysis.name for analysis in answers.read(directory)] == ["step-2", "step-3-block-12-running-shuffled"]


def test_two_workers_save_the_same_bits(finished, tmp_path):
    alone, together = copy(finished, tmp_path / "alone"), copy(finished, tmp_path / "together")
    assert call("noise", alone.path).code == 0
    code, out = printed.launch(2, tmp_path / "log", "noise", together.path)
    assert (code, out.count("saved:")) == (0, 1), out
    one, two = ((run.path / "analysis" / "noise-step-3.json").read_bytes() for run in (alone, together))
    assert one == two
    assert len(json.loads(one)["found"]["block_norms"]) == 6


@pytest.mark.usefixtures("_wide")
def test_weights_prints_and_saves_an_answer(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    answer = call("weights", f"{directory.path}@1")
    assert (answer.code, answer.err) == (0, "")
    (saved,) = answers.read(directory, "layers")
    assert all(name in answer.out for name in saved.values["layers"])
    assert f"{saved.values['whole']['distance']:.4g}" in answer.out
    assert saved.values["whole"]["update_ratio"] > 0


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("noise", "RUN", "--block", 48), ("one block of 48", "at most 24")),
        (("noise", "RUN", "--block", 12), ("--block 12", "multiple of the 8", "--batch-norm running")),
        (("noise", "RUN", "--block", 0), ("at least 1", "0")),
        (("noise", "RUN", "--block", 100), ("block 100 is larger than the 48 examples",)),
        (("noise", "RUN", "--workers", 0), ("--workers", "not 0")),
        (("noise", "RUN", "--sizes", 4, -1), ("--sizes", "not -1")),
        (("noise", "RUN@7"), ("no state of step 7", "0, 1, 2, 3")),
        (("noise", "RUN@x"), ("not 'x'",)),
        (("weights", "RUN@9"), ("no state of step 9",)),
        (("weights", "/nowhere"), ("/nowhere does not exist",)),
    ],
)
def test_wrong_arguments_are_refused(finished, arguments, names):
    refused(*(str(a).replace("RUN", str(finished.path)) for a in arguments), names=names)
    assert not (finished.path / "analysis").exists()


def test_a_state_that_is_not_finite_is_refused(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    state = directory.state()
    next(iter(state.values())).fill_(float("nan"))
    replace_final(directory, state)
    refused("noise", directory.path, names=("6 of 6 blocks are not finite", "block 0"))
