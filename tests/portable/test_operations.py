"""Operations in portable arithmetic against torch's in float64, their derivatives, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseless.portable import NotPortableError, active, arithmetic
from noiseless.portable.products import LONGEST, anchor, bits, product
from noiseless.portable.sums import total


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


CASES = {
    "linear": (F.linear, [(5, 7), (3, 7), (3,)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "addmm": (lambda b, x, y: torch.addmm(b, x, y, beta=0.5, alpha=2.0), [(3, 5), (3, 4), (4, 5)]),
    "conv": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(2, 3, 5, 5), (4, 3, 3, 3), (4,)]),
    "conv, stride, groups": (
        lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2), [(2, 4, 5, 6), (6, 2, 3, 3)],
    ),
    "conv, dilation": (lambda x, w: F.conv2d(x, w, dilation=2), [(2, 2, 7, 7), (3, 2, 3, 3)]),
    "conv 1d": (lambda x, w: F.conv1d(x, w, stride=2), [(2, 3, 9), (4, 3, 3)]),
    "transposed conv": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), [(2, 3, 4, 4), (3, 2, 3, 3)],
    ),
    "batch norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(4, 3, 2, 2), (3,), (3,)]),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (6,), w, b), [(3, 6), (6,), (6,)]),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 3), (4,), (4,)]),
    "max pool": (lambda x: F.max_pool2d(x, 2), [(2, 3, 4, 4)]),
    "average pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), [(2, 3, 5, 5)]),
    "average pool without padding": (
        lambda x: F.avg_pool2d(x, 2, 2, 0, ceil_mode=True, count_include_pad=False), [(2, 3, 5, 5)],
    ),
    "global pool": (lambda x: F.adaptive_avg_pool2d(x, 1), [(2, 3, 4, 4)]),
    "softmax": (lambda x: torch.softmax(x, 1), [(3, 5)]),
    "cross entropy": (lambda x: F.cross_entropy(x, torch.tensor([0, 2, 1]), label_smoothing=0.1), [(3, 4)]),
    "gelu": (F.gelu, [(3, 7)]),
    "gelu, tanh": (lambda x: F.gelu(x, approximate="tanh"), [(3, 7)]),
    "silu": (F.silu, [(3, 7)]),
    "tanh": (torch.tanh, [(3, 7)]),
    "attention": (_attention, [(2, 4, 6), (2, 4, 6), (2, 4, 6)]),
    "embedding": (lambda w: F.embedding(torch.tensor([[0, 2, 2], [1, 0, 3]]), w), [(4, 3)]),
    "variance": (lambda x: x.var(1), [(3, 7)]),
    "norm": (lambda x: x.norm(), [(3, 7)]),
    "logsumexp": (lambda x: torch.logsumexp(x, 1), [(3, 7)]),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), [(3, 7), (3, 7)]),
    "x^3": (lambda x: x**3, [(3, 7)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_float64(name):
    function, shapes = CASES[name]
    exact = [_random(*shape, seed=k).requires_grad_() for k, shape in enumerate(shapes)]
    single = [x.detach().float().requires_grad_() for x in exact]
    expected = function(*[x.detach().float().double().requires_grad_() for x in exact])  # of the same numbers
    along = _random(*expected.shape, seed=9).float()
    wide = [x.detach().double().requires_grad_() for x in single]
    gradients = torch.autograd.grad(function(*wide), wide, along.double())
    with arithmetic():
        value = function(*single)
        found = torch.autograd.grad(value, single, along)
    # a product's factors are rounded to 21 to 22 bits of the largest element of a row: 2**-22 of it, and few are added
    for computed, reference in zip((value, *found), (expected, *gradients), strict=True):
        assert computed.dtype == torch.float32
        computed, reference = computed.detach(), reference.detach()
        scale = reference.abs().max()
        torch.testing.assert_close(computed.double(), reference, rtol=0, atol=float(3e-6 * scale + 1e-7))


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_finite_differences(name):
    function, shapes = CASES[name]
    inputs = tuple(_random(*shape, seed=k).requires_grad_() for k, shape in enumerate(shapes))
    with arithmetic():
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "conv", "layer norm", "group norm", "softmax", "gelu", "attention"])
def test_a_sample_has_the_same_bits_alone(name):
    function, shapes = CASES[name]
    inputs = [_random(*shape, seed=k, dtype=torch.float32) for k, shape in enumerate(shapes)]
    of_samples = 3 if name == "attention" else 1
    with arithmetic():
        together = function(*inputs)
        alone = function(*(x[1:2] if k < of_samples else x for k, x in enumerate(inputs)))
    assert torch.equal(alone[0], together[1])


@pytest.mark.parametrize("length", [1, 7, 512, LONGEST, LONGEST + 1, 3000])
def test_products_do_not_depend_on_the_order_of_the_sum(length):
    a, b = _random(4, length, seed=1, dtype=torch.float32), _random(length, 5, seed=2, dtype=torch.float32)
    a, b = a * 10.0 ** _random(4, 1, seed=3, dtype=torch.float32), b * _random(length, 5, seed=4).float() ** 5
    result = product(a[None], b[None])[0]
    for start in range(0, length, LONGEST):  # within a part, in another order
        end = min(start + LONGEST, length)
        order = start + torch.randperm(end - start, generator=torch.Generator().manual_seed(start))
        a[:, start:end], b[start:end] = a[:, order].clone(), b[order].clone()
    assert torch.equal(product(a[None], b[None])[0], result)


def test_a_part_of_a_product_is_a_whole_number_that_float64_holds():
    for length in (1, 511, 512, 513, LONGEST):
        width, other = bits(length)
        assert length * 2 ** (width + other) <= 2**53
    exponents = torch.randint(-80, 90, (1000,), generator=torch.Generator().manual_seed(6))
    x = _random(1000, seed=5, dtype=torch.float32) * 2.0**exponents  # above 2**-100, where the last bit stays
    for width in (21, 22):
        c = anchor(x.abs(), width)
        rounded = (x + c) - c
        unit = torch.exp2(torch.floor(torch.log2(x.abs().double())) + 1 - width)
        assert torch.equal(rounded.double() / unit, torch.round(rounded.double() / unit))
        assert ((rounded - x).double().abs() <= unit / 2).all()


@pytest.mark.parametrize("shape", [(1,), (2, 3), (5, 7), (4, 1, 6), (3, 0)])
def test_sums_over_any_dimensions(shape):
    x = _random(*shape)
    for dims in ([0], [-1], list(range(len(shape)))):
        for keepdim in (False, True):
            torch.testing.assert_close(total(x, dims, keepdim), x.sum(dims, keepdim), rtol=1e-14, atol=1e-14)
    assert total(x).shape == ()


@pytest.mark.parametrize(("operation", "sign"), [(torch.ops.aten.add.Scalar, 1), (torch.ops.aten.sub.Scalar, -1)])
def test_a_factor_by_position_is_rounded_by_itself(operation, sign):
    """As decompositions call them; ATen's kernel would fuse product and sum where the processor can."""
    x, factor = _random(1000, dtype=torch.float32), 0.1
    with arithmetic():
        assert torch.equal(operation(x, 0.3, factor), x + sign * (0.3 * factor))


