"""Gradient noise against loops over blocks, numpy's variances, and a problem whose covariance is known."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import COUNT, convolution, images, perceptron, points, with_batch_norm
from scipy import stats
from torch import nn

from noiseless import keyed
from noiseless.analysis import check_blocks, gradient_noise, gradient_noise_scale, noise_passes
from noiseless.objective import EmpiricalRisk, Execution, cross_entropy
from noiseless.objective.workers import Alone


def _naive(module, data, block):
    """Each block's gradient by plain autograd, `[blocks, P]`, and the counts: numpy float64."""
    gradients = [
        oracles.one_batch(module, cross_entropy, [t[part] for t in data])[1].numpy()
        for part in oracles.slices(len(data[0]), block)
    ]
    return np.stack(gradients), np.array([s.stop - s.start for s in oracles.slices(len(data[0]), block)])


def _cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(
    ("make", "data", "block", "norm_block"),
    [  # 11 examples: short last blocks of 3, 1, 3, 3
        (perceptron, points, 4, None),
        (perceptron, points, 2, None),
        (with_batch_norm, points, 4, 4),
        (convolution, images, 8, 4),
    ],
)
def test_all_numbers_equal_a_loop_over_blocks(make, data, block, norm_block, chunk):
    module, tensors = make(), data()
    naive_module = module if norm_block is None else oracles.ghosted(module, norm_block)
    gradients, counts = _naive(naive_module, tensors, block)
    mean = (counts[:, None] * gradients).sum(0) / COUNT
    rng = np.random.default_rng(0)
    references = [torch.from_numpy(rng.standard_normal(len(mean))), torch.from_numpy(mean.copy())]

    risk = EmpiricalRisk(
        module, cross_entropy, tensors, block=block, norm_block=norm_block, execution=Execution(chunk=chunk)
    )
    noise = gradient_noise(risk, references)

    close = {"rtol": oracles.ROUNDING["rtol"], "atol": oracles.ROUNDING["atol"]}
    np.testing.assert_allclose(noise.gradient.numpy(), mean, **close)
    np.testing.assert_allclose(noise.block_norms.numpy(), np.linalg.norm(gradients, axis=1), **close)
    # element by element, then summed: the variance with weights n_b and n - 1 degrees of freedom
    elements = (counts[:, None] * (gradients - mean) ** 2).sum(0) / (len(counts) - 1)
    assert noise.total.covariance_trace == pytest.approx(elements.sum(), rel=1e-11)
    assert noise.total.signal == pytest.approx(mean @ mean - elements.sum() / COUNT, rel=1e-10, abs=1e-12)
    pairs = [_cosine(a, b) for a, b in itertools.combinations(gradients, 2)]
    assert noise.alignment == pytest.approx(np.mean(pairs), rel=1e-10, abs=1e-12)
    for k, reference in enumerate(references):
        expected = [_cosine(g, reference.numpy()) for g in gradients]
        if k:  # the full gradient itself
            np.testing.assert_allclose(noise.gradient_cosines.numpy(), expected, **close)
        np.testing.assert_allclose(noise.cosines[k].numpy(), expected, **close)
        assert float(noise.full_cosines[k]) == pytest.approx(_cosine(mean, reference.numpy()), rel=1e-11)
    offset = 0
    for name, p in module.named_parameters():
        part = slice(offset, offset + p.numel())
        offset += p.numel()
        assert noise.layers[name].covariance_trace == pytest.approx(elements[part].sum(), rel=1e-10, abs=1e-14)
        assert noise.layers[name].gradient_norm == pytest.approx(np.linalg.norm(mean[part]), rel=1e-10, abs=1e-12)
    assert offset == len(mean)
    assert noise.counts.tolist() == counts.tolist()
    assert noise.passes == noise_passes(risk) == 2


