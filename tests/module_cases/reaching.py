"""Cases: networks that reach their parameters in ways of their own, or keep a state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from module_cases.case import COUNT, Case, reals

X, Y = reals(COUNT, 3), reals(COUNT)


class Network(nn.Module):
    """3 -> 4 -> 3."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class InList(Network):
    def __init__(self) -> None:
        super().__init__()
        self.used = [self.first.weight, self.second.weight]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.used[0], self.first.bias).tanh(), self.used[1], self.second.bias)


class InClosure(Network):
    def __init__(self) -> None:
        super().__init__()
        weight, bias = self.first.weight, self.first.bias
        self.hidden = lambda x: F.linear(x, weight, bias).tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.hidden(x))


class Checkpointed(Network):
    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_(self.reentrant)
        return self.second(checkpoint(lambda x: self.first(x).tanh(), x, use_reentrant=self.reentrant))


class Reentrant(Checkpointed):
    reentrant = True


class Tied(nn.Sequential):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        self[2].weight = self[0].weight


class Transposed(Network):
    """The decoder uses the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        del self.second
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x).tanh(), self.first.weight.T, self.bias)


class OnOneStorage(Network):
    def double(self) -> OnOneStorage:
        super().double()
        self.second.weight = nn.Parameter(self.first.weight.detach().T)
        return self


class Hooked(Network):
    """Hooks on a forward's output, and on its backward."""

    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(lambda layer, x, output: 2 * output)
        self.second.register_forward_pre_hook(lambda layer, x: (x[0] + 0.1,))


class Masked(Network):
    """A hook on a parameter masks rows of its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first.weight.register_hook(lambda g: g * torch.tensor([[1.0], [0.0], [1.0], [0.0]]).to(g))


class Frozen(Network):
    def __init__(self) -> None:
        super().__init__()
        self.first.requires_grad_(False)
        self.register_buffer("scale", torch.full((3,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Unused(Network):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)


class Detached(Network):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.first(x).tanh()
        return self.second(h) + self.first(x).sum(1, keepdim=True)


class Counting(Network):
    """Counts its forwards, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 1 / self.calls)


class Forwards(Network):
    """Another loss at each forward, without a buffer."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 1 / self.calls)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.weight) @ self.weight).abs()


CASES = [
    Case(name, make, (X, Y), **options)
    for name, make, options in (
        ("tied weights", Tied, {}),
        ("parameters in a list", InList, {}),
        ("parameters in a closure", InClosure, {}),
        ("activation checkpointing", Checkpointed, {}),
        ("activation checkpointing, reentrant", Reentrant, {"refused": {"value": "use_reentrant=False"}}),
        ("tied weights, transposed", Transposed, {}),
        ("two parameters on one storage", OnOneStorage, {"refused": {"value": "memory"}}),
        ("hooks on modules", Hooked, {}),
        ("a hook on a parameter", Masked, {"smooth": False}),
        ("frozen layer, buffer", Frozen, {}),
        ("unused head", Unused, {}),
        ("part without gradient", Detached, {"smooth": False}),
        ("a counter in a buffer", Counting, {"refused": {"value": "writes its buffer 'calls'"}}),
        ("another loss at each forward", Forwards, {"refused": {"value": "no function of the parameters"}}),
        ("complex parameters", Complex, {"refused": {"value": "complex"}}),
        ("torch.compile of a module", lambda: torch.compile(Network(), backend="eager"), {}),
        ("torch.jit.script of a module", lambda: torch.jit.script(Network()), {}),
        ("torch.jit.trace of a module", lambda: torch.jit.trace(Network(), X), {}),
    )
]
