"""Gauss-Newton and Fisher matrices against dense ones by torch.func in float64, and against curvlinops."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from curvatures import categorical_fisher, empirical_fisher, gauss_newton
from oracles import ROUNDING
from problems import convolution, fill, images, perceptron, points, targets, with_batch_norm
from torch import nn

from noiseless.analysis import (
    GaussNewton,
    Hessian,
    as_linear_operator,
    as_torch_function,
    curvature_matrix,
    top_eigenvalues,
)
from noiseless.errors import DerivativeError, UnknownNameError
from noiseless.losses import classification_loss
from noiseless.objective import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, squared_error
from noiseless.objective.workers import Alone

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # a package that it imports scripts its functions
    from curvlinops import EFLinearOperator, GGNLinearOperator

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # in curvlinops

MODULES = {"perceptron": (perceptron, points), "batch norm": (with_batch_norm, points), "images": (convolution, images)}


def vectors(risk, count=3):
    return torch.randn(count, len(risk.space), generator=torch.Generator().manual_seed(0), dtype=risk.space.theta.dtype)


def agree(risk, kind, expected):
    """Products with random vectors are those with an expected dense matrix, or those of an expected risk."""
    V = vectors(risk)
    other = GaussNewton(expected, kind).product(V) if isinstance(expected, EmpiricalRisk) else V @ expected
    torch.testing.assert_close(GaussNewton(risk, kind).product(V), other, **ROUNDING)


@pytest.mark.parametrize("name", MODULES)
def test_the_matrices_are_those_of_their_formulas(name):
    """Blocks of 4, the last of 3: batch norm in training mode sees these, and J has the derivatives through it."""
    module, data = MODULES[name]
    module, (x, y) = module(), data()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    agree(risk, "ggn", gauss_newton(module, cross_entropy, x, y, 4))
    agree(risk, "fisher", categorical_fisher(module, False, x, 4))
    expected = empirical_fisher(module, cross_entropy, x, y, 4)
    agree(risk, "empirical-fisher", expected)


def test_of_a_model_that_is_linear_in_its_parameters_it_is_the_hessian():
    module, (x, y) = fill(nn.Linear(3, 3)), points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    torch.testing.assert_close(GaussNewton(risk).product(vectors(risk)), risk.hvp(vectors(risk)), **ROUNDING)


def test_what_is_left_of_the_hessian_is_the_second_derivative_of_the_outputs():
    """H - G is `sum_m (dl / df_m) (d^2 f_m)`, which is 0 where the loss has no slope: targets equal to the outputs."""
    module, (x, _) = perceptron(), points()
    risk = EmpiricalRisk(module, squared_error, (x, module(x).detach()), block=4)
    torch.testing.assert_close(GaussNewton(risk).product(vectors(risk)), risk.hvp(vectors(risk)), **ROUNDING)
    risk = EmpiricalRisk(module, squared_error, (x, targets()), block=4)
    assert (GaussNewton(risk).product(vectors(risk)) - risk.hvp(vectors(risk))).norm() > 0.1


LOSSES = {
    "squared error": (squared_error, targets(), lambda f, y: (f - y).square().mean(1)),
    "label smoothing": (
        classification_loss("cross-entropy", 0.2), points()[1], lambda f, y: F.cross_entropy(f, y, reduction="none"),
    ),
    "logits of two classes": (
        nn.BCEWithLogitsLoss(), targets().sigmoid(),
        lambda f, y: F.binary_cross_entropy_with_logits(f, y, reduction="none").mean(1),
    ),
    "log rates": (nn.PoissonNLLLoss(), targets().exp(), lambda f, y: (f.exp() - y * f).mean(1)),
    "not convex": (lambda f, y: (f - y).sin().sum(1), targets(), lambda f, y: (f - y).sin().sum(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_has_a_gauss_newton_matrix(name):
    module, (x, _), (loss, y, values) = perceptron(), points(), LOSSES[name]
    risk = EmpiricalRisk(module, loss, (x, y), block=4)
    expected = gauss_newton(module, values, x, y, 4)
    agree(risk, "ggn", expected)
    if name == "not convex":
        with pytest.raises(ValueError, match=r"is not known to be a negative log-likelihood: choose .* \(ggn\)"):
            GaussNewton(risk, "fisher")
    else:  # their outputs are natural parameters
        agree(risk, "fisher", expected)


def test_the_fisher_of_log_probabilities_is_not_the_gauss_newton_matrix():
    """The loss is linear in log probabilities, so its Hessian in them is 0; the Fisher does not depend on them."""
    module, (x, y) = perceptron(), points()
    with_log = nn.Sequential(module, nn.LogSoftmax(1))
    risk = EmpiricalRisk(with_log, nn.NLLLoss(), (x, y), block=4)
    assert not GaussNewton(risk).product(vectors(risk)).any()
    agree(risk, "fisher", categorical_fisher(with_log, True, x, 4))
    of_logits = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    agree(risk, "fisher", of_logits)


def test_the_fisher_of_probabilities_is_that_of_their_logits():
    module, (x, _) = perceptron(), points()
    y = (targets() > 0).double()
    of_probabilities = EmpiricalRisk(nn.Sequential(module, nn.Sigmoid()), nn.BCELoss(), (x, y), block=4)
    of_logits = EmpiricalRisk(module, nn.BCEWithLogitsLoss(), (x, y), block=4)
    agree(of_probabilities, "fisher", of_logits)
    V = vectors(of_logits)
    assert (GaussNewton(of_probabilities).product(V) - GaussNewton(of_logits).product(V)).norm() > 1e-3


def test_weights_of_the_loss_weigh_the_examples():
    """`sum_i w_i A_i / sum_i w_i`, over all blocks; examples with ignored targets count nowhere."""
    module, (x, y) = perceptron(), points()
    y = torch.where(torch.arange(len(y)) % 5 == 1, -100, y)
    weight = torch.tensor([0.5, 2.0, 1.0]).double()
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(weight=weight), (x, y), block=4)
    kept = y >= 0
    w = weight[y[kept]]

    def weighted(f, y):
        return weight[y] * cross_entropy(f, y)

    share = kept.sum() / w.sum()
    expected = gauss_newton(module, weighted, x[kept], y[kept], 100) * share
    agree(risk, "ggn", expected)
    # sum_i w_i g_i g_i^T with g_i of the loss without its weight: sqrt(w_i) times each gradient
    expected = empirical_fisher(module, lambda f, y: weight[y].sqrt() * cross_entropy(f, y), x[kept], y[kept], 100)
    agree(risk, "empirical-fisher", expected * share)


class TwoOutputs(nn.Module):
    """Returns a dict, of which an integer is no output, and one output depends on the other."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        first = self.inner(x)
        return {"a": first, "b": (first[:, :1].square(), torch.arange(len(x)))}


