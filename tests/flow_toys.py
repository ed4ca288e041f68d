"""Functions of a few parameters with known flows, as objectives in float64."""

import torch
from torch import Tensor, nn

from noiseless.objective import EmpiricalRisk


class Toy(nn.Module):
    """Parameters z, and a function of them as the loss of a single example."""

    def __init__(self, function, start):
        super().__init__()
        self.z = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.z).expand(len(x), 1)


def objective(function, start) -> EmpiricalRisk:
    data = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return EmpiricalRisk(Toy(function, start), lambda output, target: output[:, 0], data)


def ridge(drives):
    """`L = sum_k y_k x_k**2 / 2 - a_k y_k` of z = (x, y): y_k is a curvature that grows by `lr a_k` where x_k = 0.

    At x = 0 its Hessian is diag(y, 0), and the gradient of the eigenvalue y_k is the unit vector of y_k.
    """
    a = torch.tensor(drives, dtype=torch.float64)

    def value(z):
        x, y = z.chunk(2)
        return (y * x.square()).sum() / 2 - (a * y).sum()

    return value
