"""Compiled chunks against uncompiled ones: equal up to rounding, the same bits in any order, nothing baked in."""

from __future__ import annotations

import copy
import dataclasses

import float32_errors
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, Selection, cross_entropy
from noiseless.objective import TensorExamples
from noiseless.objective.compiled import Compiler
from noiseless.objective.gaussnewton import gauss_newton_product
from noiseless.objective.workers import Alone

pytestmark = pytest.mark.slow

COUNT, BLOCK = 22, 4  # five full blocks, and one of 2
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""The hundred roundings (1e-16 and 6e-8) of one path through the model, times ten. The penalty divides differences of
gradients by a step h near 0.01, and multiplies them by lr / 4 * s = 0.0125: no larger in sum."""


class Counting(Compiler):
    """Counts the chunks that compiled code has computed, and keeps the messages."""

    def __init__(self):
        self.messages: list[str] = []
        super().__init__(self.messages.append)
        self.chunks = 0

    def call(self, key, function, *arguments, **named):
        result = super().call(key, function, *arguments, **named)
        self.chunks += result is not None
        return result


class Backwards(Alone):
    """One worker that computes the chunks from the last to the first."""

    def share(self, partial):
        yield from reversed(list(super().share(partial)))


def convolution():
    """`[n, 1, 8, 8]` -> `[n, 3]`, with a frozen parameter, and one that the forward does not use."""
    layers = [nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    module = problems.fill(nn.Sequential(*layers, nn.Linear(32, 3)))
    module[5].bias.requires_grad_(False)
    module.spare = nn.Parameter(torch.ones(2).double())
    return module


def perceptron():
    """`[n, 1, 8, 8]` -> `[n, 3]`, with batch norm: a smaller graph than that of `convolution`."""
    layers = [nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2), nn.Tanh(), nn.Linear(2, 3)]
    module = problems.fill(nn.Sequential(*layers))
    module.spare = nn.Parameter(torch.ones(2).double())
    return module


class Named(nn.Module):
    """A module whose input is in a dict."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, named):
        return self.module(named["x"])


def images():
    rng = problems.generator(5)
    return torch.randn(COUNT, 1, 8, 8, generator=rng, dtype=torch.float64), torch.randint(3, (COUNT,), generator=rng)


def risk_of(module, compiler=None, dtype=torch.float64, chunk=1, **settings):
    x, y = images()
    arguments = {"loss": cross_entropy, "data": (x.to(dtype), y), "block": BLOCK, "norm_block": 2} | settings
    return EmpiricalRisk(module, execution=Execution(chunk=chunk, compiler=compiler), **arguments)


def execute(risk, **changes):
    """The risk with a changed execution."""
    return dataclasses.replace(risk, execution=dataclasses.replace(risk.execution, **changes))


def plain(risk):
    return risk


def penalised(risk):
    return GradientPenalty(risk, 0.5, lr=0.1, method="forward")


@pytest.fixture(scope="module")
def compiler():
    return Counting()


@pytest.fixture(scope="module")
def modules():
    """One module a dtype, so that each graph is compiled once in this file."""
    return {torch.float64: convolution(), torch.float32: perceptron().float()}


@pytest.fixture
def module(modules):
    """The module in float64; the changes of a test are undone after it."""
    network = modules[torch.float64]
    before = copy.deepcopy(network.state_dict())
    yield network.train()
    network.load_state_dict(before)
    network.train()


def assert_close(actual, expected, tolerance):
    assert actual.hits == expected.hits
    for name in ("loss", "penalty", "gradient", "block_square_norms", "statistics"):
        one, other = (torch.as_tensor(getattr(evaluation, name)) for evaluation in (actual, expected))
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


def same_bits(one, other):
    return (
        torch.equal(one.gradient, other.gradient)
        and torch.equal(one.statistics, other.statistics)
        and torch.equal(one.block_square_norms, other.block_square_norms)
        and (one.value, one.hits) == (other.value, other.hits)
    )


