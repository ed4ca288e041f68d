"""The penalty on the full gradient in a run: what it costs, that its two sweeps resume, and that workers share them."""

from __future__ import annotations

import pytest
import torch
from small_runs import call, prepare, record, run, small_recipe
from torch import nn

from noiseless.files import checkpoint
from noiseless.files.snapshot import Snapshots
from noiseless.objective import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, parameter_space
from noiseless.objective.workers import Alone, SweepStoppedError
from noiseless.study.reproduce import plan

PASSES = {"forward": 3, "central": 4, "exact": 4}
"""full gradient 1, block gradients 1, and for the product 1, 2 or about 2 (PAPER: 3 in all)"""


@pytest.mark.parametrize(("strength", "copies"), [(0.0, 0), (0.5, 2)])
@pytest.mark.parametrize("method", PASSES)
def test_a_row_has_the_passes_that_the_ladder_plans(method, strength, copies, data, tmp_path):
    recipe = small_recipe(
        data, "fb-regularized", steps=2, copies=copies, penalty=strength, full_penalty=0.3, penalty_method=method
    )
    rows = run(tmp_path / "run", recipe).rows()
    (job,) = plan([recipe], 1, tmp_path)
    passes = PASSES[method] * max(1, copies)
    assert [row["passes"] for row in rows] == [passes, 2 * passes]
    assert job.passes == passes


def test_a_run_penalises_both_norms(data, tmp_path):
    # the row's own numbers: (lr / 8) (s_block mean_b ||g_b||**2 + s_full ||g||**2), g the gradient without penalty
    recipe = small_recipe(
        data, "fb", steps=1, dtype="float64", warmup=0, penalty=0.5, full_penalty=0.3, augment="none", block=20
    )
    (row,) = run(tmp_path / "run", recipe).rows()
    plain = next(
        iter(prepare(small_recipe(data, "fb", dtype="float64", augment="none", block=20)).regime.objectives(0))
    )
    full = float(plain.evaluate().gradient.square().sum())
    expected = row["lr"] / 8 * (0.5 * row["block_gradient_norm"] ** 2 + 0.3 * full)
    assert row["penalty"] == pytest.approx(expected, rel=1e-10)
    assert row["block_gradient_norm"] ** 2 > full > 0


class Counting:
    """Examples that count how many are read."""

    def __init__(self):
        self.x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
        self.count = 0

    def __len__(self):
        return 40

    def take(self, index):
        self.count += index.numel()
        return self.x[index], index % 3


def _penalty(path, after=10**9):
    """Two sweeps over 10 blocks of 4, stopped after `after` chunks; snapshots are written after each chunk."""
    torch.manual_seed(1)
    examples, module = Counting(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    space, alone = parameter_space(module), Alone(lambda: examples.count >= 4 * after)
    workers = Snapshots(alone, path, 0.0, lambda: checkpoint.digest({"theta": space.theta}))
    workers.begin(0)
    risk = EmpiricalRisk(module, cross_entropy, examples, block=4, execution=Execution(workers, check=False))
    return GradientPenalty(risk, 0.5, lr=0.8, full_strength=0.7), examples


@pytest.mark.parametrize("after", [1, 9, 10, 11, 19])
def test_both_sweeps_resume_where_they_stopped(after, tmp_path):
    expected = _penalty(tmp_path / "whole")[0].evaluate()
    stopped, _ = _penalty(tmp_path / "stopped", after)
    with pytest.raises(SweepStoppedError):
        stopped.evaluate()
    resumed, examples = _penalty(tmp_path / "stopped")
    actual = resumed.evaluate()
    assert examples.count == 2 * 40 - 4 * after  # no chunk of either sweep is computed twice
    assert torch.equal(actual.gradient, expected.gradient)
    assert (actual.loss, actual.penalty, actual.passes) == (expected.loss, expected.penalty, expected.passes)


def test_a_job_of_two_workers_ends_with_the_bits_of_one(data, tmp_path):
    """All of these in one run: two sweeps, another loss, an average, an early end, and a resume."""
    recipe = small_recipe(
        data, "fb", model="resnet8", steps=20, warmup=0, horizon=20, lr=0.2, augment="none", dtype="float64",
        penalty=0.5, full_penalty=0.3, ema=0.8, label_smoothing=0.1, loss="incorrect", stop_perfect=2, test_flips=True,
    )  # fmt: skip
    settings = {"chunk": 1, "evaluate_every": 1, "keep": 99}
    alone = run(tmp_path / "alone", recipe, **settings)
    last = alone.rows()[-1]["step"]
    assert 1 < last < 19
    stopped = run(tmp_path / "stopped", recipe, stop_after=last - 1, **settings)  # one perfect step is done, of two
    assert stopped.rows()[-1]["train_accuracy"] == 1
    assert call("resume", stopped.path, "--workers", 2).code == 0
    assert record(stopped) == record(alone)
    assert stopped.average.read_bytes() == alone.average.read_bytes()
