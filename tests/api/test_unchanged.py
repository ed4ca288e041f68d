"""An analysis leaves the module as it was: bits, memory, modes, gradients; also after an error or Ctrl-C."""

from __future__ import annotations

import pytest
import torch
from problems import images
from short_analyses import LOSS, RESULTS
from torch import nn

import noiseless
from noiseless import EmpiricalRisk
from noiseless.models import build
from noiseless.objective import parameter_space


def network():
    """Convolutions in channels-last memory, batch norm in both modes, dropout, a frozen parameter, gradients."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3),
    )  # fmt: skip
    module = module.double().to(memory_format=torch.channels_last)
    module[4].eval()
    module[3].bias.requires_grad_(False)
    x, y = images()
    LOSS(module(x), y).backward()
    return module


def picture(module):
    """All that a caller can see of a module: values, memory, layout, modes and gradients."""
    tensors = {name: (t.data_ptr(), t.stride(), t.device, t.clone()) for name, t in module.state_dict().items()}
    gradients = {name: None if p.grad is None else (p.grad.data_ptr(), p.grad.clone())
                 for name, p in module.named_parameters()}  # fmt: skip
    flags = [(p.requires_grad, p.is_leaf) for p in module.parameters()]
    parameters = [id(p) for p in module.parameters()]
    return tensors, gradients, flags, parameters, [part.training for part in module.modules()]


def assert_same(before, after):
    for name, (address, stride, device, values) in before[0].items():
        assert after[0][name][:3] == (address, stride, device), name
        assert torch.equal(after[0][name][3], values), name
    for name, gradient in before[1].items():
        assert (after[1][name] is None) == (gradient is None), name
        if gradient is not None:
            assert after[1][name][0] == gradient[0]
            assert torch.equal(after[1][name][1], gradient[1])
    assert before[2:] == after[2:]


@pytest.mark.parametrize("batch_norm", [None, "block"])
@pytest.mark.parametrize("name", RESULTS)
def test_an_analysis_changes_nothing(name, batch_norm):
    module = network()
    before, drawn = picture(module), torch.get_rng_state()
    RESULTS[name](module, images(), batch_norm=batch_norm)
    assert_same(before, picture(module))
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["loss_landscape", "sharpness"])
def test_an_analysis_that_is_stopped_changes_nothing(name, error):
    module, calls = network(), 0
    before = picture(module)

    def loss(output, target):
        nonlocal calls
        calls += 1
        if calls > 12:
            raise error("stop")
        return nn.functional.cross_entropy(output, target, reduction="none")

    with pytest.raises(error, match="stop"):
        getattr(noiseless, name)(module, loss, images(), block=3)
    assert calls > 12
    assert_same(before, picture(module))


def test_an_objective_that_exists_goes_on_with_the_same_memory():
    module, data = network(), images()
    risk = EmpiricalRisk(module, LOSS, data)
    theta, value = risk.space.theta, risk.evaluate().loss
    noiseless.sharpness(module, LOSS, data)
    assert risk.space.theta.data_ptr() == theta.data_ptr()
    assert parameter_space(module) is risk.space
    assert risk.evaluate().loss == value
    with torch.no_grad():
        theta.zero_()
    assert not module[0].weight.any()


def test_a_residual_network_gives_finite_results_and_stays():
    module = build("resnet8", 3, 10, size=(8, 8)).eval()
    rng = torch.Generator().manual_seed(0)
    data = torch.rand(12, 3, 8, 8, generator=rng), torch.arange(12) % 10
    before = picture(module)
    result = noiseless.sharpness(module, LOSS, data, block=6, most=4)
    assert result.value > 0
    assert len(result.eigenvectors[0]) == sum(p.numel() for p in module.parameters())
    assert_same(before, picture(module))