# chunks of 2 of the five full blocks: two, and one that is computed without compiled code; a penalty takes two sweeps.
# In float32 its graph has 12 kernels more to compile, of the same operations
@pytest.mark.parametrize(
    ("dtype", "chunk", "chunks", "wraps"),
    [
        (torch.float64, 1, 5, {plain: 1, penalised: 2}),
        (torch.float32, 2, 2, {plain: 1}),
        pytest.param(torch.float32, 2, 2, {penalised: 2}, marks=pytest.mark.soak),
    ],
)
def test_compiled_equals_uncompiled_in_any_order(modules, compiler, dtype, chunk, chunks, wraps):
    module = modules[dtype]
    for wrap, times in wraps.items():
        expected = wrap(risk_of(module, None, dtype, chunk=chunk)).evaluate()
        before = compiler.chunks
        risk = risk_of(module, compiler, dtype, chunk=chunk)
        evaluation = wrap(risk).evaluate()
        assert compiler.chunks - before == chunks * times
        assert evaluation.gradient.dtype == dtype
        assert_close(evaluation, expected, TOLERANCE[dtype])
        assert evaluation.unused == expected.unused == ("spare",)
        assert same_bits(wrap(risk).evaluate(), evaluation)
        assert same_bits(wrap(execute(risk, workers=Backwards())).evaluate(), evaluation)
        restarted = execute(risk, compiler=Compiler())  # as after a restart, with code from the cache
        assert same_bits(wrap(restarted).evaluate(), evaluation)
    assert compiler.messages == []


def assert_follows(risk, change):
    """Asserts that a change has the same effect on the compiled evaluation as on the uncompiled one."""
    uncompiled = execute(risk, compiler=None)
    before, chunks = risk.evaluate(), risk.execution.compiler.chunks
    with torch.no_grad():
        change()
    after = risk.evaluate()
    assert risk.execution.compiler.chunks == chunks + 5
    assert abs(after.loss - before.loss) > 1e-3
    assert_close(after, uncompiled.evaluate(), TOLERANCE[torch.float64])


def test_a_frozen_parameter_is_not_baked_in(module, compiler):
    assert_follows(risk_of(module, compiler), lambda: module[5].bias.add_(torch.tensor([0.5, 0.0, -1.0])))


def test_modes_are_followed_and_buffers_not_baked_in(module, compiler):
    risk = risk_of(module, compiler)
    trained = risk.evaluate()
    module.eval()
    assert_follows(risk, lambda: (module[1].running_mean.add_(0.5), module[1].running_var.mul_(4)))
    module.train()
    assert same_bits(risk.evaluate(), trained)


def test_two_models_may_share_a_compiler(module, compiler):
    other = convolution()
    with torch.no_grad():
        other[5].weight.mul_(-2)
    first = risk_of(module, compiler).evaluate()
    assert_close(risk_of(other, compiler).evaluate(), risk_of(other).evaluate(), TOLERANCE[torch.float64])
    assert same_bits(risk_of(module, compiler).evaluate(), first)


def points(module, compiler, loss=cross_entropy, chunk=1, seed=0, step=0, **settings):
    selection, execution = (
        Selection(TensorExamples(problems.points(12)), seed=seed, step=step),
        Execution(chunk=chunk, compiler=compiler),
    )
    return EmpiricalRisk(module, loss, selection, block=3, execution=execution, **settings)


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_module_that_draws_gives_a_message_and_the_bits_of_uncompiled_code(chunk):
    compiler, settings = Counting(), {"chunk": chunk, "seed": 3, "step": 2}
    for wrap in (plain, penalised):
        module = problems.with_dropout()
        expected = wrap(points(module, None, **settings)).evaluate()
        assert same_bits(wrap(points(copy.deepcopy(module), compiler, **settings)).evaluate(), expected)
    assert compiler.chunks == 0
    assert len(compiler.messages) == 2  # once for each module
    assert all("draws random numbers (dropout)" in line for line in compiler.messages)


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2 if x.sum() > 0 else 1)


