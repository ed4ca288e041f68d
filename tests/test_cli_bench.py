"""`noiseless bench`: its table is of real sweeps, and what cannot be measured is refused in one line."""

import re
import time

import pytest
import torch
from small_runs import call, npz, refused

from noiseless.cost import bench, plainloop
from noiseless.cost.bench import Side, ours, plain
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.run.build import build
from noiseless.run.work import work


def _config(tmp_path, **changes):
    recipe = with_flags(
        row("fb-regularized"), data=npz(tmp_path / "tiny.npz"), model="linear", augment="none", **changes
    )
    return Config(recipe, Settings(threads=1))


def test_the_table_has_each_sweep_beside_the_plain_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "LONG", 0.05)
    answer = call(
        "bench", "fb", "--data", npz(tmp_path / "tiny.npz"), "--model", "resnet2", "--threads", 1, "--rounds", 1,
        "--block", 16,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (images,) = re.findall(r"(\d+) images a sweep", answer.out)
    for sweep in ("risk", "penalised"):
        (line,) = [line for line in answer.out.splitlines() if line.split()[:1] == [sweep]]
        seconds, speed, other, ratio = (float(x) for x in re.findall(r"[\d.]+", line)[:4])
        assert speed == pytest.approx(int(images) / seconds, rel=6e-3)
        # one round: the ratio is that of the two speeds, which are printed with four digits
        assert abs(ratio - speed / other) < 0.01 + 2e-3 * ratio


def test_the_plain_loop_computes_the_same_gradients(tmp_path):
    config = _config(tmp_path, dtype="float64", block=16)
    experiment = build(config)
    x, y = experiment.train.take(torch.arange(len(experiment.train)))
    blocks = list(zip(x.split(16), y.split(16), strict=True))
    objective = next(iter(experiment.regime.objectives(0)))
    plainloop.risk(experiment.model, blocks)
    gradient = torch.cat([p.grad.flatten() for p in experiment.model.parameters()])
    torch.testing.assert_close(gradient, objective.risk.evaluate().gradient, rtol=1e-12, atol=1e-15)
    scale = objective.lr / 4 * objective.strength
    plainloop.penalised(experiment.model, blocks, scale, objective.eps)
    gradient = torch.cat([p.grad.flatten() for p in experiment.model.parameters()])
    torch.testing.assert_close(gradient, objective.evaluate().gradient, rtol=1e-9, atol=1e-12)


def test_a_side_times_sweeps_in_another_process(tmp_path):
    config = _config(tmp_path, block=16)
    with Side(ours, config, 32) as side:
        began = time.perf_counter()
        seconds = side.turn(True)
        assert 0 < seconds < time.perf_counter() - began  # which includes the way there and back


def test_the_benchmark_of_sweeps_measures_overhead_memory_and_kernels(tmp_path, benchmark):
    sweeps, ceiling = benchmark("sweeps"), benchmark("ceiling")
    config = _config(tmp_path, block=16)
    assert 0 < sweeps.step_overhead(config, 32)(True) < 100
    assert sweeps.peak_memory(plain, config, 32)(False) > 2**26  # torch alone is more
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    assert ceiling.ceiling(model, torch.zeros(1, 1, 8, 8), 16, torch.float32, rounds=1) > 0
    kernels = dict(ceiling._kernels(model, torch.zeros(1, 1, 8, 8), 16))
    assert sorted((k.kind, k.shape, k.first, n) for k, n in kernels.items()) == [
        ("Conv2d", (16, 1, 8, 8), True, 1),
        ("Linear", (16, 72), False, 1),
    ]


def test_an_error_in_the_other_process_is_refused_in_one_line(tmp_path):
    (tmp_path / "tiny.npz").unlink(missing_ok=True)
    refused("bench", "fb", "--data", f"npz:{tmp_path / 'tiny.npz'}", names=(tmp_path / "tiny.npz",))
    data = npz(tmp_path / "tiny.npz")
    refused("bench", "fb", "--data", data, "--rounds", "x", names=("--rounds", "'x'"))
    refused("bench", "fb", "--data", data, "--block", 4096, names=("4096", "48"))
    refused("bench", "nosuch", "--data", data, names=("nosuch", "fb-clipped"))


def test_work_counts_a_linear_models_flops(tmp_path):
    experiment = build(_config(tmp_path))
    counted = work(experiment.config.recipe, experiment.model, experiment.train)
    pixels = experiment.train.images[0].numel()
    classes = int(experiment.train.labels.max()) + 1
    # a product of [1, pixels] and [pixels, classes]: a multiplication and an addition each; thrice for the backward
    assert counted.gradient_flops == 3 * 2 * pixels * classes
    assert counted.parameters == pixels * classes + classes
    assert counted.flops == counted.passes * len(experiment.train) * counted.gradient_flops
    assert counted.passes == 200
