"""A quadratic of five numbers on which the tests of line searches run their steps."""

from __future__ import annotations

import problems
import torch
from torch import Tensor, nn

from noiseless.optim import Searched, make_line_search, make_optimizer

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
