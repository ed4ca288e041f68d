"""`--rate-by update`: the learning rate of each update of a step, of the optimizer and of the penalty."""

from __future__ import annotations

import math

import pytest
import small_runs
import torch
import torch.nn.functional as F
from small_runs import IMAGES, prepare, record, refused, resume, run, small_recipe

from noiseless import keyed, models
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.objective import GradientPenalty
from noiseless.run.train import train

LR, HORIZON, WARMUP = 0.1, 4, 2


def rate(time):
    """The schedule by hand: linear from 0 in `WARMUP` steps; then a cosine that begins one step later."""
    if time <= WARMUP:
        return LR * time / WARMUP
    return LR * (1 + math.cos(math.pi * max(0.0, time - WARMUP - 1) / HORIZON)) / 2


def recipe_of(data, regime, rate_by, **changes):
    flags = {"stochastic": {}, "parts": {"regime": "full-batch", "parts": 3}, "switch": {"regime": "switch"}}[regime]
    flags |= {"augment": "none", "lr": LR, "horizon": HORIZON, "warmup": WARMUP, "steps": 4, "rate_by": rate_by}
    return small_recipe(data, "sgd", **(flags | changes))


def rates(path, recipe):
    """The optimizer's learning rate at each of its steps, and the rows of the run."""
    experiment, lrs = prepare(recipe), []
    experiment.optimizer.register_step_pre_hook(lambda optimizer, *_: lrs.append(_only(optimizer)))
    directory = RunDirectory(path)
    with directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, ["test"])):
        train(experiment, directory)
    return lrs, directory.rows()


def _only(optimizer):
    (lr,) = {group["lr"] for group in optimizer.param_groups}
    return lr


# blocks of 20 of 48 images: the last of three updates is of 8; three parts are of 16 images each
@pytest.mark.parametrize(("regime", "block"), [("stochastic", 16), ("stochastic", 20), ("parts", 16), ("parts", 8)])
def test_update_k_of_three_has_the_rate_of_the_step_and_k_thirds(data, tmp_path, regime, block):
    lrs, rows = rates(tmp_path / "update", recipe_of(data, regime, "update", block=block))
    # a few roundings of 1e-16 of a cosine
    assert lrs == pytest.approx([rate(step + k / 3) for step in range(4) for k in range(3)], rel=1e-14)
    assert [row["lr"] for row in rows] == pytest.approx([rate(step) for step in range(4)], rel=1e-14)


@pytest.mark.parametrize("regime", ["stochastic", "parts"])
def test_by_step_all_updates_have_the_rate_of_the_step(data, tmp_path, regime):
    lrs, rows = rates(tmp_path / "step", recipe_of(data, regime, "step"))
    assert lrs == pytest.approx([rate(step) for step in range(4) for _ in range(3)], rel=1e-14)
    assert [row["lr"] for row in rows] == lrs[::3]


def test_one_update_a_step_is_the_same_by_both(data, tmp_path):
    one, other = (run(tmp_path / rate_by, recipe_of(data, "parts", rate_by, parts=1)) for rate_by in ("step", "update"))
    assert record(one) == record(other)


def sgd_loop(images, labels, block, time_of):
    """Two steps of mini-batch SGD in float64 with the keyed orders of a run; the model's state."""
    model = models.build("resnet2", 1, 4, seed=0).double().train()
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step in range(2):
        parts = keyed.permutation(0, "shuffle", step, IMAGES).split(block)
        for k, part in enumerate(parts):
            optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * time_of(step, k, len(parts)) / HORIZON)) / 2
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("block", [16, 20])
def test_a_stochastic_run_is_a_loop_whose_rate_moves_at_each_update(data, tmp_path, block):
    recipe = recipe_of(data, "stochastic", "update", block=block, warmup=0, steps=2, dtype="float64")
    images, labels = prepare(recipe).train.take(torch.arange(IMAGES))
    expected = sgd_loop(images, labels, block, lambda step, k, updates: step + k / updates)
    state = run(tmp_path / "run", recipe).state()
    # the two sum in another order; float64 rounds to 1e-16, and six updates through batch norm amplify that by several
    # orders of magnitude at most
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-9, atol=1e-11)
    by_step = sgd_loop(images, labels, block, lambda step, k, updates: step)
    assert max(float((by_step[name] - tensor).abs().max()) for name, tensor in expected.items()) > 1e-4


def test_a_resumed_run_continues_with_the_rates_of_its_updates(data, tmp_path):
    recipe = recipe_of(data, "stochastic", "update", steps=3, warmup=0)
    undisturbed = run(tmp_path / "whole", recipe)
    stopped = run(tmp_path / "stopped", recipe, stop_after=1)
    assert len(stopped.rows()) == 2
    resume(stopped)
    assert record(stopped) == record(undisturbed)


# --- the penalty, whose strength is a multiple of the learning rate ---


# blocks of 20 of 48 images: the last update of a step is of 8
@pytest.mark.parametrize("rate_by", ["step", "update"])
@pytest.mark.parametrize(("regime", "block"), [("stochastic", 16), ("stochastic", 20), ("parts", 16)])
def test_the_penalty_has_the_optimizers_rate(data, tmp_path, regime, block, rate_by):
    recipe = recipe_of(data, regime, rate_by, block=block, penalty=0.5)
    experiment = prepare(recipe)
    penalties = [penalty for step in range(4) for penalty in experiment.regime.objectives(step)]
    assert all(isinstance(penalty, GradientPenalty) for penalty in penalties)
    expected, _ = rates(tmp_path / "run", recipe)
    assert [penalty.lr for penalty in penalties] == expected


def test_the_switch_passes_the_rate_to_both_of_its_regimes(data):
    recipe = recipe_of(data, "switch", "update", switch=2, penalty=0.5, block=16)
    experiment = prepare(recipe)
    lrs = [[penalty.lr for penalty in experiment.regime.objectives(step)] for step in (1, 2)]
    assert lrs[0] == pytest.approx([rate(1 + k / 3) for k in range(3)], rel=1e-14)
    assert lrs[1] == pytest.approx([rate(2)], rel=1e-14)


def test_larc_with_rates_by_update_is_refused(data, tmp_path):
    arguments = ("train", "sgd", "--form", "small", "--data", data, "--block", "16", "--run-dir", tmp_path / "run")
    refused(
        *arguments, "--layer-rate", "larc", "--rate-by", "update",
        names=("--layer-rate larc reads the learning rate of the step: use --rate-by step with it",),
    )  # fmt: skip
    assert not (tmp_path / "run").exists()
    assert small_runs.call(*arguments, "--layer-rate", "lars", "--rate-by", "update", "--steps", 1).code == 0
