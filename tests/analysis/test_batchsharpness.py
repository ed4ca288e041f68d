"""Batch sharpness, against dense Hessians of the blocks by torch.func."""

import problems
import pytest
import torch
from torch.func import functional_call, grad, jacrev

from noiseless.analysis import batch_sharpness
from noiseless.objective import EmpiricalRisk, cross_entropy


@pytest.mark.parametrize("block", [3, 7, 11])
def test_it_is_the_mean_over_the_blocks_of_the_curvature_along_the_gradient(block):
    net, (x, y) = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(net, cross_entropy, (x, y), block=block)
    theta = risk.space.theta.detach().clone()
    quotients, curvatures, squares = [], [], []
    for start in range(0, problems.COUNT, block):
        part = slice(start, start + block)

        def loss(t, part=part):
            return torch.nn.functional.cross_entropy(functional_call(net, risk.space.split(t), x[part]), y[part])

        g, H = grad(loss)(theta), jacrev(grad(loss))(theta)
        curvatures.append(float(g @ H @ g))
        squares.append(float(g @ g))
        quotients.append(curvatures[-1] / squares[-1])
    measured = batch_sharpness(risk)
    assert measured.mean == pytest.approx(sum(quotients) / len(quotients), rel=1e-10)
    assert measured.ratio == pytest.approx(sum(curvatures) / sum(squares), rel=1e-10)
    assert measured.quotients.tolist() == pytest.approx(quotients, rel=1e-10)
    assert measured.passes == 3
    assert torch.equal(theta, risk.space.theta)


def test_blocks_without_a_gradient_are_left_out():
    net = problems.perceptron()
    x = torch.zeros(6, 3, dtype=torch.float64)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    target = torch.zeros(6, 3, dtype=torch.float64)
    risk = EmpiricalRisk(net, lambda output, target: ((output - target) ** 2).sum(1), (x, target), block=3)
    measured = batch_sharpness(risk)
    assert (measured.mean, measured.ratio) == (None, None)
    assert measured.quotients.isnan().all()
