"""Max-up against a loop over groups that keeps the largest loss of each."""

from __future__ import annotations

from dataclasses import replace

import oracles
import problems
import pytest
import torch
from oracles import ROUNDING
from problems import COUNT
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, Selection, cross_entropy, squared_error
from noiseless.objective import max_up


def _naive(draws):
    """One loss a group, repeated so that a mean over its draws is that loss again."""

    def loss(output, target):
        losses = cross_entropy(output, target)
        groups = [losses[start : start + draws] for start in range(0, len(losses), draws)]
        return torch.stack([max(group) for group in groups for _ in group])

    return loss


def _problem(make, images, draws):
    """A model, and draws of each image: points near each other, with one label."""
    x, y = problems.points(images)
    noise = torch.randn(images * draws, 3, generator=problems.generator(9), dtype=torch.float64)
    return make(), (x.repeat_interleave(draws, 0) + noise, y.repeat_interleave(draws))


# batch norm needs two examples at the end: 11 images in blocks of 4 leave 3
@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("draws", "block"), [(1, 4), (2, 2), (2, 8), (3, 12), (3, 3 * COUNT)])
@pytest.mark.parametrize("make", [problems.perceptron, problems.with_batch_norm])
def test_the_mean_is_over_images_of_the_largest_loss_of_their_draws(make, draws, block, chunk):
    module, data = _problem(make, COUNT, draws)
    naive = oracles.block_loop(oracles.ghosted(module, block), _naive(draws), data, block)
    selection = replace(Selection.of(data), examples_per_pass=COUNT)
    loss, execution = max_up(cross_entropy, draws), Execution(chunk=chunk)
    evaluation = EmpiricalRisk(module, loss, selection, block=block, execution=execution).evaluate()
    assert evaluation.loss == pytest.approx(naive.loss, rel=1e-11)
    torch.testing.assert_close(evaluation.gradient, naive.gradient, **ROUNDING)
    torch.testing.assert_close(evaluation.block_square_norms, naive.block_square_norms, **ROUNDING)
    assert evaluation.hits == naive.hits  # over all draws
    assert (evaluation.count, evaluation.passes) == (draws * COUNT, draws)
    plain = EmpiricalRisk(module, cross_entropy, data, block=block).evaluate()
    assert (evaluation.loss > plain.loss) == (draws > 1)


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_penalty_sees_the_blocks_of_max_up(chunk):
    module, data = _problem(problems.perceptron, 8, 2)
    risk = EmpiricalRisk(module, max_up(cross_entropy, 2), data, block=4, execution=Execution(chunk=chunk))
    penalty = GradientPenalty(risk, 0.5, lr=0.8, method="exact")
    oracle, point = oracles.Penalised(module, max_up(cross_entropy, 2), data, 4, 0.8, 0.5), oracles.theta(module)
    assert penalty.evaluate().value == pytest.approx(float(oracle(point)), rel=1e-12)
    torch.testing.assert_close(penalty.evaluate().gradient, oracle.gradient(point), rtol=1e-10, atol=1e-12)
    plain = oracles.Penalised(module, _naive(2), data, 4, 0.8)
    V = torch.eye(len(point), dtype=torch.float64)[:3]
    torch.testing.assert_close(risk.hvp(V), plain.hessian(point)[:3], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("draws", [2, 3, 17])
def test_of_equal_losses_only_the_first_counts(draws, reverse):
    # the tie may lie anywhere in the group; a draw with a smaller loss stands before or behind it
    values = torch.full((4, draws), 2.0)
    values[:, -1 if reverse else 0] = 1.0
    losses = max_up(lambda output, target: output, draws)(values.flatten(), torch.zeros(4 * draws))
    expected = torch.zeros(4, draws)
    expected[:, 0 if reverse or draws == 1 else 1] = 2.0 * draws
    assert torch.equal(losses, expected.flatten())
    assert losses.mean() == 2.0


def test_equal_draws_count_as_one_example():
    module, (x, y) = problems.perceptron(), problems.points()
    once = EmpiricalRisk(module, cross_entropy, (x, y)).evaluate()
    thrice = (x.repeat_interleave(3, 0), y.repeat_interleave(3))
    evaluation = EmpiricalRisk(module, max_up(cross_entropy, 3), thrice).evaluate()
    assert evaluation.loss == pytest.approx(once.loss, rel=1e-12)
    torch.testing.assert_close(evaluation.gradient, once.gradient, **ROUNDING)


def test_losses_with_several_elements_are_averaged_first():
    module, (x, _) = problems.perceptron(), problems.points(4)
    target = problems.targets(4)
    means = (module(x) - target).square().mean(1).tolist()
    evaluation = EmpiricalRisk(module, max_up(squared_error, 2), (x, target)).evaluate()
    assert evaluation.loss == pytest.approx((max(means[:2]) + max(means[2:])) / 2, rel=1e-12)


def test_a_nan_loss_stays_nan():
    losses = max_up(lambda output, target: output, 2)(torch.tensor([1.0, torch.nan, 2.0, 3.0]), torch.zeros(4))
    assert losses[:2].isnan().any()


def test_wrong_groups_are_refused():
    data = problems.points()
    with pytest.raises(ValueError, match=r"block of 3 examples .*groups of 2 draws"):
        EmpiricalRisk(problems.perceptron(), max_up(cross_entropy, 2), data, block=3).evaluate()
    with pytest.raises(ValueError, match="at least 1 draw"):
        max_up(nn.CrossEntropyLoss(reduction="none"), 0)
