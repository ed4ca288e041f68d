"""Line searches in steps and checkpoints: their state, objectives and optimizers, and a search that a user writes."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import oracles
import problems
import pytest
import torch
from quadratic import CLOSE, N, Problem

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
    with pytest.raises(ValueError, match=r"\(non-monotone\).*forward differences: use --penalty-method exact"):
        take_step(search, GradientPenalty(risk, 0.5, lr=0.1))
    with pytest.raises(ValueError, match=r"clip_norm\(1, l2\) changes the gradient: leave out --clip, or"):
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