def test_a_module_that_branches_on_data_gives_a_message_and_the_bits_of_uncompiled_code():
    module, compiler = problems.fill(Branching(3, 3)), Counting()
    risk = points(module, compiler)
    expected = points(module, None).evaluate()
    assert same_bits(risk.evaluate(), expected)
    assert same_bits(risk.evaluate(), expected)
    assert compiler.chunks == 0
    assert len(compiler.messages) == 1
    assert "cannot be traced into one graph, so it is not compiled (" in compiler.messages[0]


def test_a_tensor_that_the_loss_closes_over_is_not_baked_in():
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def weighted(output, target):
        return cross_entropy(output, target) * weights[target]

    module, compiler = problems.perceptron(), Counting()
    risk, uncompiled = (points(module, c, weighted) for c in (compiler, None))
    first = risk.evaluate()
    assert_close(first, uncompiled.evaluate(), TOLERANCE[torch.float64])
    weights.mul_(torch.tensor([3.0, 1.0, 1.0]))
    second = risk.evaluate()
    assert second.loss != first.loss
    assert_close(second, uncompiled.evaluate(), TOLERANCE[torch.float64])


def test_inputs_in_a_dict_are_compiled(compiler):
    x, y = images()
    risk = risk_of(Named(convolution()), data=({"x": x}, y))  # the graph of the first test, whose code is in the cache
    before = compiler.chunks
    assert_close(execute(risk, compiler=compiler).evaluate(), risk.evaluate(), TOLERANCE[torch.float64])
    assert compiler.chunks == before + COUNT // BLOCK


# the graph of a convolution's products with batch norm takes twenty seconds to compile
@pytest.mark.parametrize("make", [problems.perceptron, pytest.param(convolution, marks=pytest.mark.soak)])
def test_compiled_products_equal_uncompiled_ones(make, compiler):
    flat = make is problems.perceptron
    risk = risk_of(make(), **({"data": problems.points(COUNT), "norm_block": None} if flat else {}))
    V = torch.randn(2, len(risk.space), generator=problems.generator(), dtype=torch.float64)
    expected = risk.hvp(V)
    compiled = execute(risk, compiler=compiler)
    before = compiler.chunks
    torch.testing.assert_close(compiled.hvp(V), expected, rtol=1e-11, atol=1e-13)
    assert compiler.chunks == before + COUNT // BLOCK  # the last block is short, and is not compiled
    assert torch.equal(execute(risk, compiler=compiler, compile_products=False).hvp(V), expected)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("ggn", problems.perceptron),
        pytest.param("ggn", perceptron, marks=pytest.mark.soak),
        pytest.param("empirical-fisher", perceptron, marks=pytest.mark.soak),
        pytest.param("ggn", convolution, marks=pytest.mark.soak),
    ],
)
def test_compiled_gauss_newton_products_equal_uncompiled_ones(kind, make, compiler):
    flat = make is problems.perceptron
    risk = risk_of(make(), **({"data": problems.points(COUNT), "norm_block": None} if flat else {}))
    V = torch.randn(1, len(risk.space), dtype=torch.float64, generator=problems.generator(1))
    expected = gauss_newton_product(risk, V, kind)
    before = compiler.chunks
    product = gauss_newton_product(execute(risk, compiler=compiler), V, kind)
    assert compiler.chunks == before + 5 and not compiler.messages
    torch.testing.assert_close(product, expected, rtol=1e-11, atol=1e-13)


def test_a_compiled_sweep_is_as_accurate():
    messages = []
    (plain_loss, plain), (loss, gradient) = float32_errors.errors(3.0, Compiler(messages.append))
    assert messages == []  # no message: it was compiled
    assert loss <= 2 * plain_loss + float32_errors.ULP
    assert gradient <= 2 * plain
