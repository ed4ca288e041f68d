"""The penalty on the full gradient in a run: what it costs, that its two sweeps resume, and that workers share them."""

from __future__ import annotations

import jobs
import pytest
import torch
from small_runs import prepare, record, run, small_recipe
from torch import nn

from noiseless.files import checkpoint
from noiseless.files.snapshot import Snapshots
from noiseless.objective import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, parameter_space
from noiseless.objective.workers import Alone, SweepStoppedError
from noiseless.study.reproduce import plan

PASSES = {"forward": 3, "central": 4, "exact": 4}
"""one for the full gradient; then the block gradients, and one, two, or about two for the product (PAPER: 3 in all)"""


@pytest.mark.parametrize(("strength", "copies"), [(0.0, 0), (0.5, 2)])
@pytest.mark.parametrize("method", PASSES)
def test_a_row_has_the_passes_that_the_ladder_plans(method, strength, copies, data, tmp_path):
    recipe = small_recipe(
        data, "fb-regularized", steps=2, copies=copies, penalty=strength, full_penalty=0.3, penalty_method=method
    )
    rows = run(tmp_path / "run", recipe).rows()
    (job,) = plan([recipe], 1, tmp_path)
    each = PASSES[method] * max(1, copies)
    assert [row["passes"] for row in rows] == [each, 2 * each]
    assert job.passes == each


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
    """Examples that count how many are asked for."""

    def __init__(self):
        self.x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
        self.taken = 0

    def __len__(self):
        return 40

    def take(self, index):
        self.taken += index.numel()
        return self.x[index], index % 3


def _penalty(place, after=10**9):
    """Two sweeps over 10 blocks of 4, told to stop after a number of chunks; snapshots are written after each."""
    torch.manual_seed(1)
    examples, module = Counting(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    space, alone = parameter_space(module), Alone(lambda: examples.taken >= 4 * after)
    workers = Snapshots(alone, place, 0.0, lambda: checkpoint.digest({"theta": space.theta}))
    workers.begin(0)
    risk = EmpiricalRisk(module, cross_entropy, examples, block=4, execution=Execution(workers))
    return GradientPenalty(risk, 0.5, lr=0.8, full_strength=0.7), examples


@pytest.mark.parametrize("after", [1, 9, 10, 11, 19])
def test_both_sweeps_go_on_where_they_were(after, tmp_path):
    whole = _penalty(tmp_path / "whole")[0].evaluate()
    stopped, _ = _penalty(tmp_path / "stopped", after)
    with pytest.raises(SweepStoppedError):
        stopped.evaluate()
    again, examples = _penalty(tmp_path / "stopped")
    found = again.evaluate()
    assert examples.taken == 2 * 40 - 4 * after  # no chunk of either sweep is computed twice
    assert torch.equal(found.gradient, whole.gradient)
    assert (found.loss, found.penalty, found.passes) == (whole.loss, whole.penalty, whole.passes)


def test_a_job_of_two_workers_ends_with_the_bits_of_one(data, tmp_path):
    """All that this adds to a step at once: two sweeps, another loss, an average, an early end, and a resume."""
    recipe = small_recipe(
        data, "fb", steps=20, warmup=0, horizon=20, lr=0.2, augment="none", dtype="float64", penalty=0.5,
        full_penalty=0.3, ema=0.8, label_smoothing=0.1, loss="incorrect", stop_perfect=2, test_flips=True,
    )  # fmt: skip
    settings = {"chunk": 1, "evaluate_every": 1, "keep": 99}
    alone = run(tmp_path / "alone", recipe, **settings)
    last = alone.rows()[-1]["step"]
    assert 1 < last < 19
    stopped = run(tmp_path / "stopped", recipe, stop_after=last - 1, **settings)  # one perfect step is done, of two
    assert stopped.rows()[-1]["train_accuracy"] == 1
    command = jobs.command(2, "-m", "noiseless", "resume", str(stopped.path))
    job = jobs.Job(command, tmp_path / "log")
    assert job.wait() == 0, job.log.read_text()[-3000:]
    assert record(stopped) == record(alone)
    assert stopped.average.read_bytes() == alone.average.read_bytes()
