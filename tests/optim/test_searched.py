"""Line searches around optimizers: exact steps on a quadratic, naive versions, consistent values, failures."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import oracles
import problems
import pytest
import torch
from torch import Tensor, nn

from noiseless import EmpiricalRisk, cross_entropy, take_step
from noiseless.files import checkpoint
from noiseless.objective import GradientPenalty
from noiseless.optim import (
    LINE_SEARCHES,
    ArmijoSearch,
    DampedLBFGS,
    LinePoint,
    Muon,
    NonMonotoneSearch,
    Searched,
    SearchStep,
    StrongWolfeSearch,
    clip_norm,
    line_search,
    make_line_search,
    make_optimizer,
    optimizer_arguments,
    optimizer_names,
    refuse_line_search,
)

N = 5
# Ten steps of some twenty operations each, on numbers of size 1, with a condition number of 40
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def quadratic() -> tuple[Tensor, Tensor, Tensor]:
    """A `[5, 5]` with eigenvalues 1/4 ... 10 and b, of `f = x.A x / 2 - b.x`, and the start."""
    rng = problems.generator(8)
    q, _ = torch.linalg.qr(torch.randn(N, N, generator=rng, dtype=torch.float64))
    b, x = torch.randn(2, N, generator=rng, dtype=torch.float64)
    return q @ torch.diag(torch.logspace(-0.6, 1, N, dtype=torch.float64)) @ q.T, b, x


class Problem:
    """The quadratic as a closure over two parameters, `[2]` and `[1, 3]`."""

    def __init__(self, name, kind, search=None, **settings):
        self.A, self.b, self.x0 = quadratic()
        self.parts = [nn.Parameter(self.x0[:2].clone()), nn.Parameter(self.x0[2:].clone().view(1, 3))]
        self.optimizer = make_optimizer(name, self.parts, **settings)
        if kind:
            self.optimizer = Searched(self.optimizer, make_line_search(kind, **(search or {})))
        self.evaluations = 0

    def f(self, x):
        return x @ self.A @ x / 2 - self.b @ x

    def g(self, x):
        return self.A @ x - self.b

    @property
    def x(self):
        return torch.cat([p.detach().flatten() for p in self.parts])

    def closure(self):
        self.evaluations += 1
        g = self.g(self.x)
        for p, part in zip(self.parts, g.split([2, 3]), strict=True):
            p.grad = part.view_as(p).clone()
        return self.f(self.x)

    def step(self):
        return self.optimizer.step(self.closure)


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


NAMES = ("SGD", "Adam", "FISTA", "DampedLBFGS", "Muon", "AdamW")


def problem_of(name, kind):
    settings = {"weight_decay": 0.1 if kind is None or name not in ("Muon", "AdamW") else 0.0}
    return Problem(name, kind, lr=0.3, **settings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["armijo", "wolfe", "non-monotone", "restarting", None])
def test_a_problem_resumed_from_a_checkpoint_gives_the_same_bits(name, kind, tmp_path):
    unbroken, broken = problem_of(name, kind), problem_of(name, kind)
    for step in range(8):
        for group in unbroken.optimizer.param_groups:  # as the loop does; the optimizer inside must see it
            group["lr"] = 0.3 if step < 4 else 0.2
        unbroken.step()
    for _ in range(4):
        broken.step()
    checkpoint.save(tmp_path, 4, {"optimizer": broken.optimizer.state_dict()}, keep=1)
    saved = checkpoint.newest(tmp_path)
    resumed = problem_of(name, kind)
    for p, q in zip(resumed.parts, broken.parts, strict=True):
        p.data.copy_(q.data)
    resumed.optimizer.load_state_dict(saved.state["optimizer"])
    for group in resumed.optimizer.param_groups:
        group["lr"] = 0.2
    for _ in range(4):
        resumed.step()
    assert torch.equal(resumed.x, unbroken.x)
    if kind:
        assert resumed.optimizer.counts == unbroken.optimizer.counts
        assert resumed.optimizer.state_dict()["search"] == unbroken.optimizer.state_dict()["search"]


def test_the_schedule_reaches_the_inner_optimizer_also_after_a_failure():
    problem = Problem("SGD", "armijo", {"trials": 1}, lr=1e6)
    problem.step()
    assert problem.optimizer.counts["failures"] == 1
    for group in problem.optimizer.param_groups:
        group["lr"] = 0.01
    problem.step()
    torch.testing.assert_close(problem.x, problem.x0 - 0.01 * problem.g(problem.x0), **CLOSE)


@pytest.mark.parametrize("kind", ["armijo", "wolfe", "non-monotone", "restarting"])
def test_a_step_counts_its_trials_and_accepts_the_first_statistics(kind):
    module, data = problems.with_batch_norm(), problems.points()
    twin = copy.deepcopy(module)
    reference = EmpiricalRisk(twin, cross_entropy, data, block=3)
    first = reference.evaluate()
    reference.accept(first)
    risk = EmpiricalRisk(module, cross_entropy, data, block=3)
    optimizer = Searched(make_optimizer("SGD", module.parameters(), lr=100.0), make_line_search(kind))
    step = take_step(optimizer, risk)
    assert step.search is optimizer.last
    assert step.passes == 1 + step.search.trials > 2
    assert (step.search.fallback, step.search.failed) == (False, False)
    assert risk.evaluate().value < first.value
    for (key, buffer), expected in zip(module.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(buffer, expected), key


def test_the_search_compares_penalised_values():
    module, data = problems.perceptron(), problems.points()
    penalised = GradientPenalty(EmpiricalRisk(module, cross_entropy, data, block=3), 5.0, lr=1.0, method="exact")
    oracle = oracles.Penalised(module, cross_entropy, data, 3, lr=1.0, strength=5.0)
    before, theta = penalised.evaluate().value, oracles.theta(module)
    optimizer = Searched(make_optimizer("SGD", module.parameters(), lr=1.0), ArmijoSearch())
    take_step(optimizer, penalised)
    g, after = oracle.gradient(theta), oracles.theta(module)
    size = optimizer.last.size
    torch.testing.assert_close(after, theta - size * g, rtol=1e-9, atol=1e-10)
    assert float(oracle(after)) <= before - 1e-4 * size * float(g @ g)


def test_searches_need_an_exact_objective():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    search = Searched(make_optimizer("SGD", module.parameters(), lr=1.0), NonMonotoneSearch())
    with pytest.raises(ValueError, match=r"line search \(non-monotone\).*gradient is not exact.*exact penalty"):
        take_step(search, GradientPenalty(risk, 0.5, lr=0.1))
    with pytest.raises(ValueError, match=r"transforms change the gradient.*no clip, agc"):
        take_step(search, risk, clip_norm(1.0))
    refuse_line_search(search, risk, None)


@pytest.mark.parametrize(("name", "message"), [("AdamW", "AdamW's weight decay"), ("Muon", "Muon's weight decay")])
def test_a_decay_that_is_no_part_of_a_value_is_refused(name, message):
    parameters = list(problems.perceptron().parameters())
    with pytest.raises(ValueError, match=rf"{message} \(0.1\) is not part of them: set its weight decay to 0"):
        Searched(make_optimizer(name, parameters, lr=0.1, weight_decay=0.1), ArmijoSearch())
    Searched(make_optimizer(name, parameters, lr=0.1, weight_decay=0.0), ArmijoSearch())
    with pytest.raises(ValueError, match="NAdam's weight decay"):
        Searched(torch.optim.NAdam(parameters, weight_decay=0.1, decoupled_weight_decay=True), ArmijoSearch())


def test_torchs_lbfgs_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"LBFGS evaluates by itself.*DampedLBFGS.*strong_wolfe"):
        Searched(torch.optim.LBFGS(problems.perceptron().parameters()), ArmijoSearch())


@pytest.mark.parametrize("name", sorted(set(optimizer_names()) - {"LBFGS", "SparseAdam"}))
def test_every_optimizer_lowers_the_value_with_a_search(name):
    settings = {"weight_decay": 0.0} if "weight_decay" in optimizer_arguments(name) else {}
    problem = Problem(name, "armijo", lr=0.3, **settings)
    for _ in range(5):
        before = problem.f(problem.x)
        problem.step()
        assert problem.f(problem.x) < before


def test_the_search_of_the_documentation_is_exact_on_a_quadratic(monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Parabola" in block)
    monkeypatch.setitem(LINE_SEARCHES, "parabola", None)  # restored after the test
    exec(example, {"__name__": __name__})
    problem = Problem("SGD", "parabola", lr=0.1)
    x = problem.x0
    for _ in range(10):
        problem.step()
        g = problem.g(x)
        x = x - (g @ g) / (g @ problem.A @ g) * g
        torch.testing.assert_close(problem.x, x, **CLOSE)
    assert problem.evaluations == 30


class Halving:
    """A search as a user may write it: size `1 / 2**k` at step k, with a restart at step 2, and no evaluation."""

    def init(self):
        return {"step": 0, "steepest": []}

    def step(self, line, state):
        step = state["step"]
        if step == 2 and not line.steepest:
            return SearchStep(line.start, state, restart=True)
        after = {"step": step + 1, "steepest": [*state["steepest"], line.steepest]}
        return SearchStep(LinePoint(0.5**step, 0.0, 0.0), after, restart=line.steepest)  # which has no effect there


def test_a_users_search_runs_and_its_state_is_in_the_checkpoint(tmp_path):
    def new_problem():
        problem = Problem("SGD", None, lr=0.1, momentum=0.5)
        problem.optimizer = Searched(problem.optimizer, Halving())
        return problem

    problem, twin = new_problem(), new_problem()
    assert line_search(problem.optimizer) == "Halving"
    x, v = problem.x0, torch.zeros(N).double()
    for step in range(4):
        g = problem.g(x)
        v = 0.5 * v + g
        if step == 2:
            x, v = x - 0.5**step * 0.1 * g, torch.zeros(N).double()  # along the gradient, and the memory is cleared
        else:
            x = x - 0.5**step * 0.1 * v
        problem.step()
        torch.testing.assert_close(problem.x, x, **CLOSE)
        assert (problem.optimizer.last.size, problem.optimizer.last.restarted) == (0.5**step, step == 2)
        if step == 1:
            checkpoint.save(tmp_path, 2, {"optimizer": problem.optimizer.state_dict()}, keep=1)
            for p, q in zip(twin.parts, problem.parts, strict=True):
                p.data.copy_(q.data)
    assert problem.optimizer.state_dict()["search"] == {"step": 4, "steepest": [False, False, True, False]}
    twin.optimizer.load_state_dict(checkpoint.newest(tmp_path).state["optimizer"])
    twin.step()
    twin.step()
    assert torch.equal(twin.x, problem.x)
    assert str(twin.optimizer.state_dict()) == str(problem.optimizer.state_dict())


def test_a_search_has_the_optimizer_of_the_registry_inside():
    parameters = list(problems.convolution().parameters())
    assert isinstance(Searched(make_optimizer("dampedlbfgs", parameters), StrongWolfeSearch()).base, DampedLBFGS)
    assert isinstance(Searched(make_optimizer("muon", parameters, weight_decay=0.0), StrongWolfeSearch()).base, Muon)
