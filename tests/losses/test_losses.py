"""Losses in per-example form, against formulas, and the refusal of those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, squared_error
from noiseless.errors import UnknownNameError
from noiseless.losses.classification import classification_loss, classifying, count_hits
from noiseless.losses.terms import terms
from noiseless.objective import max_up


def test_cross_entropy_is_minus_log_softmax():
    output, target = problems.targets(), problems.points()[1]
    expected = [float(row.exp().sum().log() - row[t]) for row, t in zip(output, target, strict=True)]
    torch.testing.assert_close(cross_entropy(output, target), torch.tensor(expected, dtype=torch.float64))


def test_squared_error_is_the_mean_over_an_examples_elements():
    output, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert terms(squared_error, output, target).values.tolist() == [2.5, 2.0]  # (1 + 4) / 2, (4 + 0) / 2


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_reduced_loss_of_ones_own_is_refused(chunk):
    def loss(output, target):
        return F.cross_entropy(output, target)

    risk = EmpiricalRisk(problems.perceptron(), loss, problems.points(), block=3, execution=Execution(chunk=chunk))
    with pytest.raises(ValueError, match=r"must give one value an example, but gave shape \[\] for 3 examples"):
        risk.evaluate()


def test_a_loss_over_classes_is_refused():
    risk = EmpiricalRisk(problems.perceptron(), lambda output, target: output.mean(0), problems.points(11))
    with pytest.raises(ValueError, match=r"gave shape \[3\] for 11 examples"):
        risk.evaluate()


BROADCASTS = {  # loss, output, target
    "column": (squared_error, (6, 1), (6,)),
    "one example": (squared_error, (1, 1), (1,)),
    "as many examples as elements": (squared_error, (3, 3), (3,)),
    "another loss": (nn.SmoothL1Loss(reduction="none"), (6, 1), (6,)),
    "images": (nn.L1Loss(reduction="none"), (6, 1, 4, 4), (6, 4, 4)),
}


@pytest.mark.filterwarnings("ignore:Using a target size")  # torch's own warning
@pytest.mark.parametrize("case", BROADCASTS)
def test_a_loss_that_broadcasts_is_refused_for_any_number_of_examples(case):
    loss, output, target = BROADCASTS[case]
    if case != "images":  # torch itself refuses the fourth dimension of 6 beside 4
        with pytest.raises(ValueError, match=r"broadcasts the output \[.*\] and the target \[.*\] to \[.*one shape"):
            terms(loss, torch.randn(output), torch.randn(target))
    assert terms(loss, torch.randn(output), torch.randn(output)).values.shape == output[:1]


def test_losses_of_scores_and_numbers_do_not_broadcast():
    """As many examples as classes or places, so that shapes alone could be taken for a broadcast."""
    assert terms(cross_entropy, torch.randn(3, 3), torch.tensor([0, 1, 2])).values.shape == (3,)
    squares = terms(lambda output, target: (output - torch.eye(3)[target]) ** 2, torch.randn(3, 3), torch.arange(3))
    assert squares.values.shape == (3,)
    tokens = nn.CrossEntropyLoss(reduction="none")
    assert terms(tokens, torch.randn(4, 4, 4), torch.zeros(4, 4, dtype=torch.long)).values.shape == (4,)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_broadcast_in_a_sweep_is_refused(chunk):
    x = problems.points(12)[0]
    risk = EmpiricalRisk(
        nn.Linear(3, 1).double(), squared_error, (x, x[:, 0]), block=3, execution=Execution(chunk=chunk)
    )
    with pytest.raises(ValueError, match=r"broadcasts the output \[3, 1\] and the target \[3\] to \[3, 3\]"):
        risk.evaluate()
    with pytest.raises(ValueError, match="broadcasts"):
        risk.measure()


class Wrapped(nn.Module):
    """A model that returns its scores in something."""

    def __init__(self, wrap):
        super().__init__()
        self.scores, self.wrap = problems.perceptron(), wrap

    def forward(self, x):
        return self.wrap(self.scores(x))


@dataclass
class Output:
    scores: torch.Tensor
    text: str = "as Hugging Face's models return it"


WRAPS = {
    "dict": (lambda scores: {"scores": scores, "other": None}, lambda output: output["scores"]),
    "tuple": (lambda scores: (scores, scores.sum()), lambda output: output[0]),
    "dataclass": (Output, lambda output: output.scores),
}


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("kind", WRAPS)
def test_a_model_may_return_anything_that_the_loss_takes(kind, chunk):
    wrap, scores = WRAPS[kind]
    points, settings = problems.points(), {"block": 3, "execution": Execution(chunk=chunk)}
    plain = EmpiricalRisk(problems.perceptron(), cross_entropy, points, **settings).evaluate()
    risk = EmpiricalRisk(Wrapped(wrap), lambda output, y: cross_entropy(scores(output), y), points, **settings)
    evaluation = risk.evaluate()
    assert (evaluation.loss, evaluation.hits) == (plain.loss, None)
    assert torch.equal(evaluation.gradient, plain.gradient)
    assert torch.equal(risk.hvp(plain.gradient[None]), risk.hvp(evaluation.gradient[None]))
    measured = risk.measure()
    assert (measured.loss, measured.hits, measured.accuracy) == (plain.loss, None, None)


CLASSIFY = {
    "ours": (cross_entropy, True),
    "smoothed": (classification_loss("cross-entropy", 0.1), True),
    "max-up": (max_up(cross_entropy, 1), True),
    "torch's module": (nn.CrossEntropyLoss(reduction="none"), True),
    "partial": (partial(F.cross_entropy, reduction="none"), True),
    "declared": (classifying(lambda output, target: F.cross_entropy(output, target, reduction="none")), True),
    "unknown": (lambda output, target: F.cross_entropy(output, target, reduction="none"), False),
    "max-up of unknown": (max_up(lambda output, target: F.cross_entropy(output, target, reduction="none"), 1), False),
}


@pytest.mark.parametrize("name", CLASSIFY)
def test_accuracy_is_claimed_only_for_losses_that_classify(name):
    loss, known = CLASSIFY[name]
    x, y = problems.points()
    model = problems.perceptron()
    hits = int((model(x).argmax(1) == y).sum())
    for result in ((risk := EmpiricalRisk(model, loss, (x, y), block=4)).evaluate(), risk.measure()):
        assert result.hits == (hits if known else None)
        assert result.accuracy == (hits / len(x) if known else None)


def test_counts_and_one_logit_have_no_accuracy():
    x, y = problems.points()
    counts = EmpiricalRisk(nn.Linear(3, 1).double(), nn.PoissonNLLLoss(reduction="none"), (x, y[:, None].double()))
    assert counts.evaluate().accuracy is None
    logit = EmpiricalRisk(nn.Linear(3, 1).double(), nn.CrossEntropyLoss(reduction="none"), (x, 0 * y))
    assert logit.evaluate().accuracy is None


@pytest.mark.parametrize("loss", [cross_entropy, classification_loss("incorrect", 0.1)])
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_label_out_of_range_is_refused(chunk, loss):
    x, y = problems.points()
    risk = EmpiricalRisk(problems.perceptron(), loss, (x, y + 1), block=3, execution=Execution(chunk=chunk))
    with pytest.raises((ValueError, IndexError), match="out of bounds"):
        risk.evaluate()


def test_hits_are_counted_in_classifications_only():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert count_hits(scores, torch.tensor([1, 1, 1])) == 2
    assert count_hits(scores, torch.tensor([1.0, 1.0, 1.0])).isnan()
    assert count_hits(scores, torch.ones(3, 2, dtype=torch.long)).isnan()
    assert count_hits(scores[:, 0], torch.tensor([1, 1, 1])).isnan()


def _by_hand(output, target, smoothing, others_only, incorrect):
    """The loss from the target distribution q, example by example and class by class."""
    losses = []
    for row, t in zip(output, target.tolist(), strict=True):
        k = len(row)
        even = smoothing / (k - 1) if others_only else smoothing / k
        q = [1 - smoothing if others_only and c == t else even + (c == t) * (1 - smoothing) for c in range(k)]
        assert sum(q) == pytest.approx(1)
        p = row.exp() / row.exp().sum()
        hit = all(row[t] >= other for other in row)
        losses.append(0.0 if incorrect and hit else -sum(w * float(x.log()) for w, x in zip(q, p, strict=True)))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("incorrect", [False, True])
@pytest.mark.parametrize("others_only", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_classification_losses_equal_their_formulas(smoothing, others_only, incorrect):
    output, target = problems.targets() * 3, problems.points()[1]
    loss = classification_loss("incorrect" if incorrect else "cross-entropy", smoothing, others_only)
    expected = _by_hand(output, target, smoothing, others_only, incorrect)
    torch.testing.assert_close(loss(output, target), expected, rtol=1e-13, atol=1e-13)  # rounding of some ten terms
    assert 0 < (expected == 0).sum() < len(expected) if incorrect else (expected > 0).all()


@settings(deadline=None, derandomize=True)
@given(st.integers(2, 7), st.floats(0, 0.99), st.booleans())
def test_smoothing_equals_torchs(classes, smoothing, others_only):
    output = torch.linspace(-3, 4, 5 * classes, dtype=torch.float64).reshape(5, classes).sin() * 4
    target = torch.arange(5) % classes
    share = smoothing * classes / (classes - 1) if others_only else smoothing
    if share > 1:  # which torch refuses
        return
    expected = F.cross_entropy(output, target, reduction="none", label_smoothing=share)
    losses = classification_loss("cross-entropy", smoothing, others_only)(output, target)
    torch.testing.assert_close(losses, expected, rtol=1e-13, atol=1e-13)


def test_the_default_loss_is_cross_entropy():
    assert classification_loss() is cross_entropy


def test_an_example_is_incorrect_exactly_if_it_is_no_hit():
    # a tie goes to the first class, for the hit and for the loss
    output, target = torch.tensor([[2.0, 2.0], [2.0, 2.0], [1.0, 3.0]]), torch.tensor([0, 1, 1])
    losses = classification_loss("incorrect")(output, target)
    assert losses.tolist() == [0.0, pytest.approx(0.6931, abs=1e-4), 0.0]
    assert count_hits(output, target) == (losses == 0).sum()


def test_nan_outputs_give_a_nan_loss():
    output = torch.full((2, 3), torch.nan)  # whose argmax in torch is the first
    assert classification_loss("incorrect")(output, torch.tensor([0, 0])).isnan().all()


LOSSES = [("cross-entropy", 0.2), ("incorrect", 0.0), ("incorrect", 0.2)]


def _mean(kind, smoothing):
    """The loss in torch's own functions, differentiated by autograd."""

    def loss(output, target):
        losses = F.cross_entropy(output, target, reduction="none", label_smoothing=smoothing)
        wrong = output.detach().argmax(1) != target
        return torch.where(wrong, losses, 0.0) if kind == "incorrect" else losses

    return loss


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(("kind", "smoothing"), LOSSES)
def test_a_risk_of_these_losses_is_the_mean_over_all_examples(kind, smoothing, chunk):
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, classification_loss(kind, smoothing), data, block=3, execution=Execution(chunk=chunk))
    evaluation = risk.evaluate()
    value, gradient = oracles.one_batch(module, _mean(kind, smoothing), data)
    assert evaluation.loss == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(evaluation.gradient, gradient, **oracles.ROUNDING)
    assert 0 < evaluation.hits < problems.COUNT  # otherwise "incorrect" would keep all losses or none


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(("kind", "smoothing"), LOSSES)
def test_the_penalty_of_these_losses_equals_the_oracle(kind, smoothing, chunk):
    module, data = problems.with_batch_norm(), problems.points()
    risk = EmpiricalRisk(module, classification_loss(kind, smoothing), data, block=3, execution=Execution(chunk=chunk))
    evaluation = GradientPenalty(risk, 0.5, lr=0.8, method="exact").evaluate()
    oracle = oracles.Penalised(oracles.ghosted(module, 3), _mean(kind, smoothing), data, 3, 0.8, 0.5)
    point = oracles.theta(module)
    assert evaluation.value == pytest.approx(float(oracle(point)), rel=1e-12)
    torch.testing.assert_close(evaluation.gradient, oracle.gradient(point), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_a_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=rf"label_smoothing must be a number in \[0, 1\), not {smoothing}"):
        classification_loss("cross-entropy", smoothing)


def test_an_unknown_loss_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match=r"unknown loss 'incorect'.*incorrect"):
        classification_loss("incorect")