def test_with_equal_blocks_the_estimates_are_those_of_two_batches():
    # arXiv 1812.06162, appendix A.1: |G|^2 = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small) and
    # S = (|G_small|^2 - |G_big|^2) / (1 / B_small - 1 / B_big), the small batch's square averaged over the blocks
    module, (x, _) = perceptron(), points(12)
    tensors = (x, torch.zeros(12, dtype=torch.int64))  # with one class the gradients agree: |G|^2 is above its noise
    gradients, _ = _naive(module, tensors, 3)
    small, big = (gradients**2).sum(1).mean(), (gradients.mean(0) ** 2).sum()
    signal, trace = (12 * big - 3 * small) / (12 - 3), (small - big) / (1 / 3 - 1 / 12)
    total = gradient_noise(EmpiricalRisk(module, cross_entropy, tensors, block=3)).total
    assert total.covariance_trace == pytest.approx(trace, rel=1e-10)
    assert total.signal == pytest.approx(signal, rel=1e-10)
    assert signal > 0
    assert total.noise_scale == pytest.approx(trace / signal, rel=1e-9)
    assert total.signal_to_noise(5) == pytest.approx(signal / (trace / 5), rel=1e-9)


class DotProduct(nn.Module):
    """The loss of an example is theta . x, and so its gradient is x: block gradients are means of rows."""

    def __init__(self, length, value=0.3):
        super().__init__()
        self.theta = nn.Parameter(torch.full((length,), value, dtype=torch.float64))

    def forward(self, x):
        return x @ self.theta


def _output(output, target):
    return output + 0 * target


def _risk_of_rows(rows, block, **more):
    x = torch.as_tensor(np.asarray(rows, dtype=np.float64))
    return EmpiricalRisk(DotProduct(x.shape[1]), _output, (x, torch.zeros(len(x))), block=block, **more)


