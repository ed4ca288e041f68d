"""The parameter space: parts that share memory with theta, and later changes of the module."""

from __future__ import annotations

import gc

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, cross_entropy, parameter_space


def _is_view(part: torch.Tensor, vector: torch.Tensor) -> bool:
    start = vector.data_ptr()
    return start <= part.data_ptr() < start + vector.numel() * vector.element_size()


def test_parameters_and_gradients_are_views():
    module = problems.perceptron()
    before = oracles.theta(module)
    space = parameter_space(module)
    theta = space.theta
    assert torch.equal(theta, before)
    assert all(one is other for one, other in zip(space.parameters, module.parameters(), strict=True))
    assert all(_is_view(p.data, theta) for p in module.parameters())
    space.set_gradient(torch.arange(31.0).double())
    gradients = [p.grad for p in module.parameters()]
    ends = [g.data_ptr() + g.numel() * g.element_size() for g in gradients]
    assert ends[:-1] == [g.data_ptr() for g in gradients[1:]]  # parts of one vector, one after the other
    assert torch.equal(oracles.flat(gradients), torch.arange(31.0).double())
    theta.mul_(2)
    assert torch.equal(oracles.theta(module), 2 * before)
    module[0].bias.data.fill_(7.0)
    assert torch.equal(space.theta[12:16], torch.full((4,), 7.0).double())
    assert space.theta is theta


def test_the_gradient_is_written_into_the_same_memory():
    module = problems.perceptron()
    space = parameter_space(module)
    space.set_gradient(torch.zeros(31))
    first = module[0].weight.grad
    module.zero_grad(set_to_none=True)
    space.set_gradient(torch.ones(31))
    assert torch.equal(first, torch.ones(4, 3).double())
    assert module[0].weight.grad.data_ptr() == first.data_ptr()


def test_split_gives_named_views():
    space = parameter_space(problems.perceptron())
    vector = torch.arange(31.0)
    parts = space.split(vector)
    assert {name: list(part.shape) for name, part in parts.items()} == {
        "0.weight": [4, 3], "0.bias": [4], "2.weight": [3, 4], "2.bias": [3],
    }  # fmt: skip
    assert torch.equal(oracles.flat(list(parts.values())), vector)
    assert all(_is_view(part, vector) for part in parts.values())
    assert space.split(torch.zeros(2, 5, 31))["0.weight"].shape == (2, 5, 4, 3)
    assert (len(space), space.sizes, space.names) == (31, [12, 4, 12, 3], list(parts))


@pytest.mark.parametrize("size", [0, 30, 32])
def test_split_refuses_another_length(size):
    with pytest.raises(ValueError, match=f"has 31 elements, not {size}"):
        parameter_space(problems.perceptron()).split(torch.zeros(size))


def test_follows_the_module_to_another_dtype():
    module = problems.perceptron()
    space = parameter_space(module)
    space.set_gradient(torch.ones(31))
    before = space.theta.clone()
    module.to(torch.float32)
    assert space.theta.dtype == torch.float32
    assert torch.equal(space.theta, before.float())
    assert all(_is_view(p.data, space.theta) for p in module.parameters())
    space.set_gradient(torch.full((31,), 2.0))
    assert torch.equal(module[2].bias.grad, torch.full((3,), 2.0))
    assert parameter_space(module) is space


def test_a_risk_follows_the_module_to_another_dtype():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, tuple(t.float() if t.ndim > 1 else t for t in problems.points()))
    module.float()
    evaluation = risk.evaluate()
    assert evaluation.gradient.dtype == torch.float32
    # float32 rounding, 6e-8, of some ten operations
    assert evaluation.loss == pytest.approx(oracles.one_batch(module, cross_entropy, risk.data)[0], rel=1e-6)


def test_load_state_dict_moves_theta():
    module, other = problems.perceptron(), problems.fill(problems.perceptron(), seed=8)
    space = parameter_space(module)
    theta = space.theta
    module.load_state_dict(other.state_dict())
    assert space.theta is theta
    assert torch.equal(theta, oracles.theta(other))


def test_load_state_dict_by_assignment_needs_a_new_objective():
    module, other = problems.perceptron(), problems.fill(problems.perceptron(), seed=8)
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    module.load_state_dict({name: t.clone() for name, t in other.state_dict().items()}, assign=True)
    expected = oracles.one_batch(module, cross_entropy, problems.points())[0]
    fresh = EmpiricalRisk(module, cross_entropy, problems.points())
    assert fresh.evaluate().loss == pytest.approx(expected, rel=1e-12)
    # the module no longer has the parameters of the earlier risk
    with pytest.raises(ValueError, match="trainable parameters have been replaced: make a new objective for it"):
        risk.evaluate()


def test_a_change_of_what_is_trained_gives_a_new_space():
    module = problems.perceptron()
    space = parameter_space(module)
    assert parameter_space(module) is space
    module[0].requires_grad_(False)
    assert parameter_space(module).names == ["2.weight", "2.bias"]


def test_an_empty_parameter_is_allowed():
    module = problems.perceptron()
    module.register_parameter("none", nn.Parameter(torch.zeros(0, dtype=torch.float64)))
    space = parameter_space(module)
    assert space.theta is space.theta
    space.theta.zero_()
    assert not oracles.theta(module).any()


def test_a_model_and_a_part_of_it_may_both_have_a_space():
    module = problems.perceptron()
    model_space, part_space = parameter_space(module), parameter_space(module[0])
    part_space.theta.fill_(3.0)
    assert torch.equal(model_space.theta[:16], torch.full((16,), 3.0).double())
    model_space.theta.fill_(4.0)
    assert torch.equal(part_space.theta, torch.full((16,), 4.0).double())


def test_mixed_dtypes_are_refused():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match=r"one dtype and one device, found torch.float32 on cpu, torch.float64 on cpu"):
        parameter_space(module)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)])
def test_nothing_to_train_is_refused(module):
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_space(module)


def test_a_space_does_not_keep_its_module_alive():
    import weakref

    module = problems.perceptron()
    EmpiricalRisk(module, cross_entropy, problems.points()).evaluate()
    dead = weakref.ref(module)
    del module
    gc.collect()
    assert dead() is None
