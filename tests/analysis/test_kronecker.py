"""Kronecker factors against dense matrices where they are exact, against curvlinops, and against a naive loop."""

import warnings

import pytest
import torch
from curvatures import gauss_newton
from oracles import ROUNDING
from problems import convolution, fill, images, points, with_batch_norm
from torch import nn

from noiseless.analysis import KroneckerFactors, kronecker_factors, top_eigenvalues
from noiseless.errors import UnknownNameError
from noiseless.objective import EmpiricalRisk, cross_entropy
from noiseless.objective.kronecker_layers import _patches

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # a package that it imports scripts its functions
    from curvlinops import FisherType, KFACLinearOperator

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # in curvlinops


def net():
    """Strides, padding, an activation in place."""
    return fill(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2, bias=False), nn.ReLU(inplace=True),
            nn.Flatten(), nn.Linear(2, 3),
        )
    )  # fmt: skip


def block_diagonal(factors: KroneckerFactors):
    return torch.block_diag(*(factors.dense(name) for name in factors.factors))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize(("kind", "peer"), [("ggn", FisherType.TYPE2), ("empirical-fisher", FisherType.EMPIRICAL)])
def test_curvlinops_has_the_same_factors(sharing, kind, peer):
    module, (x, y) = net(), images()
    reference = KFACLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), [(x, y)], fisher_type=peer, kfac_approx=sharing,
        separate_weight_and_bias=False, check_deterministic=False,
    )  # fmt: skip
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    factors = kronecker_factors(risk, kind, sharing)
    expected = reference @ torch.eye(len(risk.space), dtype=torch.float64)
    torch.testing.assert_close(block_diagonal(factors), expected, **ROUNDING)
    assert not factors.missing


def test_for_one_example_and_no_shared_weights_the_blocks_are_exact():
    """Of one example, `a a^T (x) sum_k l_k g_k g_k^T` is the block itself."""
    module, (x, y) = fill(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))), points(1)
    factors = kronecker_factors(EmpiricalRisk(module, cross_entropy, (x, y)))
    dense = gauss_newton(module, cross_entropy, x, y, 1)
    torch.testing.assert_close(factors.dense("0"), dense[:16, :16], **ROUNDING)
    torch.testing.assert_close(factors.dense("2"), dense[16:, 16:], **ROUNDING)
    # one backward for each of two terms of C, with a forward
    assert factors.cost == pytest.approx(1 / 3 + 2 * 2 / 3)


def naive(module, x, block):
    """B of the first layer of `with_batch_norm` by its definition: a backward for each output of each example."""
    total = torch.zeros(4, 4).double()
    for xs in x.split(block):
        z = module[0](xs).detach().requires_grad_()
        mean, variance = z.mean(0), z.var(0, correction=0)
        first = module[1]
        h = module[2]((z - mean) / (variance + first.eps).sqrt() * first.weight + first.bias)
        h = module[3](h)
        second = module[4]
        h = (h - h.mean(0)) / (h.var(0, correction=0) + second.eps).sqrt() * second.weight + second.bias
        f = module[6](module[5](h))
        p = f.detach().softmax(1)
        for i in range(len(xs)):
            C = torch.diag(p[i]) - p[i, :, None] * p[i]
            rows = [torch.autograd.grad(f[i, k], z, retain_graph=True)[0] for k in range(3)]
            for k in range(3):
                for m in range(3):
                    total += C[k, m] * rows[k].T @ rows[m]
    return total / len(x)


def test_with_batch_norm_in_training_mode_no_products_of_different_examples_enter():
    module, (x, y) = with_batch_norm(), points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    factors = kronecker_factors(risk)
    torch.testing.assert_close(factors.factors["0"].gradient, naive(module, x, 4), **ROUNDING)
    ones = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    torch.testing.assert_close(factors.factors["0"].input, ones.T @ ones / len(x), **ROUNDING)
    assert factors.missing == ("1.weight", "1.bias", "4.weight", "4.bias")
    # each of the outputs of a block, less one for each example, and the check: 9, 9 and 7 backwards
    assert factors.cost == pytest.approx(1 / 3 + 2 / 3 * (9 * 4 + 9 * 4 + 7 * 3) / 11)
    running = kronecker_factors(risk, batch_norm="running")
    assert module.training
    assert running.cost == pytest.approx(1 / 3 + 2 / 3 * 3)


def test_the_size_of_blocks_does_not_matter_where_examples_are_independent():
    module, (x, y) = convolution().eval(), images()
    one = kronecker_factors(EmpiricalRisk(module, cross_entropy, (x, y), block=1))
    several = kronecker_factors(EmpiricalRisk(module, cross_entropy, (x, y), block=7))
    torch.testing.assert_close(block_diagonal(one), block_diagonal(several), **ROUNDING)


