"""Sharpness-aware minimisation: formula, what it wraps, that the step ahead leaves no trace, stops between sweeps."""

from __future__ import annotations

import copy
from itertools import count

import oracles
import problems
import pytest
import torch
from small_runs import npz, record, resume, small_recipe
from torch import nn

from noiseless import (
    EmpiricalRisk,
    Execution,
    GradientPenalty,
    cross_entropy,
    parameter_space,
    squared_error,
    take_step,
)
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory, environment
from noiseless.files.snapshot import Snapshots
from noiseless.objective import SharpnessAware
from noiseless.objective.workers import Alone, SweepStoppedError
from noiseless.recipes.config import Config, Settings
from noiseless.run.build import build
from noiseless.run.train import Interrupted, Progress, train


def test_on_a_quadratic_the_direction_is_known():
    # L = mean (w x - y)**2 has the Hessian H = 2 mean x x^T: at w + rho g / |g| its gradient is g + rho H g / |g|
    x, y = problems.targets(20, 3, seed=5), problems.targets(20, 1, seed=6)
    module = problems.fill(nn.Linear(3, 1, bias=False))
    risk = EmpiricalRisk(module, squared_error, [x, y], block=6)
    found = SharpnessAware(risk, 0.3).evaluate()
    g = 2 / 20 * x.T @ (x @ module.weight.detach().flatten() - y.flatten())
    expected = g + 0.3 * (2 / 20 * x.T @ x) @ g / g.norm()
    torch.testing.assert_close(found.gradient, expected, **oracles.ROUNDING)
    assert found.passes == 2.0


def wrapped(kind):
    """An objective, and the oracle of its value."""
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=2))
    if kind == "risk":
        return risk, oracles.Penalised(module, cross_entropy, data, 3)
    exact = GradientPenalty(risk, 2.0, lr=0.8, method="exact")
    return exact, oracles.Penalised(module, cross_entropy, data, 3, lr=0.8, strength=2.0)


@pytest.mark.parametrize("kind", ["risk", "penalty"])
def test_the_gradient_is_that_of_the_wrapped_value_ahead(kind):
    objective, oracle = wrapped(kind)
    theta = objective.space.theta.clone()
    plain, found = objective.evaluate(), SharpnessAware(objective, 0.1).evaluate()
    g = oracle.gradient(theta)
    torch.testing.assert_close(found.gradient, oracle.gradient(theta + 0.1 * g / g.norm()), rtol=1e-9, atol=1e-10)
    assert (found.loss, found.penalty, found.hits, found.count) == (plain.loss, plain.penalty, plain.hits, plain.count)
    assert torch.equal(found.block_square_norms, plain.block_square_norms)
    assert found.passes == 2 * plain.passes
    assert torch.equal(objective.space.theta, theta)


def test_statistics_are_those_of_theta():
    module, data = problems.normed(), problems.points()
    twin, before = copy.deepcopy(module), problems.state(module)
    plain = EmpiricalRisk(twin, cross_entropy, data, block=3)
    plain.accept(plain.evaluate())
    sharp = SharpnessAware(EmpiricalRisk(module, cross_entropy, data, block=3), 0.5)
    found = sharp.evaluate()
    assert problems.same_bits(problems.state(module), before)
    sharp.accept(found)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(module.buffers(), twin.buffers(), strict=True))


def test_hessian_products_are_those_of_the_value():
    objective, oracle = wrapped("penalty")
    V = problems.targets(2, len(objective.space), seed=9)
    expected = V @ oracle.hessian(objective.space.theta.clone())
    torch.testing.assert_close(SharpnessAware(objective, 0.1).hvp(V), expected, rtol=1e-9, atol=1e-10)


def test_it_is_not_exact_and_a_line_search_says_so():
    objective, _ = wrapped("penalty")
    sharp = SharpnessAware(objective, 0.1)
    assert objective.exact
    assert not sharp.exact
    with pytest.raises(ValueError, match=r"gradient is not exact.*no sam"):
        take_step(torch.optim.LBFGS(objective.risk.module.parameters(), line_search_fn="strong_wolfe"), sharp)


