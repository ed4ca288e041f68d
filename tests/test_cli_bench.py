"""`noiseless bench`: its table is of real sweeps, and what cannot be measured is said in one line."""

import importlib
import re
from dataclasses import replace

import torch
from small_runs import call, npz, refused

from noiseless.run import plainloop
from noiseless.run.bench import Case, Side, ours, plain
from noiseless.run.build import build
from noiseless.run.config import Config, Settings
from noiseless.run.recipes import row
from noiseless.run.work import work


def _config(tmp_path, **changes):
    recipe = replace(row("fb-regularized"), data=npz(tmp_path / "tiny.npz"), model="linear", augment="none", **changes)
    return Config(recipe, Settings(threads=1))


def test_the_table_has_each_sweep_beside_the_plain_loop(tmp_path, monkeypatch):
    module = importlib.import_module("noiseless.commands.bench")  # the package has a function of that name
    monkeypatch.setattr(module, "LONG", 0.05)
    answer = call("bench", "fb", "--data", npz(tmp_path / "tiny.npz"), "--threads", 1, "--rounds", 1, "--block", 16)
    assert answer.code == 0, answer.err
    for sweep in ("risk, float32", "risk, bfloat16", "penalised, float32", "penalised, bfloat16"):
        (line,) = [line for line in answer.out.splitlines() if sweep in line]
        speed, other, ratio = (float(x) for x in re.findall(r"[\d.]+", line.partition(sweep)[2])[:3])
        assert speed > 0
        # one round: the ratio is that of the two speeds, which are printed with four digits
        assert abs(ratio - speed / other) < 0.01 + 2e-3 * ratio
    assert "what limits it: memory and the overhead" in answer.out
    assert re.search(r"peak memory of the process in a penalised sweep: \d+ MiB", answer.out)


def test_the_plain_loop_computes_the_same_gradients(tmp_path):
    config = _config(tmp_path, dtype="float64", block=16)
    made = build(config)
    x, y = made.train.take(torch.arange(len(made.train)))
    blocks = list(zip(x.split(16), y.split(16), strict=True))
    objective = next(iter(made.regime.objectives(0)))
    plainloop.risk(made.model, blocks)
    gradient = torch.cat([p.grad.flatten() for p in made.model.parameters()])
    torch.testing.assert_close(gradient, objective.risk.evaluate().gradient, rtol=1e-12, atol=1e-15)
    scale = objective.lr / 4 * objective.strength
    plainloop.penalised(made.model, blocks, scale, objective.eps)
    gradient = torch.cat([p.grad.flatten() for p in made.model.parameters()])
    torch.testing.assert_close(gradient, objective.evaluate().gradient, rtol=1e-9, atol=1e-12)


def test_a_side_times_sweeps_in_a_process_of_its_own(tmp_path):
    config = _config(tmp_path, block=16)
    with Side(ours, config, 32) as mine, Side(plain, config, 32) as theirs:
        for side in (mine, theirs):
            found = side.turn(Case(True, "none"))
            assert 0 < found.seconds < 60
            assert side.peak(Case(False, "none")) > 2**26  # torch alone is more
        step = mine.turn(Case(True, "none", whole=True))
        assert 0 < step.framed < step.seconds


def test_what_goes_wrong_in_the_process_is_told(tmp_path):
    (tmp_path / "tiny.npz").unlink(missing_ok=True)
    refused("bench", "fb", "--data", f"npz:{tmp_path / 'tiny.npz'}", names=(tmp_path / "tiny.npz",))
    data = npz(tmp_path / "tiny.npz")
    refused("bench", "fb", "--data", data, "--rounds", "x", names=("--rounds", "'x'"))
    refused("bench", "fb", "--data", data, "--block", 4096, names=("4096", "48"))
    refused("bench", "nosuch", "--data", data, names=("nosuch", "fb-clipped"))


def test_work_counts_a_linear_models_flops(tmp_path):
    made = build(_config(tmp_path))
    found = work(made.config.recipe, made.model, made.train)
    pixels = made.train.images[0].numel()
    classes = int(made.train.labels.max()) + 1
    # a product of [1, pixels] and [pixels, classes]: a multiplication and an addition each; thrice for the backward
    assert found.gradient_flops == 3 * 2 * pixels * classes
    assert found.parameters == pixels * classes + classes
    assert found.flops == found.passes * len(made.train) * found.gradient_flops
    assert found.passes == 200
