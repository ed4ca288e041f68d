"""Sharpness-aware minimisation: its formula, the objectives that it wraps, and steps that are stopped and resumed."""

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
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.files.snapshot import Snapshots
from noiseless.objective import SharpnessAware
from noiseless.objective.workers import Alone, SweepStoppedError
from noiseless.recipes.config import Config, Settings
from noiseless.run.build import build
from noiseless.run.train import Interrupted, Progress, train


def test_on_a_quadratic_the_gradient_equals_the_formula():
    # L = mean (w x - y)**2 has the Hessian H = 2 mean x x^T: at w + rho g / |g| its gradient is g + rho H g / |g|
    x, y = problems.targets(20, 3, seed=5), problems.targets(20, 1, seed=6)
    module = problems.fill(nn.Linear(3, 1, bias=False))
    risk = EmpiricalRisk(module, squared_error, [x, y], block=6)
    evaluation = SharpnessAware(risk, 0.3).evaluate()
    g = 2 / 20 * x.T @ (x @ module.weight.detach().flatten() - y.flatten())
    expected = g + 0.3 * (2 / 20 * x.T @ x) @ g / g.norm()
    torch.testing.assert_close(evaluation.gradient, expected, **oracles.ROUNDING)
    assert evaluation.passes == 2.0


def objective_and_oracle(kind):
    """An objective, and the oracle of its value."""
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=2))
    if kind == "risk":
        return risk, oracles.Penalised(module, cross_entropy, data, 3)
    exact = GradientPenalty(risk, 2.0, lr=0.8, method="exact")
    return exact, oracles.Penalised(module, cross_entropy, data, 3, lr=0.8, strength=2.0)


@pytest.mark.parametrize("kind", ["risk", "penalty"])
def test_the_gradient_is_that_of_the_wrapped_objective_at_the_point_ahead(kind):
    objective, oracle = objective_and_oracle(kind)
    theta = objective.space.theta.clone()
    plain, evaluation = objective.evaluate(), SharpnessAware(objective, 0.1).evaluate()
    g = oracle.gradient(theta)
    torch.testing.assert_close(evaluation.gradient, oracle.gradient(theta + 0.1 * g / g.norm()), rtol=1e-9, atol=1e-10)
    assert (evaluation.loss, evaluation.penalty, evaluation.hits, evaluation.count) == (
        plain.loss, plain.penalty, plain.hits, plain.count,
    )  # fmt: skip
    assert torch.equal(evaluation.block_square_norms, plain.block_square_norms)
    assert evaluation.passes == 2 * plain.passes
    assert torch.equal(objective.space.theta, theta)


def test_statistics_are_those_at_theta():
    module, data = problems.with_batch_norm(), problems.points()
    twin, before = copy.deepcopy(module), problems.state(module)
    plain = EmpiricalRisk(twin, cross_entropy, data, block=3)
    plain.accept(plain.evaluate())
    sharp = SharpnessAware(EmpiricalRisk(module, cross_entropy, data, block=3), 0.5)
    evaluation = sharp.evaluate()
    assert problems.same_bits(problems.state(module), before)
    sharp.accept(evaluation)
    assert all(torch.equal(actual, expected) for actual, expected in zip(module.buffers(), twin.buffers(), strict=True))


def test_hessian_products_are_those_of_the_wrapped_objective():
    objective, oracle = objective_and_oracle("penalty")
    V = problems.targets(2, len(objective.space), seed=9)
    expected = V @ oracle.hessian(objective.space.theta.clone())
    torch.testing.assert_close(SharpnessAware(objective, 0.1).hvp(V), expected, rtol=1e-9, atol=1e-10)


def test_it_is_not_exact_and_refused_by_a_line_search():
    objective, _ = objective_and_oracle("penalty")
    sharp = SharpnessAware(objective, 0.1)
    assert objective.exact
    assert not sharp.exact
    with pytest.raises(
        ValueError, match=r"the gradient of sharpness-aware .* belongs to another point: leave out --sam"
    ):
        take_step(torch.optim.LBFGS(objective.risk.module.parameters(), line_search_fn="strong_wolfe"), sharp)


