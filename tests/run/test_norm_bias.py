"""The norm bias in a run: it pulls the parameters' norm to its target, before the clip."""

import pytest
import torch
from small_runs import prepare, run, small_recipe

from noiseless.files import checkpoint

LR, STRENGTH, TARGET, CLIP = 0.1, 0.7, 2.0, 0.5


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_a_step_descends_the_loss_and_moves_the_norm_to_its_target(kind, data, tmp_path):
    changes = {"dtype": "float64", "augment": "none", "steps": 1, "warmup": 0, "lr": LR, "schedule": "constant"}
    changes |= {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "clip": CLIP}
    bias = {"norm_bias": STRENGTH, "norm_target": TARGET, "norm_bias_type": kind}
    directory = run(tmp_path / "run", small_recipe(data, "fb", **changes, **bias), keep=9)
    plain = prepare(small_recipe(data, "fb", **changes))
    names, gradient = plain.space.names, next(iter(plain.regime.objectives(0))).evaluate().gradient
    states = [checkpoint.read(directory.checkpoints / f"step-0000000{t}.json")[1]["model"] for t in (0, 1)]
    before, after = (torch.cat([state[name].flatten() for name in names]) for state in states)
    norm = before.norm(p=1) if kind == "l1" else before.norm()
    slope = before.sign() if kind == "l1" else before / norm
    biased = gradient + STRENGTH * (norm - TARGET) * slope
    assert biased.norm() > CLIP
    expected = before - LR * biased * CLIP / (biased.norm() + 1e-6)
    torch.testing.assert_close(after, expected, rtol=1e-10, atol=1e-12)  # float64
    row = directory.rows()[0]
    assert row["clipped"] == 1
    assert row["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-10)  # of the loss alone
