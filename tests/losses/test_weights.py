"""Losses with weights, torch's losses and metrics: means over the whole data set, for any blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy
from noiseless.analysis import gradient_noise
from noiseless.objective import max_up

X, LABELS = problems.points()
IGNORED = torch.where(torch.arange(problems.COUNT) % 3 == 1, -100, LABELS)
REAL = problems.targets()
SHARES = REAL.softmax(1)
BITS = (REAL > 0).double()
SIGNS = 2 * BITS - 1
ONE_HOT = torch.eye(3, dtype=torch.float64)
CLASS_WEIGHTS = torch.tensor([0.2, 1.7, 3.1], dtype=torch.float64)

TORCH = {
    "cross entropy": (nn.CrossEntropyLoss(), LABELS),
    "class weights": (nn.CrossEntropyLoss(CLASS_WEIGHTS), LABELS),
    "ignored": (nn.CrossEntropyLoss(), IGNORED),
    "all of cross entropy": (nn.CrossEntropyLoss(CLASS_WEIGHTS, ignore_index=2, label_smoothing=0.2), LABELS),
    "probabilities": (nn.CrossEntropyLoss(CLASS_WEIGHTS), SHARES),
    "reduction none": (nn.CrossEntropyLoss(CLASS_WEIGHTS, reduction="none"), LABELS),
    "function": (F.cross_entropy, IGNORED),
    "partial": (partial(F.cross_entropy, weight=CLASS_WEIGHTS, ignore_index=1), LABELS),
    "squared error": (nn.MSELoss(), REAL),
    "function of squared error": (F.mse_loss, REAL),
    "absolute": (nn.L1Loss(), REAL),
    "smooth absolute": (nn.SmoothL1Loss(), REAL),
    "huber": (nn.HuberLoss(), REAL),
    "binary": (nn.BCEWithLogitsLoss(CLASS_WEIGHTS, pos_weight=CLASS_WEIGHTS), BITS),
    "poisson": (nn.PoissonNLLLoss(), BITS),
    "divergence": (nn.KLDivLoss(reduction="batchmean"), SHARES),
    "hinge": (nn.HingeEmbeddingLoss(), SIGNS),
    "soft margin": (nn.SoftMarginLoss(), SIGNS),
    "several labels": (nn.MultiLabelSoftMarginLoss(CLASS_WEIGHTS), BITS),
    "margin": (nn.MultiMarginLoss(weight=CLASS_WEIGHTS), LABELS),
}


@pytest.mark.parametrize("name", TORCH)
def test_the_mean_of_torchs_losses_is_that_of_all_examples_in_one_batch(name):
    loss, target = TORCH[name]
    module = problems.perceptron()
    reduced = nn.CrossEntropyLoss(CLASS_WEIGHTS) if name == "reduction none" else loss
    value = reduced(module(X), target)
    gradient = oracles.flat(torch.autograd.grad(value, list(module.parameters())))
    for block, chunk in ((3, 1), (4, 2), (problems.COUNT, 1)):
        risk = EmpiricalRisk(module, loss, (X, target), block=block, execution=Execution(chunk=chunk))
        evaluation = risk.evaluate()
        assert evaluation.loss == pytest.approx(value.item(), rel=1e-13)
        torch.testing.assert_close(evaluation.gradient, gradient, **oracles.ROUNDING)
        assert risk.measure().loss == pytest.approx(value.item(), rel=1e-13)


class Tokens(nn.Module):
    """Class scores `[n, 5 classes, 3 places]`."""

    def __init__(self):
        super().__init__()
        self.scores = problems.fill(nn.Linear(3, 15))

    def forward(self, x):
        return self.scores(x).unflatten(1, (5, 3))


PLACES = torch.randint(5, (problems.COUNT, 3), generator=problems.generator())
PADDED = torch.where(torch.arange(3) > torch.arange(problems.COUNT)[:, None] % 4, -100, PLACES)


def _masked(output, target):
    return F.cross_entropy(output, target, reduction="none"), (target >= 0).double()


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), _masked])
@pytest.mark.parametrize("block", [1, 3, problems.COUNT])
def test_padded_tokens_count_once_each(loss, block):
    module = Tokens()
    value = F.cross_entropy(module(X), PADDED)
    assert not torch.isclose(value, F.cross_entropy(module(X), PADDED, reduction="none").mean())
    evaluation = EmpiricalRisk(module, loss, (X, PADDED), block=block).evaluate()
    assert evaluation.loss == pytest.approx(value.item(), rel=1e-13)
    gradient = oracles.flat(torch.autograd.grad(value, list(module.parameters())))
    torch.testing.assert_close(evaluation.gradient, gradient, **oracles.ROUNDING)


@dataclass(frozen=True)
class Weighted:
    """The penalised value with class weights, written out over theta."""

    module: nn.Module
    block: int
    strength: float

    def __call__(self, vector):
        value = vector.new_zeros(())
        for part in oracles.slices(problems.COUNT, self.block):
            w = CLASS_WEIGHTS[LABELS[part]].sum()
            one = oracles.Penalised(self.module, self._weighted, (X[part], LABELS[part]), self.block)
            g = torch.func.grad(one)(vector)
            value = value + w * (one(vector) + self.strength * g.dot(g))
        return value / CLASS_WEIGHTS[LABELS].sum()

    def _weighted(self, output, target):
        w = CLASS_WEIGHTS[target]
        return w * F.cross_entropy(output, target, reduction="none") * (len(w) / w.sum())


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_a_blocks_weight_is_that_of_its_examples_in_penalty_and_products_too(strength):
    module = problems.perceptron()
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(CLASS_WEIGHTS), (X, LABELS), block=4)
    objective = GradientPenalty(risk, strength, lr=8.0, method="exact")
    oracle, point = Weighted(module, 4, strength), oracles.theta(module)
    evaluation = objective.evaluate()
    assert evaluation.value == pytest.approx(oracle(point).item(), rel=1e-12)
    assert objective.measure().value == evaluation.value
    torch.testing.assert_close(evaluation.gradient, torch.func.grad(oracle)(point), rtol=1e-10, atol=1e-12)
    hessian = torch.func.jacrev(torch.func.grad(oracle))(point)
    torch.testing.assert_close(objective.hvp(torch.eye(len(point)).double()), hessian, rtol=1e-9, atol=1e-11)
    sums = [float(CLASS_WEIGHTS[LABELS[part]].sum()) for part in oracles.slices(problems.COUNT, 4)]
    assert evaluation.block_weights.tolist() == pytest.approx(sums)
    assert evaluation.weight == pytest.approx(sum(sums))
    assert evaluation.count == problems.COUNT


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_block_without_weight_adds_nothing(chunk):
    target = LABELS.clone()
    target[3:6] = -100  # the whole second block
    module, loss = problems.perceptron(), nn.CrossEntropyLoss()
    rest = torch.tensor([0, 1, 2, *range(6, problems.COUNT)])
    whole = EmpiricalRisk(module, loss, (X, target), block=3, execution=Execution(chunk=chunk)).evaluate()
    without = EmpiricalRisk(module, loss, (X[rest], target[rest]), block=3, execution=Execution(chunk=chunk)).evaluate()
    # which blocks are computed together may change last bits, on some processors
    close = {"rtol": 0, "atol": 0} if chunk == 1 else oracles.ROUNDING
    assert whole.loss == pytest.approx(without.loss, rel=close["rtol"], abs=0)
    torch.testing.assert_close(whole.gradient, without.gradient, **close)
    assert whole.block_square_norms[1] == 0


def test_weights_that_make_no_mean_are_refused():
    module = problems.perceptron()
    with pytest.raises(ValueError, match=r"all weights are 0.*ignore_index"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(), (X, torch.full_like(LABELS, -100)), block=3).evaluate()
    with pytest.raises(ValueError, match=r"all weights are 0.*ignore_index"):
        nothing = EmpiricalRisk(module, nn.CrossEntropyLoss(), (X, torch.full_like(LABELS, -100)), block=3)
        nothing.hvp(torch.ones(1, len(nothing.space), dtype=torch.float64))
    with pytest.raises(ValueError, match=r"weights of a block sum to -3: the loss must return weights >= 0"):
        EmpiricalRisk(module, lambda o, y: (cross_entropy(o, y), -torch.ones(len(y))), (X, LABELS), block=3).measure()
    with pytest.raises(ValueError, match=r"weights of shape \[3, 2\] for values of shape \[3\]"):
        EmpiricalRisk(module, lambda o, y: (cross_entropy(o, y), torch.ones(len(y), 2)), (X, LABELS), block=3).measure()
    with pytest.raises(ValueError, match=r"must return a tensor of one value for each example.*not float"):
        EmpiricalRisk(module, lambda o, y: 1.0, (X, LABELS)).evaluate()
    with pytest.raises(ValueError, match="an objective is a mean, but the loss has reduction='sum'"):
        EmpiricalRisk(module, nn.CrossEntropyLoss(reduction="sum"), (X, LABELS))


def test_a_target_that_is_no_class_is_refused_by_cross_entropy():
    with pytest.raises(ValueError, match="Target -100 is out of bounds"):
        EmpiricalRisk(problems.perceptron(), cross_entropy, (X, IGNORED), block=3).evaluate()


def test_what_needs_examples_of_equal_weight_refuses_others():
    risk = EmpiricalRisk(problems.perceptron(), nn.CrossEntropyLoss(CLASS_WEIGHTS), (X, LABELS), block=3)
    with pytest.raises(ValueError, match="gradient noise is defined for a mean over examples of equal weight"):
        gradient_noise(risk)
    with pytest.raises(ValueError, match="max-up compares losses of draws, but this loss returns weights"):
        EmpiricalRisk(problems.perceptron(), max_up(nn.CrossEntropyLoss(), 1), (X, LABELS)).evaluate()
    assert gradient_noise(replace(risk, loss=cross_entropy)).total.covariance_trace > 0


def _top(k):
    return lambda output, target: (output.topk(k).indices == target[:, None]).any(1).double()


@pytest.mark.parametrize("chunk", [1, 2])
def test_metrics_are_means_over_all_examples(chunk):
    module = problems.perceptron()
    metrics = {
        "two best": _top(2),
        "squared error": lambda output, target: (output.softmax(1) - ONE_HOT[target]).square(),
        "recall": lambda output, target: ((output.argmax(1) == 1).double(), (target == 1).double()),
        "weighted": nn.CrossEntropyLoss(CLASS_WEIGHTS),
    }
    risk = EmpiricalRisk(module, cross_entropy, (X, LABELS), block=3, execution=Execution(chunk=chunk), metrics=metrics)
    output = module(X).detach()
    expected = {
        "two best": float(_top(2)(output, LABELS).mean()),
        "squared error": float((output.softmax(1) - ONE_HOT[LABELS]).square().mean()),
        "recall": float((output.argmax(1) == 1)[LABELS == 1].double().mean()),
        "weighted": float(F.cross_entropy(output, LABELS, CLASS_WEIGHTS)),
    }
    plain = replace(risk, metrics={}).evaluate()
    for result in (risk.evaluate(), risk.measure(), GradientPenalty(risk, 1.0, lr=0.1).evaluate()):
        assert result.metrics == pytest.approx(expected, rel=1e-13)
        assert (result.loss, result.hits) == (plain.loss, plain.hits)
    assert torch.equal(risk.evaluate().gradient, plain.gradient)
    assert plain.metrics == {}


def test_a_metric_without_weight_is_not_a_number():
    metrics = {"of class 7": lambda output, target: (target.double(), (target == 7).double())}
    measured = EmpiricalRisk(problems.perceptron(), cross_entropy, (X, LABELS), metrics=metrics).measure()
    assert math.isnan(measured.metrics["of class 7"])


def test_what_is_no_function_of_output_and_target_is_refused():
    def risk(loss, **metrics):
        return EmpiricalRisk(problems.perceptron(), loss, (X, LABELS), **metrics)

    with pytest.raises(ValueError, match="the loss must be a function of output and target, not of type str"):
        risk("cross-entropy")
    with pytest.raises(ValueError, match=r"the loss is the class MSELoss: give an instance, MSELoss\(\)"):
        risk(nn.MSELoss)
    with pytest.raises(ValueError, match=r'metrics must be functions by name, \{"name": function\}, not list'):
        risk(cross_entropy, metrics=[cross_entropy])
    with pytest.raises(ValueError, match="the metric 'f1' must be a function of output and target, not of type float"):
        risk(cross_entropy, metrics={"f1": 0.5})
    with pytest.raises(ValueError, match=r"the metric 'mean' must give one value an example, but gave shape \[\]"):
        risk(cross_entropy, metrics={"mean": lambda output, target: output.mean()}).measure()
