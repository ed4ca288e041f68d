"""Line searches around optimizers: exact steps on a quadratic, naive versions, fallbacks, failures."""

from __future__ import annotations

import copy

import pytest
import torch
from quadratic import CLOSE, N, Problem


def test_wolfe_around_gradient_descent_is_steepest_descent():
    # c2 = 1e-9 leaves the exact minimum along -g: x <- x - (g.g / g.A g) g
    problem = Problem("SGD", "wolfe", {"c1": 1e-10, "c2": 1e-9}, lr=0.1)
    x = problem.x0
    for _ in range(10):
        problem.step()
        g = problem.g(x)
        x = x - (g @ g) / (g @ problem.A @ g) * g
        torch.testing.assert_close(problem.x, x, rtol=1e-7, atol=1e-8)  # ten times c2 * size, times the condition


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_armijo_equals_its_naive_version(decay):
    problem = Problem("SGD", "armijo", {"c1": 0.3}, lr=1.0, momentum=0.5, weight_decay=decay)
    x, v, trials = problem.x0, torch.zeros(N).double(), []

    def F(x):
        return problem.f(x) + decay / 2 * x @ x

    for _ in range(10):
        g = problem.g(x) + decay * x
        v = 0.5 * v + g
        size, trial_count = 1.0, 1
        assert g @ v > 0
        while F(x - size * v) > F(x) - 0.3 * size * (g @ v):
            size, trial_count = size / 2, trial_count + 1
        x = x - size * v
        trials.append(trial_count)
        problem.step()
        assert problem.optimizer.last.trials == trial_count
        assert problem.optimizer.last.size == size
        torch.testing.assert_close(problem.x, x, **CLOSE)
    assert len(set(trials)) > 1  # the search had something to do
    assert problem.evaluations == 10 + sum(trials)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 1.0}), ("SGD", {"lr": 0.3, "momentum": 0.9, "nesterov": True}), ("Adam", {"lr": 1.0}),
        ("RMSprop", {"lr": 0.5}), ("DampedLBFGS", {"lr": 1.0}), ("FISTA", {"lr": 0.5}), ("Adagrad", {"lr": 1.0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["armijo", "wolfe", "non-monotone", "restarting"])
def test_the_minimum_is_that_of_the_function_with_the_decay(name, settings, kind):
    # f + (0.1 / 2) ||x||**2 is lowest at (A + 0.1 I)**-1 b. How near a method comes depends on it: this tests that the
    # compared value falls to within 1e-3 of the least, from 25 above it at the start
    search = {"memory": 2} if kind in ("non-monotone", "restarting") else {}
    problem = Problem(name, kind, search, weight_decay=0.1, **settings)
    lowest = torch.linalg.solve(problem.A + 0.1 * torch.eye(N).double(), problem.b)

    def excess(x):
        return float(problem.f(x) + 0.05 * x @ x - problem.f(lowest) - 0.05 * lowest @ lowest)

    assert excess(problem.x0) > 5
    for _ in range(150):
        problem.step()
    assert excess(problem.x) < 1e-3


def test_non_monotone_equals_its_naive_version():
    problem = Problem("SGD", "non-monotone", {"memory": 3, "c1": 0.1}, lr=0.25, momentum=0.8)
    x, v, values, rose = problem.x0, torch.zeros(N).double(), [], 0
    for _ in range(20):
        g, values = problem.g(x), [*values, problem.f(x)][-3:]
        v = 0.8 * v + g
        if g @ v > 0:
            d = v
        else:
            d, v = 0.25 * 4 * g, torch.zeros(N).double()
        size = 0.25
        while problem.f(x - size * d) > max(values) - 0.1 * size * (g @ d):
            size /= 2
        rose += bool(problem.f(x - size * d) > problem.f(x))
        x = x - size * d
        problem.step()
        torch.testing.assert_close(problem.x, x, **CLOSE)
    assert rose > 0  # otherwise Armijo's steps would be the same
    assert problem.optimizer.counts["fallbacks"] > 0


def test_restarting_equals_its_naive_version():
    problem = Problem("SGD", "restarting", {"memory": 2}, lr=0.15, momentum=0.95)
    x, v, values, restarts = problem.x0, torch.zeros(N).double(), [], 0
    for _ in range(40):
        g, values = problem.g(x), [*values, problem.f(x)][-2:]
        v = 0.95 * v + g
        after = x - 0.15 * v
        if g @ v <= 0:
            after, v = x - 0.15 * g, torch.zeros(N).double()
        elif problem.f(after) > max(values):
            after, v, restarts = x - 0.15 * g, torch.zeros(N).double(), restarts + 1
            # 0.15 < 2 / 10, so that the gradient's step is low enough at once
            assert problem.f(after) <= max(values) - 1e-4 * 0.15 * g @ g
        x = after
        problem.step()
        torch.testing.assert_close(problem.x, x, **CLOSE)
    assert restarts > 0
    assert problem.optimizer.counts["restarts"] == restarts


def test_a_direction_that_goes_up_is_replaced_by_the_negative_gradient():
    problem = Problem("SGD", "armijo", lr=0.01, momentum=0.9)
    g = problem.g(problem.x0)
    for p, part in zip(problem.parts, g.split([2, 3]), strict=True):
        problem.optimizer.state[p]["momentum_buffer"] = -10 * part.view_as(p)  # 0.9 * -10 g + g = -8 g goes up
    problem.step()
    torch.testing.assert_close(problem.x, problem.x0 - 0.01 * g, **CLOSE)
    assert problem.optimizer.last.fallback
    assert problem.optimizer.counts == {"fallbacks": 1, "restarts": 0, "failures": 0}
    before = problem.x
    problem.step()  # the memory is cleared: a first step again
    torch.testing.assert_close(problem.x, before - 0.01 * problem.g(before), **CLOSE)
    assert not problem.optimizer.last.fallback


@pytest.mark.parametrize("kind", ["armijo", "wolfe", "non-monotone", "restarting"])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "DampedLBFGS"])
def test_a_search_that_fails_moves_nothing(kind, name):
    problem = Problem(name, kind, {"trials": 4}, lr=0.1)
    fresh = copy.deepcopy(problem.optimizer.state_dict()["base"])
    values = iter(range(1000))
    original = problem.closure
    problem.closure = lambda: original() * 0 + next(values)  # each value is higher than the ones before
    problem.step()
    assert torch.equal(problem.x, problem.x0)
    # restarting tries the optimizer's own step first
    assert problem.optimizer.last.trials == (5 if kind == "restarting" else 4)
    assert problem.optimizer.counts["failures"] == 1
    assert str(problem.optimizer.state_dict()["base"]) == str(fresh)  # the memory is cleared
    problem.closure = original
    problem.step()
    assert problem.f(problem.x) < problem.f(problem.x0)


def test_a_rate_of_zero_moves_nothing_and_tries_nothing():
    problem = Problem("SGD", "wolfe", lr=0.1, momentum=0.9)
    problem.optimizer.param_groups[0]["lr"] = 0.0
    problem.step()
    assert torch.equal(problem.x, problem.x0)
    assert (problem.evaluations, problem.optimizer.last.trials) == (1, 0)
    assert sum(problem.optimizer.counts.values()) == 0
    problem.optimizer.param_groups[0]["lr"] = 0.1
    problem.step()
    assert problem.f(problem.x) < problem.f(problem.x0)


def test_a_remembered_size_saves_trials():
    counts = []
    for remember in (False, True):
        problem = Problem("SGD", "armijo", {"remember": remember}, lr=100.0)
        for _ in range(10):
            problem.step()
        counts.append(problem.evaluations)
        assert problem.f(problem.x) < problem.f(problem.x0)
    assert counts[1] < counts[0] - 30