def test_weights_of_examples_weigh_both_factors():
    """Examples of weight 0 are as if they were not there."""
    module, (x, y) = net(), images()
    ignored = torch.where(torch.arange(len(y)) % 3 == 1, -100, y)
    kept = ignored >= 0
    with_ignored = kronecker_factors(EmpiricalRisk(module, nn.CrossEntropyLoss(), (x, ignored), block=4))
    without = kronecker_factors(EmpiricalRisk(module, nn.CrossEntropyLoss(), (x[kept], y[kept]), block=3))
    torch.testing.assert_close(block_diagonal(with_ignored), block_diagonal(without), **ROUNDING)


def test_patches_are_what_convolutions_multiply():
    """Dilation, other padding, one and three dimensions: `W patches + bias` is the layer's output."""
    layers = [
        nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        nn.Conv2d(2, 3, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(2, 3, (2, 4), padding="same", dilation=2),
        nn.Conv2d(2, 3, 3, padding="valid"),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(2, 3, 3, padding=1),
        nn.Conv3d(2, 3, 2, padding=1),
    ]
    for layer in layers:
        x = torch.randn(2, 2, *[5] * len(layer.kernel_size), generator=torch.Generator().manual_seed(0))
        product = _patches(layer, x) @ layer.weight.flatten(1).T + layer.bias
        torch.testing.assert_close(product, layer(x).flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """Calls a layer twice, holds one that is never called, ties a weight, and has a grouped convolution."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(3, 3), nn.Linear(3, 3)
        self.tied, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.tied.weight
        self.grouped = nn.Conv1d(2, 2, 1, groups=2)

    def forward(self, x):
        x = self.other(self.tied(self.twice(self.twice(x).tanh())))
        return x + self.grouped(torch.stack([x, x], 1)).sum(1)


def test_calls_of_a_layer_are_places_and_others_have_no_factors():
    module, (x, y) = fill(Shared()), points()
    factors = kronecker_factors(EmpiricalRisk(module, cross_entropy, (x, y), block=4))
    assert list(factors.factors) == ["twice"]
    assert factors.missing == (
        "never.weight", "never.bias", "tied.weight", "tied.bias", "other.bias", "grouped.weight", "grouped.bias",
    )  # fmt: skip
    rows = torch.stack([x, module.twice(x).detach().tanh()], 1)
    ones = torch.cat([rows, torch.ones(len(x), 2, 1).double()], 2).flatten(0, 1)
    torch.testing.assert_close(factors.factors["twice"].input, ones.T @ ones / (2 * len(x)), **ROUNDING)


def spread(f, y):
    """The squared distance from the mean of a block: a loss of several examples."""
    return (f - f.mean(0)).square().sum(1)


def test_a_loss_of_several_examples_takes_single_outputs():
    """The Hessian of a mean of `|f_i - mean f|^2` over n is `(2 / n) (I - 1 1^T / n)`, so `2 (1 - 1 / n) I` is B."""
    module, (x, y) = fill(nn.Linear(3, 3)), points(8)
    factors = kronecker_factors(EmpiricalRisk(module, spread, (x, y), block=4))
    torch.testing.assert_close(factors.factors[""].gradient, 1.5 * torch.eye(3).double(), **ROUNDING)
    assert factors.cost == pytest.approx(1 / 3 + 2 / 3 * (9 + 1))  # the rank of C, three times n - 1; and the check


def test_products_eigenvalues_and_traces_are_those_of_the_blocks():
    module, (x, y) = net(), images()
    factors = kronecker_factors(EmpiricalRisk(module, cross_entropy, (x, y), block=4))
    dense = block_diagonal(factors)
    V = torch.randn(3, len(dense), generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(factors.product(V), V @ dense, **ROUNDING)
    top = top_eigenvalues(factors, 1, tolerance=1e-6)
    largest = max(float(factors.eigenvalues(name)[0]) for name in factors.factors)
    assert top.largest.values.item() == pytest.approx(largest, rel=1e-8)
    assert top.passes == 0
    for name in factors.factors:
        block = factors.dense(name)
        torch.testing.assert_close(factors.eigenvalues(name), torch.linalg.eigvalsh(block).flip(0), **ROUNDING)
        assert factors.trace(name) == pytest.approx(float(block.trace()), rel=1e-12)


class Merged(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(x[:1]).expand(len(x), -1)


def test_what_has_no_factors_is_refused():
    x, y = points()
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        kronecker_factors(EmpiricalRisk(fill(nn.LayerNorm(3)), cross_entropy, (x, y), block=4))
    risk = EmpiricalRisk(fill(Merged()), cross_entropy, (x, y), block=4)
    with pytest.raises(ValueError, match="layer inner gets 1 rows of a block of 4 examples"):
        kronecker_factors(risk)
    with pytest.raises(UnknownNameError, match="expanded"):
        kronecker_factors(risk, sharing="expanded")
