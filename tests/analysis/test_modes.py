"""All analyses use the module's mode for batch norm and dropout, unless their argument names another."""

from __future__ import annotations

import copy

import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, cross_entropy
from noiseless.analysis import (
    Hessian,
    LossSurface,
    average_flatness,
    density,
    gradient_noise,
    gradient_noise_scale,
    loss_landscape,
    module_mode,
    random_direction,
    top_eigenvalues,
    trace,
)
from noiseless.errors import UnknownNameError


def _risk(module):
    return EmpiricalRisk(module, cross_entropy, problems.points(), block=3)


def _module():
    """A module with batch norm and dropout, which both change the loss with the mode."""
    return problems.fill(nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)))


def _frozen():
    """In training mode with its batch norm in evaluation mode, as fine-tuning has it."""
    module = _module().train()
    module[1].eval()
    return module


MODULES = {"train": lambda: _module().train(), "eval": lambda: _module().eval(), "frozen": _frozen}


@pytest.mark.parametrize("batch_norm", [None, "block", "running"])
@pytest.mark.parametrize("mode", list(MODULES))
def test_all_analyses_at_a_point_are_of_the_same_function(mode, batch_norm):
    module = MODULES[mode]()
    twin = copy.deepcopy(module)
    if batch_norm is not None:
        twin.train(batch_norm == "block")
    modes, before = [part.training for part in module.modules()], problems.state(module)
    risk, expected = _risk(module), _risk(twin)
    here, size = expected.evaluate(), len(expected.space)
    V = torch.eye(size, dtype=torch.float64)

    direction = random_direction(risk.space, 0)
    assert LossSurface(risk, direction[None], batch_norm).at(0.0).loss == here.loss
    line = loss_landscape(risk, direction[None], [-0.5, 0.0], batch_norm=batch_norm)
    assert line.loss[1].item() == here.loss
    flatness = average_flatness(risk, 0.3, batch_norm=batch_norm, most=4, tolerance=0.0)
    losses = [LossSurface(expected, random_direction(expected.space, 0, k)[None]).at(0.3).loss for k in range(4)]
    assert flatness.increases == [value - here.loss for value in losses]
    noise = gradient_noise(risk, batch_norm=batch_norm)
    torch.testing.assert_close(noise.gradient, here.gradient, rtol=1e-14, atol=0)
    torch.testing.assert_close(noise.block_norms, here.block_square_norms.sqrt(), rtol=1e-14, atol=0)
    assert gradient_noise_scale(risk, batch_norm=batch_norm) == gradient_noise(expected).total.noise_scale
    hessian = Hessian(risk, batch_norm)
    assert torch.equal(hessian.product(V), expected.hvp(V))
    few = (lambda a: top_eigenvalues(a, most=9).largest.values, lambda a: density(a, 1, 5).nodes, lambda a: trace(a, 6))
    for question in few:
        assert _same(question(hessian), question(Hessian(expected)))

    assert [part.training for part in module.modules()] == modes
    assert problems.same_bits(before, problems.state(module))


def _same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_the_modes_are_different_functions():
    losses = {mode: _risk(make()).evaluate().loss for mode, make in MODULES.items()}
    assert min(abs(losses[a] - losses[b]) for a, b in (("train", "eval"), ("train", "frozen"))) > 1e-2
    assert losses["eval"] != losses["frozen"]  # only by dropout


def test_the_modes_are_restored_after_an_error():
    module = _frozen()
    modes = [part.training for part in module.modules()]
    with pytest.raises(ArithmeticError), module_mode(module, "running"):
        assert not any(part.training for part in module.modules())
        raise ArithmeticError
    assert [part.training for part in module.modules()] == modes
    with pytest.raises(UnknownNameError, match="unknown batch-norm mode 'train'"), module_mode(module, "train"):  # type: ignore[arg-type]
        pass
