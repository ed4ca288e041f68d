"""Noise and weight space of real runs: momentum by name, the next update, other blocks; no file changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import files, run, small_recipe

from noiseless.analysis import gradient_noise
from noiseless.ask import noise
from noiseless.ask.options import NoiseOptions
from noiseless.ask.state import StateAddress, load_state
from noiseless.ask.weights import weights
from noiseless.recipes.flags import with_flags


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run of 3 steps with all its states; biases and norms in a separate group, without decay."""
    path = tmp_path_factory.mktemp("kept") / "run"
    return run(path, small_recipe(data, "fb-clipped", decay_biases=False), keep_every=1)


def _at(directory, step=None):
    return load_state(StateAddress(directory, step))


def _theta(directory, step):
    names = _at(directory).experiment.space.names
    state = load_file(directory.checkpoints / f"step-{step:08d}.safetensors")
    return torch.cat([state[f"/model/{name}"].flatten() for name in names]).double()


def test_the_momentum_is_in_the_order_of_the_parameters(finished):
    # the optimizer numbers its parameters by group: matrices first, then what has fewer dimensions
    state = _at(finished, 2)
    saved = load_file(finished.checkpoints / "step-00000002.safetensors")
    named = [(name, p) for name, p in state.experiment.model.named_parameters()]
    numbered = [name for name, p in named if p.ndim >= 2] + [name for name, p in named if p.ndim < 2]
    assert numbered != [name for name, _ in named]
    expected = [saved[f"/optimizer/state/{numbered.index(name)}/momentum_buffer"].flatten() for name, _ in named]
    assert torch.equal(noise.momentum_of(state), torch.cat(expected))


@pytest.mark.parametrize(
    ("optimizer", "has_momentum"), [("AdamW", True), ("Muon", True), ("RMSprop", False), ("DampedLBFGS", False)]
)
def test_other_optimizers_have_a_mean_gradient_or_none(optimizer, has_momentum, data, tmp_path):
    changes = {"momentum": None} if optimizer in ("RMSprop", "DampedLBFGS") else {}
    recipe = small_recipe(data, "fb", optimizer=optimizer, lr=1e-3, weight_decay=0.0, steps=2, **changes)
    state = _at(run(tmp_path / "run", recipe))
    momentum = noise.momentum_of(state)
    assert (momentum is not None) == has_momentum
    if has_momentum:
        assert momentum.shape == state.experiment.space.theta.shape
        assert momentum.any()


def test_at_the_start_there_is_no_momentum(finished):
    answer = noise.noise(_at(finished, 0), NoiseOptions())
    assert (answer.values["momentum_cosine"], answer.values["momentum_cosines"]) == (None, None)


def test_the_answer_has_the_numbers_of_the_analysis(finished):
    answer = noise.noise(_at(finished, 2), NoiseOptions(sizes=(3, 40)))
    values = answer.values
    state = _at(finished, 2)
    plain = gradient_noise(state.risk)
    assert answer.kind == "noise"
    assert answer.name == "step-2"
    assert (values["step"], values["block"], values["blocks"], values["norm_block"]) == (2, 16, 3, 16)
    assert values["noise_scale"] == plain.total.noise_scale
    assert values["block_norms"] == plain.block_norms.tolist()
    assert values["signal_to_noise"] == plain.total.signal_to_noise(16)
    assert [row["block"] for row in values["by_block"]] == [3, 40]
    assert values["layers"].keys() == dict(state.experiment.model.named_parameters()).keys()
    assert values["passes"] == 2
    gradient = state.risk.evaluate().gradient.double()
    momentum = noise.momentum_of(state).double()
    cosine = gradient @ momentum / (gradient.norm() * momentum.norm())
    assert values["momentum_cosine"] == pytest.approx(float(cosine), rel=1e-6)
    # the gradient itself is the mean of the blocks', so their cosines with it are those of their parts along it
    along = np.array(values["cosines"]) * values["block_norms"]
    assert along.mean() == pytest.approx(values["gradient_norm"], rel=1e-6)
    json.dumps(values, allow_nan=False)


def test_blocks_can_have_another_size(finished):
    state = _at(finished)
    assert noise.risk_in_blocks(state, NoiseOptions(8)).norm.norm_block == 8  # below the run's 16
    with pytest.raises(ValueError, match=r"--block 24 must be a multiple of the 16 .*running"):
        noise.risk_in_blocks(state, NoiseOptions(24))
    risk = noise.risk_in_blocks(state, NoiseOptions(24, batch_norm="running"))
    assert state.experiment.model.training
    assert len(gradient_noise(risk, batch_norm="running").counts) == 2
    with pytest.raises(ValueError, match="one block of 48"):
        noise.risk_in_blocks(_at(finished), NoiseOptions(48))
    with pytest.raises(ValueError, match="block 49 is larger than the 48"):
        noise.risk_in_blocks(_at(finished), NoiseOptions(49, batch_norm="running"))


