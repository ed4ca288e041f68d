"""Sweeps under bfloat16 autocast: a plain loop under `torch.autocast`, with float32 parameters, gradients and sums."""

from __future__ import annotations

import problems
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy
from noiseless.objective import layout
from noiseless.objective.compiled import Compiler

COUNT, BLOCK, BFLOAT16 = 11, 3, torch.bfloat16
# bfloat16 has 8 bits: an operation rounds by up to 2**-9 of its result, by a third of that in the mean. Forward and
# backward of the model are ten operations in a row, whose roundings differ with the order and the layout; those of
# single elements do not add up in the norm of the full gradient.
ROUNDED = 10 * 2**-9 / 3


def convolution():
    layers = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()]
    return problems.fill(nn.Sequential(*layers, nn.Linear(16, 3))).float()


def risk_of(module=None, chunk=1, compiler=None, **settings):
    x, y = problems.images(COUNT)
    arguments = {"block": BLOCK, "autocast": torch.bfloat16} | settings
    execution = Execution(chunk=chunk, compiler=compiler)
    return EmpiricalRisk(module or convolution(), cross_entropy, (x.float(), y), execution=execution, **arguments)


def plain_loop(module):
    """Mean loss, and its gradient in the float32 parameters; the model runs under autocast."""
    x, y = problems.images(COUNT)
    total = torch.zeros((), dtype=torch.float64)
    module.zero_grad()
    for part in torch.arange(COUNT).split(BLOCK):
        with torch.autocast("cpu", torch.bfloat16):
            output = module(x[part].float())
        assert output.dtype == torch.bfloat16  # otherwise the loop would test nothing
        loss = nn.functional.cross_entropy(output.float(), y[part], reduction="sum") / COUNT
        loss.backward()
        total += loss.detach()
    return total.item(), torch.cat([p.grad.flatten() for p in module.parameters()])


def distance(value, reference):
    return ((value - reference).norm() / reference.norm()).item()


def test_a_sweep_equals_a_plain_loop_under_autocast():
    evaluation = risk_of().evaluate()
    loss, gradient = plain_loop(convolution())
    assert evaluation.gradient.dtype == torch.float32
    assert evaluation.loss == pytest.approx(loss, rel=ROUNDED)
    assert distance(evaluation.gradient, gradient) < ROUNDED
    full_precision = risk_of(autocast=None).evaluate()
    # float32's own rounding is 6e-8: bfloat16 is really used, and no more than its rounding is lost
    assert 1e-4 < distance(evaluation.gradient, full_precision.gradient) < ROUNDED
    assert evaluation.loss != full_precision.loss


@pytest.mark.parametrize("chunk", [2, 3, 4])
def test_any_chunk_gives_the_same_bits(chunk):
    for wrap in (lambda risk: risk, lambda risk: GradientPenalty(risk, 0.5, lr=0.1)):
        one, other = (wrap(risk_of(chunk=c)).evaluate() for c in (1, chunk))
        assert torch.equal(one.gradient, other.gradient)
        assert torch.equal(one.statistics, other.statistics)
        assert one.value == other.value


def test_evaluate_changes_no_parameter_or_buffer_and_accept_no_dtype():
    module = convolution()
    before = problems.state(module)
    risk = risk_of(module)
    evaluation = risk.evaluate()
    assert problems.same_bits(problems.state(module), before)
    risk.accept(evaluation)
    assert {t.dtype for t in module.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(("method", "eps"), [("forward", 1.0), ("central", 1.0), ("exact", 1e-2)])
def test_the_penalty_equals_that_of_float32_up_to_bfloat16_rounding(method, eps):
    # A probe of length h along v divides the rounding of two gradients by h: relative to |H v| it is 2 * 2**-9 |g| /
    # (eps |H|), so that eps must not be small; at 1, both float32 and bfloat16 see the curvature over that length.
    penalties = [
        GradientPenalty(risk_of(autocast=dtype), 0.5, lr=0.8, method=method, eps=eps).evaluate()
        for dtype in (torch.bfloat16, None)
    ]
    plain = [risk_of(autocast=dtype).evaluate() for dtype in (torch.bfloat16, None)]
    added = [p.gradient - q.gradient for p, q in zip(penalties, plain, strict=True)]
    assert penalties[0].gradient.dtype == torch.float32
    assert added[1].norm() > 0.01 * plain[1].gradient.norm()
    assert distance(added[0], added[1]) < 10 * ROUNDED
    assert penalties[0].penalty == pytest.approx(penalties[1].penalty, rel=2 * ROUNDED)  # a square


def test_hessian_products_equal_those_of_float32_up_to_bfloat16_rounding():
    v = torch.randn(1, len(risk_of().space), generator=problems.generator())
    products, expected = (risk_of(autocast=dtype).hvp(v) for dtype in (torch.bfloat16, None))
    assert products.dtype == torch.float32
    assert distance(products, expected) < 4 * ROUNDED  # a forward and three backwards


@pytest.mark.slow
def test_compiled_code_also_rounds_to_bfloat16():
    compiler = Compiler()
    compiled = risk_of(compiler=compiler, chunk=2).evaluate()
    uncompiled = risk_of(chunk=2).evaluate()
    assert compiled.gradient.dtype == torch.float32
    assert distance(compiled.gradient, uncompiled.gradient) < ROUNDED
    assert distance(compiled.gradient, risk_of(autocast=None).evaluate().gradient) > 1e-4
    assert torch.equal(risk_of(compiler=compiler).evaluate().gradient, compiled.gradient)


@pytest.mark.parametrize(
    ("device", "autocast", "last"),
    [
        ("cuda", torch.bfloat16, True),
        ("cuda", None, False),
        ("cpu", torch.bfloat16, True),
        ("meta", torch.bfloat16, False),
    ],
)
def test_images_on_a_gpu_are_channels_last_in_bfloat16_only(device, autocast, last):
    """Of torch's fake tensors, which have a device and a format, and no values."""
    with FakeTensorMode():
        images = torch.empty(2, 3, 8, 8, device=device)
        (formatted,) = layout.preferred(nn.Sequential(nn.Conv2d(3, 4, 3)), (images,), autocast)
    assert formatted.is_contiguous(memory_format=torch.channels_last) == last