def test_a_module_may_return_a_tree():
    module, (x, _), y = perceptron(), points(), targets()

    def values(f, y):
        return (f - y).square().sum(1) * f[:, 0] ** 2

    risk = EmpiricalRisk(
        TwoOutputs(module), lambda f, y: (f["a"] - y).square().sum(1) * f["b"][0][:, 0], (x, y), block=4
    )
    # C is the Hessian in (a, b) taken for independent, J the Jacobian of both
    both = nn.Sequential(module, Squared())
    expected = gauss_newton(both, lambda f, y: (f[:, :3] - y).square().sum(1) * f[:, 3], x, y, 4)
    agree(risk, "ggn", expected)
    assert (expected - gauss_newton(module, values, x, y, 4)).norm() > 1e-3


class Squared(nn.Module):
    def forward(self, x):
        return torch.cat([x, x[:, :1].square()], 1)


class Reversed(Alone):
    """Takes the chunks from the last to the first, as other workers might."""

    def share(self, partial):
        yield from reversed(list(super().share(partial)))


def test_the_order_of_blocks_and_the_number_of_vectors_change_no_bit():
    module, data = with_batch_norm().float(), points()
    data = data[0].float(), data[1]
    risk = EmpiricalRisk(module, cross_entropy, data, block=3)
    other = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(workers=Reversed(), chunk=2))
    V = vectors(risk)
    for kind in ("ggn", "fisher", "empirical-fisher"):
        together = GaussNewton(risk, kind).product(V)
        assert torch.equal(together, GaussNewton(other, kind).product(V))
        assert torch.equal(together[1:2], GaussNewton(risk, kind).product(V[1:2]))


def test_the_matrix_of_a_penalised_objective_is_that_of_its_loss():
    risk = EmpiricalRisk(perceptron(), cross_entropy, points(), block=4)
    penalised = GradientPenalty(risk, 0.5, lr=0.1)
    V = vectors(risk, 1)
    assert torch.equal(GaussNewton(penalised).product(V), GaussNewton(risk).product(V))
    assert not torch.allclose(Hessian(penalised).product(V), Hessian(risk).product(V))