def test_where_there_is_no_direction_there_is_one_sweep():
    module = problems.fill(nn.Linear(2, 1, bias=False))
    nn.init.zeros_(module.weight)
    data = [torch.ones(4, 2).double(), torch.zeros(4, 1).double()]
    found = SharpnessAware(EmpiricalRisk(module, squared_error, data), 0.1).evaluate()
    assert (found.passes, found.gradient.tolist()) == (1.0, [0.0, 0.0])
    infinite = EmpiricalRisk(problems.perceptron(), lambda o, y: cross_entropy(o, y) / 0.0, problems.points())
    step = take_step(torch.optim.SGD(infinite.module.parameters(), lr=0.1), SharpnessAware(infinite, 0.1))
    assert not step.finite


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_the_radius_must_be_positive(rho):
    with pytest.raises(ValueError, match=f"rho of sharpness-aware minimisation must be a positive number, not {rho}"):
        SharpnessAware(wrapped("risk")[0], rho)


class Counting:
    """Examples in float32 that count how many are asked for."""

    def __init__(self):
        self.x, self.y = problems.targets(40, 5, seed=3).float(), torch.arange(40) % 3
        self.taken = 0

    def __len__(self):
        return 40

    def take(self, index):
        self.taken += index.numel()
        return self.x[index], self.y[index]


def snapshotted(place, stop=lambda taken: False):
    torch.manual_seed(1)
    examples, module = Counting(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    space, alone = parameter_space(module), Alone(lambda: stop(examples.taken))
    workers = Snapshots(alone, place, 0.0, lambda: digest({"theta": space.theta}))
    workers.begin(0)
    risk = EmpiricalRisk(module, cross_entropy, examples, block=4, execution=Execution(workers))
    return SharpnessAware(risk, 0.5), examples


class KilledError(Exception):
    """Stands for a kill: nothing is written on the way out."""


@pytest.mark.parametrize("after", [3, 10, 11, 14, 19])
@pytest.mark.parametrize("killed", [False, True])
def test_a_step_broken_in_either_sweep_goes_on_where_it_was(tmp_path, after, killed):
    whole, _ = snapshotted(tmp_path / "whole")
    expected = whole.evaluate()

    def stop(taken):
        if killed and taken == 4 * after:
            raise KilledError
        return taken >= 4 * after

    broken, examples = snapshotted(tmp_path / "broken", stop)
    before = broken.space.theta.clone()
    with pytest.raises(KilledError if killed else SweepStoppedError):
        broken.evaluate()
    assert examples.taken == 4 * after
    assert torch.equal(broken.space.theta, before)  # what would be saved now has no trace of the step ahead
    again, examples = snapshotted(tmp_path / "broken")
    found = again.evaluate()
    assert examples.taken <= 80 - 4 * (after - 1)  # a kill loses the chunk whose snapshot was not written yet
    assert torch.equal(found.gradient, expected.gradient)
    assert (found.loss, found.hits) == (expected.loss, expected.hits)
    assert torch.equal(found.statistics, expected.statistics)
    assert torch.equal(again.space.theta, before)


def test_a_run_stopped_before_any_chunk_of_either_sweep_resumes_to_the_same_bits(tmp_path):
    data = npz(tmp_path / "tiny.npz")
    recipe = small_recipe(data, "fb-practice", steps=2, sam=0.05, block=24)

    def run(path, chunks):
        asked = count()
        made = build(Config(recipe, Settings(threads=1, chunk=1)), Alone(lambda: next(asked) >= chunks), path)
        directory = RunDirectory(path)
        with directory.created(made.config, environment(made.config, made.data_sha256, ["test"])):
            try:
                train(made, directory, Progress())
            except Interrupted:
                return directory, True
        return directory, False

    whole = record(run(tmp_path / "whole", 10**9)[0])
    assert whole[1][-1]["passes"] == 2 * 2 * 2  # steps, sweeps, gradients of the penalty
    for chunks in count():
        directory, stopped = run(tmp_path / f"after-{chunks}", chunks)
        if not stopped:
            break
        resume(directory)
        assert record(directory) == whole, f"stopped after {chunks} chunks"
    assert chunks >= 2 * 2 * 2  # blocks, sweeps, steps