def test_not_finite_numbers_stay_visible():
    x = torch.tensor([[1.0, torch.inf], [torch.nan, 1.0], [1.0, 2.0]])
    with arithmetic():
        result = x @ torch.ones(2, 2)
    assert not result[:2].isfinite().any()
    assert torch.equal(result[2], torch.tensor([3.0, 3.0]))


def test_an_operation_without_a_portable_form_is_refused_by_name():
    x = _random(4, 4, dtype=torch.float32)
    with arithmetic():
        for name, function in {
            "erf_inv": lambda: torch.erfinv(x), "lgamma": lambda: torch.lgamma(x), "linalg_svd": lambda: torch.svd(x),
            "conv3d": lambda: F.conv3d(x[None, None, None], x[None, None, None]),
        }.items():  # fmt: skip
            with pytest.raises(NotPortableError, match="convolution" if name == "conv3d" else name):
                function()
        with pytest.raises(NotPortableError, match="bfloat16"):
            x.bfloat16() @ x.bfloat16()


def test_an_operation_of_another_library_is_refused_even_if_it_has_a_known_name():
    library = torch.library.Library("noiseless_test", "DEF")
    library.define("mul(Tensor x) -> Tensor")
    library.impl("mul", lambda x: x * 2, "CPU")
    with arithmetic(), pytest.raises(NotPortableError, match="noiseless_test::mul"):
        torch.ops.noiseless_test.mul(torch.ones(2))


def test_the_context_ends_where_it_ends():
    assert not active()
    with arithmetic(), arithmetic():
        assert active()
    with arithmetic(False):
        assert not active()
    assert not active()


def test_layers_of_torch_run_and_differentiate_twice():
    module = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3)
    ).double()
    x, parameters = _random(2, 5, 8), list(module.parameters())

    def second() -> list[torch.Tensor]:
        gradients = torch.autograd.grad(module(x).square().mean(), parameters, create_graph=True)
        return list(torch.autograd.grad(sum((g * g).sum() for g in gradients), parameters))

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = second()
    with arithmetic():
        found = second()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_sorting_keeps_the_order_of_equal_elements():
    x = torch.randint(0, 3, (500,), generator=torch.Generator().manual_seed(0))
    with arithmetic():
        assert torch.equal(x.sort().indices, x.sort(stable=True).indices)
        values, index = x.float().topk(4)
    assert values.tolist() == [2.0] * 4
    assert torch.equal(index, (x == 2).nonzero()[:4, 0])


def test_small_decompositions():
    x = _random(9, 5)
    gram = x.T @ x
    with arithmetic():
        values, vectors = torch.linalg.eigh(gram)
        q, r = torch.linalg.qr(x)
    torch.testing.assert_close(vectors @ torch.diag(values) @ vectors.T, gram, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(gram), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(q @ r, x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(q.T @ q, torch.eye(5, dtype=torch.float64), rtol=1e-13, atol=1e-13)


def test_draws_have_their_distributions():
    with arithmetic():
        torch.manual_seed(0)
        normal, uniform = torch.empty(40_000).normal_(1.0, 2.0), torch.empty(40_000).uniform_(-1.0, 3.0)
        kept = torch.nn.functional.dropout(torch.ones(40_000), 0.25)
    # of 40,000 draws: five standard errors
    assert abs(float(normal.mean()) - 1) < 5 * 2 / 200
    assert abs(float(normal.std()) - 2) < 5 * 2 / 280
    assert abs(float(uniform.mean()) - 1) < 5 * 1.155 / 200
    assert -1 < float(uniform.min()) < float(uniform.max()) < 3
    assert abs(float((kept > 0).float().mean()) - 0.75) < 5 * 0.433 / 200
