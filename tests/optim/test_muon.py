"""Muon against the singular value decomposition, torch's own, and AdamW alone."""

from __future__ import annotations

import math

import problems
import pytest
import torch
from oracles import by_svd
from torch import nn

from noiseless.errors import UnknownNameError
from noiseless.optim import Muon
from noiseless.optim.muon import COEFFICIENTS, orthogonalised


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (1, 5), (5, 1)])
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_singular_values_are_what_is_changed(shape, steps):
    matrix = problems.targets(*shape, seed=2)
    found = orthogonalised(matrix, COEFFICIENTS, steps)
    torch.testing.assert_close(found, by_svd(matrix, steps), rtol=1e-9, atol=1e-10)  # slopes of 3.4**8 lift rounding
    if steps == 5:  # near an orthogonal factor: the published bound for singular values that are not tiny
        values = torch.linalg.svdvals(found)
        assert (values.min() > 0.3) and (values.max() < 1.3)


def test_nothing_stays_nothing():
    assert torch.equal(orthogonalised(torch.zeros(3, 4), COEFFICIENTS), torch.zeros(3, 4))


def steps_of(optimizer, parameters, gradients):
    for step in gradients:
        for p, g in zip(parameters, step, strict=True):
            p.grad = g.clone()
        optimizer.step()
    return [p.detach() for p in parameters]


def gradients(parameters, count=4):
    drawn = problems.generator(5)
    return [[torch.randn(p.shape, generator=drawn, dtype=p.dtype) for p in parameters] for _ in range(count)]


def parameters_of(*shapes, dtype=torch.float64):
    drawn = problems.generator(4)
    return [nn.Parameter(torch.randn(shape, generator=drawn, dtype=torch.float64).to(dtype)) for shape in shapes]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw", "spectral_unclamped"])
def test_matrices_move_as_in_torch(nesterov, adjust):
    settings = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3, "nesterov": nesterov, "adjust_lr_fn": adjust}
    mine, theirs = (parameters_of((6, 4), (3, 7), dtype=torch.float32) for _ in range(2))
    given = gradients(mine)
    found = steps_of(Muon(mine, **settings), mine, given)
    expected = steps_of(torch.optim.Muon(theirs, **settings), theirs, given)
    for a, b, shape in zip(found, expected, ((6, 4), (3, 7)), strict=True):
        # theirs is computed in bfloat16, of 2**-8, over five steps of slope up to 3.4 that partly cancel: 4 steps of
        # lr * factor * 0.05
        factor = max(1.0, 0.2 * max(shape), math.sqrt(shape[0] / shape[1]))
        torch.testing.assert_close(a, b, rtol=0, atol=4 * 0.1 * factor * 0.05)


def test_a_kernel_is_a_matrix_of_its_outputs():
    (kernel,), settings = parameters_of((3, 2, 2, 2)), {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}
    given, start = gradients([kernel], 3), kernel.detach().clone()
    (found,) = steps_of(Muon([kernel], **settings), [kernel], given)
    x, m = start.view(3, 8), torch.zeros(3, 8).double()
    for (g,) in given:
        m = 0.5 * m + 0.5 * g.view(3, 8)
        u = 0.5 * g.view(3, 8) + 0.5 * m
        x = (1 - 0.1 * 0.2) * x - 0.1 * by_svd(u)  # 3 < 8: the factor is 1
    torch.testing.assert_close(found.view(3, 8), x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", [(8, 2), (4, 1, 1, 1)])
def test_the_factor_is_of_the_flattened_shape(shape):
    (p,) = parameters_of(shape)
    given, start = gradients([p], 1), p.detach().clone()
    (found,) = steps_of(Muon([p], lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False), [p], given)
    expected = start.flatten(1) - 0.1 * 2.0 * by_svd(given[0][0].flatten(1))  # sqrt(8 / 2) = sqrt(4 / 1) = 2
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-9, atol=1e-10)


def test_the_others_move_as_by_adamw():
    shapes = ((4, 3), (4,), (2, 2), ())
    mine, alone = parameters_of(*shapes), parameters_of(*shapes)
    given = gradients(mine)
    optimizer = Muon(mine, lr=9.0, momentum=0.8, weight_decay=0.1, inner_lr_ratio=0.5, inner_betas=(0.7, 0.9))
    for group in optimizer.param_groups:
        group["lr"] = 0.2  # as the schedule does
    steps_of(optimizer, mine, given)
    others = [alone[1], alone[3]]
    reference = torch.optim.AdamW(others, lr=0.1, betas=(0.7, 0.9), weight_decay=0.1)
    steps_of(reference, others, [[step[1], step[3]] for step in given])
    assert torch.equal(mine[1], alone[1])
    assert torch.equal(mine[3], alone[3])
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_the_last_matrix_may_have_a_rate_of_its_own():
    mine, theirs = (parameters_of((4, 3), (4,), (5, 4), (5,)) for _ in range(2))
    given = gradients(mine)
    steps_of(Muon(mine, lr=0.1, weight_decay=0.2, last_lr_ratio=4.0), mine, given)
    # a rate four times as large with a quarter of the decay, which is in units of the rate
    steps_of(Muon(theirs[:2], lr=0.1, weight_decay=0.2), theirs[:2], [step[:2] for step in given])
    steps_of(Muon(theirs[2:3], lr=0.4, weight_decay=0.05), theirs[2:3], [step[2:3] for step in given])
    torch.testing.assert_close(mine[:3], theirs[:3], rtol=1e-12, atol=0)


def test_groups_keep_their_settings():
    matrix, bias = parameters_of((3, 3), (3,))
    optimizer = Muon([{"params": [matrix]}, {"params": [bias], "weight_decay": 0.0}], lr=0.1, weight_decay=0.5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_on_a_quadratic_it_goes_to_the_known_answer():
    # f = ||X - B||**2 / 2. A step has length lr in each singular direction, so with lr falling as 1 / t it ends within
    # the last rates of B; from a distance of 4 the rates' sum, log(400), is enough
    (x,) = parameters_of((3, 4))
    B = problems.targets(3, 4, seed=9)
    optimizer = Muon([x], lr=1.0, weight_decay=0.0, momentum=0.0)
    for t in range(1, 401):
        optimizer.param_groups[0]["lr"] = 1.0 / t
        x.grad = (x - B).detach()
        optimizer.step()
    assert (x - B).norm() < 0.02


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lr": -1.0}, "lr must be a finite number"), ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"ns_steps": 0}, "ns_steps must be a whole number"), ({"ns_coefficients": (1.0,)}, "three numbers"),
        ({"adjust_lr_fn": "orignal"}, "unknown adjust_lr_fn 'orignal'; did you mean original"),
        ({"adjust_lr_fn": 5}, "unknown adjust_lr_fn '5'"), ({"ns_coefficients": 3.0}, "three numbers, not 3.0"),
        ({"eps": -1e-7}, "eps must be a positive number, not -1e-07"),
        ({"nesterov": "no"}, "nesterov must be True or False, not 'no'"),
        ({"last_lr_ratio": -1.0}, "last_lr_ratio must be a finite number of at least 0, not -1"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Muon(parameters_of((3, 3), (3,)), **settings)
    with pytest.raises(ValueError, match="no matrix"):
        Muon(parameters_of((3,)))
    assert issubclass(UnknownNameError, ValueError)
