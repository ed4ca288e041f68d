"""Parts of a vector with a storage each: code that saves, copies or moves a module finds it as without an objective."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from torch import nn

from noiseless import EmpiricalRisk, cross_entropy, parameter_space, take_step
from noiseless.objective.storages import parts_of


class Tied(nn.Module):
    """With a buffer, a frozen parameter, an empty one, and one parameter under two names."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.head.weight = self.body.weight
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.empty = nn.Parameter(torch.zeros(0, 2))
        self.odd = nn.Parameter(torch.randn(()))  # so that what follows is not aligned
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.norm(self.head(self.body(x).tanh()))) * self.odd


def risk(module: nn.Module) -> EmpiricalRisk:
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(12, 8, generator=generator), torch.randint(3, (12,), generator=generator)
    return EmpiricalRisk(module, cross_entropy, data, block=5)


def torch_saved(thing: object) -> bytes:
    written = io.BytesIO()
    torch.save(thing, written)
    return written.getvalue()


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "state_dict": lambda module: torch_saved(module.state_dict()),
    "state_dict of a part": lambda module: torch_saved(module.last.state_dict()),
    "one parameter": lambda module: torch_saved(module.last.bias.detach()),
    "module": torch_saved,
    "deepcopy": lambda module: torch_saved(copy.deepcopy(module)),
    "pickle": pickle.dumps,
    "pickle of a part": lambda module: pickle.dumps(module.last),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_is_as_large_as_before_the_objective(way):
    module, untouched = Tied(), Tied()
    objective = risk(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    sizes = [len(WAYS[way](untouched)), len(WAYS[way](module))]
    for _ in range(2):
        take_step(optimizer, objective)
        module.zero_grad()  # without gradients, as the untouched one
        sizes.append(len(WAYS[way](module)))
    # the archive's alignment of records moves by some bytes with the names of their directories
    assert max(sizes) - min(sizes) < 64, sizes


def test_gradients_and_the_optimizers_state_are_saved_without_the_vector():
    module = Tied()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    take_step(optimizer, risk(module))
    gradient, momentum = module.last.bias.grad, optimizer.state[module.last.bias]["momentum_buffer"]
    alone = len(torch_saved(gradient.clone()))
    assert len(torch_saved(gradient)) == len(torch_saved(momentum)) == alone


@pytest.mark.parametrize("steps", [0, 2])
def test_saved_values_are_the_modules(tmp_path, steps):
    module = Tied()
    objective, optimizer = risk(module), torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(steps):
        take_step(optimizer, objective)
    expected = {name: t.clone() for name, t in module.state_dict().items()}
    safetensors.torch.save_model(module, str(tmp_path / "model.safetensors"))
    others = [Tied(), copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    safetensors.torch.load_model(others[0], str(tmp_path / "model.safetensors"))
    others.append(Tied())
    others[-1].load_state_dict(torch.load(io.BytesIO(torch_saved(module.state_dict())), weights_only=True))
    for _ in range(2):  # the second time after the original has moved
        for other in others:
            assert other.state_dict().keys() == expected.keys()
            assert all(torch.equal(t, expected[name]) for name, t in other.state_dict().items())
        take_step(optimizer, objective)
    assert not torch.equal(module.last.weight, expected["last.weight"])


@pytest.mark.parametrize("change", ["load", "double", "share", "copy back"])
def test_optimizers_made_before_and_after_move_a_module_that_was_changed(change):
    module = Tied()
    before = torch.optim.SGD(module.parameters(), lr=0.5)
    objective = risk(module)
    after = torch.optim.SGD(module.parameters(), lr=0.5)
    take_step(after, objective)
    if change == "load":
        module.load_state_dict(Tied().state_dict())
    elif change == "double":
        module.double()
        objective = EmpiricalRisk(module, cross_entropy, (torch.randn(12, 8).double(), torch.arange(12) % 3))
    elif change == "share":
        module.share_memory()
    else:
        for p in module.parameters():
            p.data = p.data.clone()
    for optimizer in (before, after):
        start, gradient = objective.space.theta.clone(), objective.evaluate().gradient
        take_step(optimizer, objective)
        moved = torch.cat([p.detach().flatten() for p in objective.space.parameters])
        assert torch.equal(moved, objective.space.theta)
        torch.testing.assert_close(moved, start - 0.5 * gradient, rtol=1e-6, atol=1e-7)
        assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_parts_share_memory_and_have_their_own_storages(dtype):
    shapes = [torch.Size(shape) for shape in ([3], [], [2, 0], [2, 2], [1])]
    vector = torch.arange(9).to(dtype)
    parts = parts_of(vector, shapes)
    assert [part.shape for part in parts] == shapes
    assert torch.equal(torch.cat([part.flatten() for part in parts]), vector)
    assert [part.untyped_storage().nbytes() for part in parts] == [dtype.itemsize * n for n in (3, 1, 0, 4, 1)]
    parts[3].mul_(2)
    vector[0] = 7
    assert torch.equal(vector, torch.tensor([7, 1, 2, 3, 8, 10, 12, 14, 8]).to(dtype))
    assert parts[0][0] == 7
    del vector
    assert parts[4].item() == 8  # a part keeps the memory


def test_parts_without_memory_are_views():
    parts = parts_of(torch.empty(6, device="meta"), [torch.Size([2, 2]), torch.Size([2])])
    assert [(part.device.type, list(part.shape)) for part in parts] == [("meta", [2, 2]), ("meta", [2])]


def test_a_space_of_a_module_that_is_gone_leaves_its_parameters():
    module = Tied()
    weight = module.last.weight
    expected = weight.detach().clone()
    parameter_space(module)
    del module
    assert torch.equal(weight, expected)
