"""Batch norm: what an accepted sweep leaves in the buffers, and the layers that are refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import oracles
import problems
import pytest
import torch
from oracles import ROUNDING, slices
from torch import nn

from noiseless import EmpiricalRisk, Execution, cross_entropy

# examples, block, norm block: a short last block (11 = 3 * 3 + 2), ghosts with a short last norm block (14 = 8 + 4 + 2)
CUTS = [(12, 12, 12), (11, 3, 3), (12, 6, 3), (14, 8, 4)]


def _norm_blocks(count, block, norm_block):
    return [
        slice(b.start + n.start, b.start + n.stop)
        for b in slices(count, block)
        for n in slices(b.stop - b.start, norm_block)
    ]


def _layers(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _accepted_layers(module, data, block, norm_block, chunk, statistics, times=1):
    settings = {"block": block, "norm_block": norm_block, "statistics": statistics, "execution": Execution(chunk=chunk)}
    risk = EmpiricalRisk(module, cross_entropy, data, **settings)
    for _ in range(times):
        risk.accept(risk.evaluate())
    return _layers(module)


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("count", "block", "norm_block"), CUTS)
def test_ema_gives_the_buffers_that_torch_gives(count, block, norm_block, chunk):
    module, data = problems.with_batch_norm(), problems.points(count)
    reference = copy.deepcopy(module).train()
    for _ in range(2):
        for part in _norm_blocks(count, block, norm_block):
            reference(data[0][part])
    layers = _accepted_layers(module, data, block, norm_block, chunk, "ema", times=2)
    for layer, expected in zip(layers, _layers(reference), strict=True):
        torch.testing.assert_close(layer.running_mean, expected.running_mean, **ROUNDING)
        torch.testing.assert_close(layer.running_var, expected.running_var, **ROUNDING)
        assert layer.num_batches_tracked == expected.num_batches_tracked
        assert layer.num_batches_tracked == 2 * len(_norm_blocks(count, block, norm_block))


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("count", "block", "norm_block"), CUTS)
@pytest.mark.parametrize(
    ("make", "draw"), [(problems.with_batch_norm, problems.points), (problems.convolution, problems.images)]
)
def test_average_is_the_mean_over_norm_blocks_by_count(make, draw, count, block, norm_block, chunk):
    module, data = make(), draw(count)
    naive = oracles.ghosted(module, norm_block)
    for part in slices(count, block):
        naive(data[0][part])
    ghosts = [m for m in naive.modules() if isinstance(m, oracles.GhostNorm)]
    layers = _accepted_layers(module, data, block, norm_block, chunk, "average", times=2)  # the second changes nothing
    for layer, ghost in zip(layers, ghosts, strict=True):
        mean = sum(n * m for n, m, _ in ghost.reports) / count
        variance = sum(n * v for n, _, v in ghost.reports) / count
        torch.testing.assert_close(layer.running_mean, mean, **ROUNDING)
        torch.testing.assert_close(layer.running_var, variance, **ROUNDING)
        assert layer.num_batches_tracked == 2 * len(ghost.reports)


def test_evaluate_and_hvp_change_neither_parameters_nor_buffers():
    for statistics in ("average", "ema"):
        module = problems.with_batch_norm()
        before = problems.state(module)
        risk = EmpiricalRisk(
            module, cross_entropy, problems.points(), block=3, execution=Execution(chunk=2), statistics=statistics
        )
        risk.hvp(risk.evaluate().gradient[None])
        risk.closure()()
        assert problems.same_bits(problems.state(module), before)
        # afterwards a plain forward of the module updates the buffers as in torch
        twin = copy.deepcopy(module)
        module(problems.points()[0]), twin(problems.points()[0])
        assert problems.same_bits(problems.state(module), problems.state(twin))
        assert not problems.same_bits(problems.state(module), before)


def test_accept_works_with_an_evaluation_of_an_equal_risk():
    module = problems.with_batch_norm()
    first, second = (EmpiricalRisk(module, cross_entropy, problems.points(), block=3) for _ in range(2))
    evaluation = first.evaluate()
    second.accept(evaluation)  # has not been evaluated itself
    expected = _accepted_layers(problems.with_batch_norm(), problems.points(), 3, 3, 1, "average")
    assert torch.equal(_layers(module)[0].running_mean, expected[0].running_mean)


def test_layers_in_eval_keep_their_statistics():
    module, data = problems.with_batch_norm(), problems.points()
    module[1].eval()
    before = problems.state(module)
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=2))
    evaluation = risk.evaluate()
    risk.accept(evaluation)
    changed = {name for name, t in problems.state(module).items() if not torch.equal(t, before[name])}
    assert changed == {"4.running_mean", "4.running_var", "4.num_batches_tracked"}
    mixed = problems.with_batch_norm()
    mixed[1].eval()
    torch.testing.assert_close(
        evaluation.gradient, oracles.block_loop(mixed, cross_entropy, data, 3).gradient, **ROUNDING
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("chunk", [1, 3])
def test_layers_without_buffers_or_weights_normalise_by_the_batch(training, chunk):
    # without running statistics, torch normalises by the batch in both modes
    make = lambda: problems.fill(  # noqa: E731
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False, track_running_stats=False), nn.Linear(4, 3))
    ).train(training)
    module, data = make(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=chunk))
    evaluation = risk.evaluate()
    torch.testing.assert_close(
        evaluation.gradient, oracles.block_loop(make(), cross_entropy, data, 3).gradient, **ROUNDING
    )
    risk.accept(evaluation)


def test_a_layer_that_is_called_twice_gives_the_mean_of_its_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.BatchNorm1d(3), nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.norm(2 * self.norm(x)))

    module, data = problems.fill(Twice()), problems.points(9)
    naive = oracles.ghosted(module, 9)
    naive(data[0])
    _accepted_layers(module, data, 9, 9, 1, "average")
    reports = naive.norm.reports
    torch.testing.assert_close(module.norm.running_mean, (reports[0][1] + reports[1][1]) / 2, **ROUNDING)


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(("count", "block", "norm_block"), [(10, 3, 3), (4, 1, 1), (9, 4, 2), (1, 1, 1)])
def test_a_norm_block_of_one_example_is_refused(count, block, norm_block, chunk):
    settings = {"block": block, "norm_block": norm_block, "execution": Execution(chunk=chunk)}
    risk = EmpiricalRisk(problems.with_batch_norm(), cross_entropy, problems.points(count), **settings)
    with pytest.raises(ValueError, match=r"one value a channel in batch norm '1'.*choose a block"):
        risk.evaluate()
    assert "forward" not in vars(risk.module[1])  # the layers have their own forward again


def test_sync_batch_norm_is_refused():
    module = nn.Sequential(nn.Linear(3, 4), nn.SyncBatchNorm(4))
    with pytest.raises(ValueError, match="1 is a SyncBatchNorm"):
        EmpiricalRisk(module, cross_entropy, problems.points())


def test_momentum_none_needs_statistics_average():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None)).double()
    with pytest.raises(ValueError, match=r'1 has momentum None .*use statistics="average"'):
        EmpiricalRisk(module, cross_entropy, problems.points(), statistics="ema")
    EmpiricalRisk(module, cross_entropy, problems.points()).evaluate()


def test_a_wrong_number_of_dimensions_is_refused_as_torch_does():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(3, 3)).double()
    with pytest.raises(ValueError, match="expected 4D input"):
        EmpiricalRisk(module, cross_entropy, problems.points()).evaluate()


@pytest.mark.parametrize("statistics", ["average", "ema"])
def test_a_module_without_batch_norm_has_no_statistics(statistics):
    """Also with exponential statistics, which the stochastic regime uses."""
    module, data = problems.perceptron(), problems.points(11)
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=2), statistics=statistics)
    evaluation = risk.evaluate()
    risk.accept(evaluation)
    assert evaluation.statistics.shape == (0,)
    expected = cross_entropy(module(data[0]), data[1]).mean().item()
    assert evaluation.loss == pytest.approx(expected, rel=1e-12)  # float64 sums of 11 terms


def test_statistics_of_a_later_part_are_averaged_with_those_of_the_parts_before():
    """The three parts of a step leave what one sweep over all examples leaves."""
    data = problems.points(12)
    module, other = problems.with_batch_norm(), problems.with_batch_norm()
    full = EmpiricalRisk(other, cross_entropy, data, block=2)
    full.accept(full.evaluate())
    risk = EmpiricalRisk(module, cross_entropy, data, block=2)
    for start, stop in ((0, 2), (2, 8), (8, 12)):
        part = risk.at(replace(risk.selection, order=torch.arange(start, stop), examples_per_pass=12, before=start))
        part.accept(part.evaluate())
    for layer, expected in zip(_layers(module), _layers(other), strict=True):
        torch.testing.assert_close(layer.running_mean, expected.running_mean, **ROUNDING)
        torch.testing.assert_close(layer.running_var, expected.running_var, **ROUNDING)