def test_matrices_by_name():
    risk = EmpiricalRisk(perceptron(), cross_entropy, points(), block=4)
    assert isinstance(curvature_matrix(risk), Hessian)
    assert curvature_matrix(risk, "fisher", "running") == GaussNewton(risk, "fisher", "running")
    assert curvature_matrix(risk, "ggn").passes(3) == pytest.approx(1 + 3 * 4 / 3)
    with pytest.raises(UnknownNameError, match="ggm"):
        curvature_matrix(risk, "ggm")
    with pytest.raises(UnknownNameError, match="hessian"):
        GaussNewton(risk, "hessian")


def test_the_mode_of_batch_norm_is_that_of_the_call():
    module, (x, y) = with_batch_norm(), points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    V = vectors(risk, 1)
    running = GaussNewton(risk, batch_norm="running").product(V)
    assert module.training
    expected = gauss_newton(module.eval(), cross_entropy, x, y, 4) @ V[0]
    torch.testing.assert_close(running[0], expected, **ROUNDING)


class Lopsided(torch.autograd.Function):
    """x -> x, whose backward is differentiated as if it were another function."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return Wrong.apply(gradient)


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.roll(1, 1)


def test_a_wrong_second_derivative_is_refused():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = perceptron()

        def forward(self, x):
            return Lopsided.apply(self.inner(x))

    risk = EmpiricalRisk(Module(), cross_entropy, points(), block=4)
    with pytest.raises(DerivativeError, match="the curvature products of this module and loss are not symmetric"):
        GaussNewton(risk).product(vectors(risk, 1))


def test_vectors_come_as_one_several_or_a_list():
    module, (x, y) = perceptron(), points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    G, product = gauss_newton(module, cross_entropy, x, y, 4), as_torch_function(GaussNewton(risk))
    v = torch.randn(len(risk.space), generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(product(v), G @ v, **ROUNDING)
    torch.testing.assert_close(product(torch.stack([v, 2 * v])), torch.stack([G @ v, 2 * G @ v]), **ROUNDING)
    parts = list(risk.space.split(v).values())
    images = product(parts)
    assert [image.shape for image in images] == [p.shape for p in module.parameters()]
    torch.testing.assert_close(torch.cat([image.flatten() for image in images]), G @ v, **ROUNDING)
    torch.testing.assert_close(as_torch_function(risk)(v), risk.hvp(v[None])[0], **ROUNDING)
    with pytest.raises(ValueError, match=r"must have shape \[31\] or \[K, 31\], not \[30\]"):
        product(v[1:])
    with pytest.raises(ValueError, match="one tensor for each of 4 parameters"):
        product(parts[1:])


@pytest.mark.parametrize("kind", ["ggn", "empirical-fisher"])
def test_curvlinops_has_the_same_products(kind):
    module, (x, y) = convolution().eval(), images()  # curvlinops has no norm blocks
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    peer = {"ggn": GGNLinearOperator, "empirical-fisher": EFLinearOperator}[kind]
    batches = list(zip(x.split(4), y.split(4), strict=True))
    reference = peer(
        module, nn.CrossEntropyLoss(), list(module.parameters()), batches, check_deterministic=False
    ).to_scipy()
    v = torch.randn(len(risk.space), generator=torch.Generator().manual_seed(1)).double().numpy()
    assert as_linear_operator(GaussNewton(risk, kind)) @ v == pytest.approx(reference @ v, rel=1e-10, abs=1e-12)


def test_the_top_eigenvalue_is_that_of_the_dense_matrix():
    module, (x, y) = perceptron(), points()
    risk = EmpiricalRisk(module, partial(F.cross_entropy, label_smoothing=0.1), (x, y), block=6)
    top = top_eigenvalues(GaussNewton(risk), 2, 0, tolerance=1e-6)
    loss = partial(F.cross_entropy, label_smoothing=0.1, reduction="none")
    exact = torch.linalg.eigvalsh(gauss_newton(module, loss, x, y, 6))
    torch.testing.assert_close(top.largest.values, exact.flip(0)[:2], rtol=1e-9, atol=1e-12)
    assert exact[0] > -1e-12  # positive semi-definite, as cross entropy is convex in the outputs