def test_without_a_direction_there_is_one_sweep():
    module = problems.fill(nn.Linear(2, 1, bias=False))
    nn.init.zeros_(module.weight)
    data = [torch.ones(4, 2).double(), torch.zeros(4, 1).double()]
    evaluation = SharpnessAware(EmpiricalRisk(module, squared_error, data), 0.1).evaluate()
    assert (evaluation.passes, evaluation.gradient.tolist()) == (1.0, [0.0, 0.0])
    infinite = EmpiricalRisk(problems.perceptron(), lambda o, y: cross_entropy(o, y) / 0.0, problems.points())
    step = take_step(torch.optim.SGD(infinite.module.parameters(), lr=0.1), SharpnessAware(infinite, 0.1))
    assert not step.finite


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_the_radius_must_be_positive(rho):
    with pytest.raises(ValueError, match=f"rho of sharpness-aware minimisation must be a positive number, not {rho}"):
        SharpnessAware(objective_and_oracle("risk")[0], rho)


class Counting:
    """Float32 examples that count how many have been requested."""

    def __init__(self):
        self.x, self.y = problems.targets(40, 5, seed=3).float(), torch.arange(40) % 3
        self.requested = 0

    def __len__(self):
        return 40

    def take(self, index):
        self.requested += index.numel()
        return self.x[index], self.y[index]


def with_snapshots(path, stop=lambda requested: False):
    torch.manual_seed(1)
    examples, module = Counting(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    space, alone = parameter_space(module), Alone(lambda: stop(examples.requested))
    workers = Snapshots(alone, path, 0.0, lambda: digest({"theta": space.theta}))
    workers.begin(0)
    execution = Execution(workers, check=False)  # which asks for examples as well
    risk = EmpiricalRisk(module, cross_entropy, examples, block=4, execution=execution)
    return SharpnessAware(risk, 0.5), examples


class KilledError(Exception):
    """Stands for a kill: nothing more is written."""


@pytest.mark.parametrize("after", [3, 10, 11, 14, 19])
@pytest.mark.parametrize("killed", [False, True])
def test_a_step_stopped_in_either_sweep_resumes_to_the_same_bits(tmp_path, after, killed):
    unbroken, _ = with_snapshots(tmp_path / "whole")
    expected = unbroken.evaluate()

    def stop(requested):
        if killed and requested == 4 * after:
            raise KilledError
        return requested >= 4 * after

    broken, examples = with_snapshots(tmp_path / "broken", stop)
    before = broken.space.theta.clone()
    with pytest.raises(KilledError if killed else SweepStoppedError):
        broken.evaluate()
    assert examples.requested == 4 * after
    assert torch.equal(broken.space.theta, before)  # a checkpoint written now is not at the point ahead
    resumed, examples = with_snapshots(tmp_path / "broken")
    evaluation = resumed.evaluate()
    assert examples.requested <= 80 - 4 * (after - 1)  # a kill loses the chunk whose snapshot was not written yet
    assert torch.equal(evaluation.gradient, expected.gradient)
    assert (evaluation.loss, evaluation.hits) == (expected.loss, expected.hits)
    assert torch.equal(evaluation.statistics, expected.statistics)
    assert torch.equal(resumed.space.theta, before)


def test_a_run_stopped_before_any_chunk_of_either_sweep_resumes_to_the_same_bits(tmp_path):
    data = npz(tmp_path / "tiny.npz")
    recipe = small_recipe(data, "fb-practice", steps=2, sam=0.05, block=24)

    def run(path, chunks):
        calls = count()
        experiment = build(Config(recipe, Settings(threads=1, chunk=1)), Alone(lambda: next(calls) >= chunks), path)
        directory = RunDirectory(path)
        with directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, ["test"])):
            try:
                train(experiment, directory, Progress())
            except Interrupted:
                return directory, True
        return directory, False

    uninterrupted = record(run(tmp_path / "whole", 10**9)[0])
    assert uninterrupted[1][-1]["passes"] == 2 * 2 * 2  # steps, sweeps, gradients of the penalty
    for chunks in count():
        directory, stopped = run(tmp_path / f"after-{chunks}", chunks)
        if not stopped:
            break
        resume(directory)
        assert record(directory) == uninterrupted, f"stopped after {chunks} chunks"
    assert chunks >= 2 * 2 * 2  # blocks, sweeps, steps
