"""Muon against the singular value decomposition, torch's own Muon, and AdamW."""

from __future__ import annotations

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
def test_orthogonalising_changes_only_the_singular_values(shape, steps):
    matrix = problems.targets(*shape, seed=2)
    result = orthogonalised(matrix, COEFFICIENTS, steps)
    torch.testing.assert_close(result, by_svd(matrix, steps), rtol=1e-9, atol=1e-10)  # slopes of 3.4**8 lift rounding
    if steps == 5:  # near an orthogonal factor: the published bound for singular values that are not tiny
        values = torch.linalg.svdvals(result)
        assert (values.min() > 0.3) and (values.max() < 1.3)


def test_zero_stays_zero():
    assert torch.equal(orthogonalised(torch.zeros(3, 4), COEFFICIENTS), torch.zeros(3, 4))


def steps_of(optimizer, parameters, gradients):
    for step in gradients:
        for p, g in zip(parameters, step, strict=True):
            p.grad = g.clone()
        optimizer.step()
    return [p.detach() for p in parameters]


def gradients(parameters, count=4):
    rng = problems.generator(5)
    return [[torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters] for _ in range(count)]


def parameters_of(*shapes, dtype=torch.float64):
    rng = problems.generator(4)
    return [nn.Parameter(torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)) for shape in shapes]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw", "spectral_unclamped"])
def test_matrices_move_as_in_torch(nesterov, adjust, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # so that torch, too, computes in float64
    settings = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3, "nesterov": nesterov, "adjust_lr_fn": adjust}
    parameters, reference_parameters = (parameters_of((6, 4), (3, 7)) for _ in range(2))
    step_gradients = gradients(parameters)
    results = steps_of(Muon(parameters, **settings), parameters, step_gradients)
    expected = steps_of(torch.optim.Muon(reference_parameters, **settings), reference_parameters, step_gradients)
    # the roundings of one orthogonalisation, about 50 of 1e-16, grow by at most the slope 3.45**5 = 490 of its five
    # iterations: 4 steps of length 0.1 differ by at most 4 * 0.1 * 50 * 1e-16 * 490 = 1e-12
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-12)


def test_a_kernel_is_a_matrix_with_one_row_per_output():
    (kernel,), settings = parameters_of((3, 2, 2, 2)), {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}
    step_gradients, start = gradients([kernel], 3), kernel.detach().clone()
    (result,) = steps_of(Muon([kernel], **settings), [kernel], step_gradients)
    x, m = start.view(3, 8), torch.zeros(3, 8).double()
    for (g,) in step_gradients:
        m = 0.5 * m + 0.5 * g.view(3, 8)
        u = 0.5 * g.view(3, 8) + 0.5 * m
        x = (1 - 0.1 * 0.2) * x - 0.1 * by_svd(u)  # 3 < 8: the factor is 1
    torch.testing.assert_close(result.view(3, 8), x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", [(8, 2), (4, 1, 1, 1)])
def test_the_factor_is_of_the_flattened_shape(shape):
    (p,) = parameters_of(shape)
    step_gradients, start = gradients([p], 1), p.detach().clone()
    (result,) = steps_of(Muon([p], lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False), [p], step_gradients)
    expected = start.flatten(1) - 0.1 * 2.0 * by_svd(step_gradients[0][0].flatten(1))  # sqrt(8 / 2) = sqrt(4 / 1) = 2
    torch.testing.assert_close(result.flatten(1), expected, rtol=1e-9, atol=1e-10)


def test_vectors_and_scalars_move_as_with_adamw():
    shapes = ((4, 3), (4,), (2, 2), ())
    parameters, reference_parameters = parameters_of(*shapes), parameters_of(*shapes)
    step_gradients = gradients(parameters)
    optimizer = Muon(parameters, lr=9.0, momentum=0.8, weight_decay=0.1, inner_lr_ratio=0.5, inner_betas=(0.7, 0.9))
    for group in optimizer.param_groups:
        group["lr"] = 0.2  # as the schedule does
    steps_of(optimizer, parameters, step_gradients)
    vectors = [reference_parameters[1], reference_parameters[3]]
    adamw = torch.optim.AdamW(vectors, lr=0.1, betas=(0.7, 0.9), weight_decay=0.1)
    steps_of(adamw, vectors, [[step[1], step[3]] for step in step_gradients])
    assert torch.equal(parameters[1], reference_parameters[1])
    assert torch.equal(parameters[3], reference_parameters[3])
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_the_last_matrix_may_have_its_own_rate():
    parameters, reference_parameters = (parameters_of((4, 3), (4,), (5, 4), (5,)) for _ in range(2))
    step_gradients = gradients(parameters)
    steps_of(Muon(parameters, lr=0.1, weight_decay=0.2, last_lr_ratio=4.0), parameters, step_gradients)
    # a rate four times as large with a quarter of the decay, which is in units of the rate
    steps_of(
        Muon(reference_parameters[:2], lr=0.1, weight_decay=0.2),
        reference_parameters[:2],
        [step[:2] for step in step_gradients],
    )
    steps_of(
        Muon(reference_parameters[2:3], lr=0.4, weight_decay=0.05),
        reference_parameters[2:3],
        [step[2:3] for step in step_gradients],
    )
    torch.testing.assert_close(parameters[:3], reference_parameters[:3], rtol=1e-12, atol=0)


def test_groups_keep_their_settings():
    matrix, bias = parameters_of((3, 3), (3,))
    optimizer = Muon([{"params": [matrix]}, {"params": [bias], "weight_decay": 0.0}], lr=0.1, weight_decay=0.5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_on_a_quadratic_it_reaches_the_minimum():
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
    ("settings", "message"),
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
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Muon(parameters_of((3, 3), (3,)), **settings)


def test_an_unknown_adjustment_is_an_unknown_name():
    with pytest.raises(UnknownNameError, match="known: original, match_rms_adamw, spectral_unclamped"):
        Muon(parameters_of((3, 3)), adjust_lr_fn="orignal")


def test_parameters_without_a_matrix_are_refused():
    with pytest.raises(ValueError, match="there is no matrix to orthogonalise: use AdamW"):
        Muon(parameters_of((3,), ()))
