"""Cases: modules whose forward is a program of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from module_cases.case import COUNT, Case, Column, function, numbers, reals
from module_cases.reaching import Network, X, Y

_NO_SECOND: dict[Column, str] = {"exact": "once_differentiable", "product": "once_differentiable"}


def complex_numbers(x: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    z = torch.complex(x, x.flip(1)) @ torch.complex(real, imaginary)
    return torch.cat([z.abs(), (z * z.conj().roll(1, 1)).imag, torch.angle(z)], 1)


def fourier(x: Tensor, weight: Tensor, twice: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(weight) * twice, s=x.shape[-2:])


class Physics(nn.Module):
    """The residual u'' + u u' of a network u, whose derivatives are taken in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        u = self.net(x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
        return second + u * first


class PhysicsOfFunctions(Physics):
    """The same by torch.func."""

    def forward(self, x: Tensor) -> Tensor:
        u = lambda t: self.net(t[None])[0]  # noqa: E731
        first = torch.func.grad(u)
        values, slopes, bends = (torch.func.vmap(f)(x[:, 0]) for f in (u, first, torch.func.grad(first)))
        return (bends + values * slopes)[:, None]


class ByScalar(PhysicsOfFunctions):
    def forward(self, x: Tensor) -> Tensor:
        u = lambda t: self.net(t[None])[0]  # noqa: E731
        return torch.func.vmap(torch.func.grad(torch.func.grad(u)))(x[:, 0])[:, None]


class Equilibrium(Network):
    """A fixed point by unrolled iterations."""

    def forward(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(12):
            z = 0.3 * super().forward(z + x)
        return z


class Experts(nn.Module):
    """Each example goes to its best expert, by index."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(3, 3), nn.ModuleList([Network() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(1)
        best = shares.argmax(1)
        output = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows = (best == k).nonzero()[:, 0]
            output = output.index_add(0, rows, shares[rows, k, None] * expert(x[rows]))
        return output


class Hyper(nn.Module):
    """A network makes the weights of another."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.main = nn.Linear(2, 12), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.maker(self.main.bias[:2]).view(4, 3)
        return functional_call(self.main, {"weight": weight}, (x,))


class Dense(nn.Module):
    """Graph convolutions with a dense adjacency for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        share = edges / edges.sum(-1, keepdim=True).clamp(min=1)
        return share @ self.second((share @ self.first(x)).relu())


class Scattered(nn.Module):
    """Messages along lists of edges, which are added at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        n, nodes, width = x.shape
        base = torch.arange(n)[:, None] * nodes
        source, target = ((ends[:, :, k] + base).flatten() for k in (0, 1))
        flat = x.reshape(-1, width)
        messages = self.message(torch.cat([flat[source], flat[target]], 1)).tanh()
        summed = torch.zeros_like(flat).index_add(0, target, messages)
        return self.update(torch.cat([flat, summed], 1)).view(n, nodes, 2)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].square() * g


class Once(Cube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].square() * g


class Named(Network):
    """Inputs and outputs by name."""

    def forward(self, features: Tensor, scale: Tensor) -> dict[str, Any]:  # type: ignore[override]
        h = super().forward(features)
        return {"scores": h, "parts": (h.sin(), scale)}


def of_names(output: dict[str, Any], target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    sine, scale = output["parts"]
    values = output["scores"].square().mean(1) + scale * (sine.sum(1) - target["height"]).square()
    return values, target["share"]


class Flattening(nn.Module):
    """As PyTorch's tutorial does it: by `view`."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(2, 3, 2), nn.Linear(27, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolution(x).relu()
        return self.head(h.view(len(x), -1))


class Frames(nn.Module):
    """Frames in the batch dimension of a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x.flatten(0, 1))).relu().mean((2, 3)).unflatten(0, x.shape[:2])


def _in_place(x: Tensor, weight: Tensor) -> Tensor:
    x = x @ weight
    x[:, 0] *= 2
    return x.mul_(0.5).sigmoid_()


_GRAPH = (numbers(2, COUNT, 4, 4).float(), reals(COUNT))
_WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.0, 2.0])
CASES = [
    Case("deep equilibrium, unrolled", Equilibrium, (X, Y)),
    Case("mixture of experts", Experts, (X, Y)),
    Case("hypernetwork", Hyper, (X, Y)),
    Case("physics-informed, autograd.grad", Physics, (reals(COUNT, 1), Y)),
    Case("physics-informed, torch.func", PhysicsOfFunctions, (reals(COUNT, 1), Y)),
    Case("second derivative by torch.func", ByScalar, (reals(COUNT, 1), Y)),
    Case("graph layer, dense", Dense, (reals(COUNT, 4, 3), *_GRAPH)),
    Case("graph layer, index_add", Scattered, (reals(COUNT, 4, 3), numbers(4, COUNT, 6, 2), Y)),
    Case(
        "inputs and outputs by name", Named,
        {"features": X, "scale": Y.exp(), "labels": {"height": Y, "share": _WEIGHTS}}, of_names,
        weight=lambda target: target["share"].sum(),
    ),
    Case("flattening by view", Flattening, (reals(COUNT, 2, 4, 4), Y)),
    Case("frames in batch norm's batch", Frames, (reals(COUNT, 3, 2, 4, 4), Y)),
    function("complex numbers", complex_numbers, (X,), (3, 3), (3, 3)),
    function("FFT", fourier, (reals(COUNT, 4, 6),), (4, 6), (4, 4)),
    function("scan: cumsum, cumprod, logcumsumexp", lambda x, w: torch.cat([
        (x * w).cumsum(1), (x + w).cumprod(1), (x * w).logcumsumexp(1)], 1), (X,), (3,)),
    function("sort, top-k, gather", lambda x, w: torch.cat([
        (x * w).sort(1).values, (x @ w.diag()).topk(2).values, (x * w).gather(1, x.argsort(1))], 1), (X,), (3,)),
    function("linear algebra: solve, cholesky", lambda x, w: torch.cholesky_solve(
        x[:, :, None], torch.linalg.cholesky(w @ w.T + torch.eye(3).to(w)).expand(len(x), 3, 3))[..., 0], (X,), (3, 3)),
    function("operations in place", _in_place, (X,), (3, 3)),
    function("an autograd.Function", lambda x, w: Cube.apply(x * w), (X,), (3,)),
    function("an autograd.Function, once differentiable", lambda x, w: Once.apply(x * w), (X,), (3,),
             refused=_NO_SECOND),
    function("integer and boolean inputs", lambda x, k, b, w: torch.where(b[:, None], x * w[k], w.sin()[k]),
             (X, numbers(4, COUNT, 3), numbers(2, COUNT).bool()), (4,)),
    function("nothing of the parameters", lambda x, w: x + 0 * w.detach(), (X,), (3,)),
]  # fmt: skip