def test_with_running_statistics_the_gradient_does_not_depend_on_the_blocks(finished):
    def gradient(size, batch_norm):
        risk = noise.risk_in_blocks(_at(finished), NoiseOptions(size, batch_norm=batch_norm))
        return gradient_noise(risk, batch_norm=batch_norm).gradient

    # examples are independent then: the same mean for any blocks, up to float32
    torch.testing.assert_close(gradient(4, "running"), gradient(16, "running"), rtol=1e-4, atol=1e-6)
    others = [gradient(size, "block") for size in (4, 16)]
    assert (others[0] - others[1]).norm() > 1e-2 * others[1].norm()


def test_a_shuffle_is_a_keyed_order_that_keeps_draws_together(data, tmp_path):
    recipe = small_recipe(data, "fb", max_up=2, augment="crop-flip", padding=1, block=8)
    state = _at(run(tmp_path / "run", recipe))
    orders = [noise.risk_in_blocks(state, NoiseOptions(shuffle=True)).selection.order for _ in range(2)]
    assert torch.equal(*orders)
    assert sorted(orders[0].tolist()) == list(range(96))
    assert orders[0].tolist() != state.risk.selection.order.tolist()
    pairs = orders[0].reshape(-1, 2)
    assert torch.equal(pairs[:, 0] + 48, pairs[:, 1])
    with pytest.raises(ValueError, match="--block 7 must be a multiple of the run's --max-up 2"):
        noise.risk_in_blocks(state, NoiseOptions(7, batch_norm="running"))


def test_the_next_update_is_the_one_that_the_run_took(finished):
    state = _at(finished, 1)
    before = state.experiment.space.theta.clone()
    answer = weights(state)
    values = answer.values
    assert torch.equal(state.experiment.space.theta, before)
    theta, next_theta, start = (_theta(finished, step) for step in (1, 2, 0))
    assert values["reasons"] == []
    assert values["whole"]["update_norm"] == pytest.approx(float((next_theta - theta).norm()), rel=1e-12)
    assert values["whole"]["update_ratio"] == pytest.approx(
        float((next_theta - theta).norm() / theta.norm()), rel=1e-12
    )
    assert values["whole"]["distance"] == pytest.approx(float((theta - start).norm()), rel=1e-12)
    rows = finished.rows()
    assert values["whole"]["norm"] == pytest.approx(rows[0]["parameter_norm"], rel=1e-6)
    assert values["whole"]["gradient_norm"] == pytest.approx(rows[1]["gradient_norm"], rel=1e-6)
    assert values["lr"] == rows[1]["lr"]
    assert values["passes"] == 2
    assert sum(layer["update_norm"] ** 2 for layer in values["layers"].values()) == pytest.approx(
        values["whole"]["update_norm"] ** 2
    )


def test_the_start_is_at_no_distance_and_has_a_first_update(finished):
    values = weights(_at(finished, 0)).values
    assert values["whole"]["distance"] == 0
    assert values["whole"]["update_norm"] == pytest.approx(
        float((_theta(finished, 1) - _theta(finished, 0)).norm()), rel=1e-12
    )


def test_without_the_optimizers_state_there_is_no_update_but_the_rest(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb-clipped"))
    for path in directory.checkpoints.iterdir():
        path.unlink()
    values = weights(_at(directory)).values
    assert values["whole"]["update_norm"] is None
    assert values["whole"]["distance"] > 0
    assert "no checkpoint of step 3 holds the optimizer's state" in values["reasons"][0]


def test_without_its_start_a_run_has_no_distance(data, tmp_path):
    first = run(tmp_path / "first", small_recipe(data, "fb-clipped"))
    directory = run(tmp_path / "run", with_flags(small_recipe(data, "fb-clipped"), init=str(first.model)))
    (directory.checkpoints / "step-00000000.json").unlink(missing_ok=True)
    values = weights(_at(directory)).values
    assert values["whole"]["distance"] is None
    assert "no distance" in values["reasons"][0]
    assert values["whole"]["update_norm"] > 0


def test_noise_of_a_stochastic_run_is_over_all_examples(data, tmp_path):
    state = _at(run(tmp_path / "run", small_recipe(data, "sgd")))
    assert noise.noise(state, NoiseOptions()).values["examples"] == 48
    values = weights(state).values
    assert values["passes"] == pytest.approx(1 + 16 / 48)  # its next update is of one block


def test_no_file_of_the_run_is_changed(finished):
    before = files(finished.path)
    noise.noise(_at(finished, 1), NoiseOptions())
    weights(_at(finished, 1))
    assert files(finished.path) == before