def test_estimates_are_unbiased_where_the_covariance_is_known():
    # Loss (x . theta - y)^2 with x ~ N(0, 1), y = x . w + 0.5 e, e ~ N(0, 1), D = 3 and delta = theta - w. The gradient
    # is 2 x (x . delta - 0.5 e), so G = 2 delta, and as E |x|^2 (x . delta)^2 = (D + 2) |delta|^2,
    # tr(Sigma) = 4 ((D + 2) |delta|^2 + 0.25 D) - |G|^2. 14 examples in blocks of 4: the last has 2.
    width, sets, count = 3, 200, 14
    delta = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    square = float(delta @ delta)
    trace = 4 * ((width + 2) * square + 0.25 * width) - 4 * square
    layer = nn.Linear(width, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(delta[None])  # w = 0
    estimates = []
    for seed in range(sets):
        draws = keyed.normal(seed, "regression", 0, torch.arange(count * (width + 1))).reshape(count, -1)
        data = (draws[:, :width], 0.5 * draws[:, width:])
        risk = EmpiricalRisk(layer, lambda output, y: (output - y).square().squeeze(1), data, block=4)
        total = gradient_noise(risk).total
        estimates.append((total.covariance_trace, total.signal))
    values = np.array(estimates)
    errors = values.std(0, ddof=1) / math.sqrt(sets)
    assert np.all(np.abs(values.mean(0) - (trace, 4 * square)) < 3.5 * errors)
    # the test distinguishes the biased forms: they are further off than that
    assert 4 * square / errors[1] > 3.5
    assert (values[:, 1] + values[:, 0] / count).mean() - 4 * square > 3.5 * errors[1]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_noise_of_a_block_drawn_without_replacement_is_that_of_all_subsets(size):
    rows = np.random.default_rng(1).standard_normal((6, 3)) + 0.5
    mean = rows.mean(0)
    subsets = [rows[list(indices)].mean(0) for indices in itertools.combinations(range(6), size)]
    expected = math.sqrt(np.mean([((g - mean) ** 2).sum() for g in subsets]))
    total = gradient_noise(_risk_of_rows(rows, 1)).total
    assert total.noise_norm(size) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_a_small_spread_about_a_large_gradient_is_not_lost():
    # squares of 1e16 hold nothing below 1; the spread's are 1e-6 (numbers of 1e8 are rounded by 1e-8: 1e-5 of 1e-3)
    small = np.random.default_rng(2).integers(-9, 10, (8, 4)) * 1e-3
    noise = gradient_noise(_risk_of_rows(1e8 + small, 2))
    blocks = small.reshape(4, 2, 4).mean(1)
    assert noise.total.covariance_trace == pytest.approx(2 * blocks.var(0, ddof=1).sum(), rel=1e-3)
    assert noise.alignment == pytest.approx(1)


class Permuted(Alone):
    """Computes the chunks in another order."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def share(self, partial):
        numbers = list(super().share(partial))
        yield from (numbers[k] for k in np.random.default_rng(self.seed).permutation(len(numbers)))


def _bits(noise):
    numbers = [noise.gradient, noise.block_norms, noise.gradient_cosines, noise.cosines, noise.full_cosines]
    scalars = [
        noise.alignment,
        noise.passes,
        *(n for m in [noise.total, *noise.layers.values()] for n in vars(m).values()),
    ]
    return [t.numpy().tobytes() for t in numbers] + [repr(number) for number in scalars]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_the_order_of_chunks_changes_no_bit(seed, chunk):
    risk = EmpiricalRisk(
        perceptron().float(), cross_entropy, _float(points(31)), block=3, execution=Execution(chunk=chunk)
    )
    reference = [torch.linspace(-1, 1, len(risk.space))]
    one, other = (
        gradient_noise(variant, reference)
        for variant in (risk, replace(risk, execution=replace(risk.execution, workers=Permuted(seed))))
    )
    assert _bits(one) == _bits(other)


def _float(data):
    return data[0].float(), data[1]


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_blocks_changes_only_rounding(blocks):
    rows = np.random.default_rng(3).standard_normal((10, 3)) + 1
    reordered = rows.reshape(5, 2, 3)[list(blocks)].reshape(10, 3)
    one, other = (gradient_noise(_risk_of_rows(gradients, 2)) for gradients in (rows, reordered))
    assert other.block_norms.numpy() == pytest.approx(one.block_norms.numpy()[list(blocks)], rel=1e-12)
    for name in ("covariance_trace", "square", "signal", "noise_scale"):
        assert getattr(other.total, name) == pytest.approx(getattr(one.total, name), rel=1e-10)
    assert other.alignment == pytest.approx(one.alignment, rel=1e-10)


def test_a_gradient_below_its_own_noise_has_no_noise_scale():
    noise = gradient_noise(_risk_of_rows([[1.0], [-1.0], [1.1], [-1.0]], 1))  # mean 0.025, S = 1.4
    assert noise.total.signal < 0
    assert noise.total.noise_scale is None
    assert noise.total.signal_to_noise(8) is None
    assert "cannot be distinguished from zero" in noise.total.reason
    assert noise.total.noise_norm(2) > 0


def test_two_blocks_give_no_error_of_the_signal():
    noise = gradient_noise(_risk_of_rows([[3.0, 4.0], [3.1, 4.0]], 1))
    assert (noise.total.signal_interval, noise.total.noise_scale) == (None, None)
    assert noise.total.reason.startswith("2 blocks give no error of |G|^2: choose a block of a third")


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (3, 3, 3, 2), (4, 4, 4, 4, 1)])
def test_errors_are_those_of_leaving_out_a_block(sizes):
    rows = np.random.default_rng(8).standard_normal((sum(sizes), 5)) + 2
    total = gradient_noise(_risk_of_rows(rows, sizes[0])).total
    signals, scales = [], []
    for left_out in range(len(sizes)):
        counts = np.delete(np.array(sizes, dtype=float), left_out)
        means = np.delete([part.mean(0) for part in np.split(rows, np.cumsum(sizes)[:-1])], left_out, axis=0)
        mean = counts @ means / counts.sum()
        trace = (counts * ((means - mean) ** 2).sum(1)).sum() / (len(counts) - 1)
        signals.append(mean @ mean - trace / counts.sum())
        scales.append(math.log(trace / signals[-1]))
    n = len(sizes)
    errors = [math.sqrt((n - 1) ** 2 / n * np.var(values, ddof=1)) for values in (signals, scales)]
    assert (total.signal_error, total.scale_error) == pytest.approx(errors, rel=1e-9)
    low, high = total.signal_interval
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, n - 1) * errors[0], rel=1e-9)
    below, above = total.noise_scale_interval
    assert below * above == pytest.approx(total.noise_scale**2)
    assert math.log(above / total.noise_scale) == pytest.approx(stats.t.ppf(0.975, n - 1) * errors[1], rel=1e-9)


@pytest.mark.parametrize(("square", "least", "most"), [(0.0, 0.0, 0.025), (6.0, 0.95, 1.0)])
def test_a_gradient_of_zero_is_rarely_told_from_zero_and_intervals_cover(square, least, most):
    """120 data sets of 16 blocks: with G = 0 nearly half of them have a positive estimate of |G|^2."""
    length, sets = 40, 120
    told = covered = positive = 0
    for seed in range(sets):
        rows = np.random.default_rng(seed).standard_normal((16, length)) / np.arange(1, length + 1) ** 0.5
        rows[:, 0] += math.sqrt(square)
        total = gradient_noise(_risk_of_rows(rows, 1, execution=Execution(chunk=16))).total
        low, high = total.signal_interval
        positive += total.signal > 0
        told += total.noise_scale is not None
        covered += low <= square <= high
    assert positive >= 0.35 * sets
    assert least * sets <= told <= most * sets
    assert covered >= 0.9 * sets


def test_zero_gradients_have_no_direction_and_no_scale():
    noise = gradient_noise(_risk_of_rows([[0.0, 0.0]] * 4, 1), [torch.tensor([1.0, 0.0])])
    assert (noise.total.noise_scale, noise.alignment) == (None, None)
    assert noise.total.reason == "the full gradient is zero"
    assert noise.cosines.isnan().all()
    # one of three blocks without a gradient: the pair that is left has the cosine 0.6 of (3, 4) and (1, 0)
    noise = gradient_noise(_risk_of_rows([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]], 1))
    assert noise.alignment == pytest.approx(0.6)


def test_without_any_spread_the_signal_has_no_bound():
    noise = gradient_noise(_risk_of_rows([[3.0, 4.0]] * 5, 2))  # a short last block, too
    assert noise.total.covariance_trace == 0
    assert noise.total.noise_scale == 0
    assert noise.total.signal_to_noise(1) == math.inf
    assert noise.alignment == pytest.approx(1)


def test_the_module_is_not_changed():
    module = with_batch_norm()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    gradient_noise(EmpiricalRisk(module, cross_entropy, points(12), block=4))
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_the_noise_scale_is_that_of_the_measurement():
    rows = np.random.default_rng(5).standard_normal((16, 3)) + 3
    risk = _risk_of_rows(rows, 2)
    total = gradient_noise(risk).total
    assert gradient_noise_scale(risk) == total.noise_scale == total.covariance_trace / total.signal


def test_a_set_of_copies_costs_more_passes():
    risk = _risk_of_rows(np.eye(8), 2)
    assert noise_passes(risk.at(replace(risk.selection, examples_per_pass=4))) == 4


def test_one_block_has_no_variance():
    with pytest.raises(ValueError, match=r"the 6 examples make one block of 6.*at most 3"):
        check_blocks(_risk_of_rows(np.eye(6), None))
    with pytest.raises(ValueError, match="one block of 5"):
        gradient_noise(_risk_of_rows(np.eye(5), 5))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.ones(4), r"reference 1 must have shape \[3\], not \[4\]"),
        (torch.tensor([1.0, math.nan, 0]), "1 holds NaN"),
    ],
)
def test_invalid_references_are_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        gradient_noise(_risk_of_rows(np.eye(3), 1), [torch.ones(3), reference])


def test_gradients_that_are_not_finite_are_refused():
    def breaking(output, target):
        return output * torch.where(target > 0, math.inf, 1.0)

    data = (torch.eye(6, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 0, 1]))
    broken = replace(_risk_of_rows(np.eye(6), 2), loss=breaking, data=data)
    with pytest.raises(ValueError, match="gradients of 2 of 3 blocks are not finite, the first of block 1"):
        gradient_noise(broken)
