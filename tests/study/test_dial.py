"""Arms of a dial: the same updates and rates in every arm, one source of noise in each."""

import pytest
import torch

from noiseless import keyed
from noiseless.objective import EmpiricalRisk, squared_error
from noiseless.recipes.flags import differing, with_flags
from noiseless.recipes.ladder import row
from noiseless.run.regimes import Stochastic
from noiseless.run.updates import make_schedule
from noiseless.study.dial import arms

IMAGES = 128
RECIPE = with_flags(row("fb"), steps=32, warmup=0, horizon=32, block=8)


def by_name(*args, **options):
    return {arm.name: arm for arm in arms(*args, **options)}


def rates(arm):
    """The learning rate of each update."""
    schedule, updates = make_schedule(arm.recipe), arm.updates_a_step
    return [schedule(step + k / updates) for step in range(arm.recipe.schedule.steps) for k in range(updates)]


@pytest.mark.parametrize(
    ("schedule", "warmup"),
    [("cosine", 0), ("cosine-floor", 0), ("constant", 8), ("exponential", 8), ("exponential", 0), ("multi-step", 8)],
)
def test_every_arm_has_the_same_rate_at_each_update(schedule, warmup):
    decay = 0.9 if schedule == "exponential" else 0.99
    planned = arms(with_flags(RECIPE, schedule=schedule, warmup=warmup, horizon=40, decay=decay), IMAGES)
    reference = rates(planned[0])
    assert len(reference) == 32
    assert {arm.updates_a_step for arm in planned} == {1, 2, 4, 8}
    for arm in planned:
        assert rates(arm) == pytest.approx(reference, rel=1e-12), arm.name


def test_each_arm_switches_one_source_on():
    planned = by_name(RECIPE, IMAGES)
    assert list(planned) == [
        "full batch", "sampling, 64", "sampling, 32", "sampling, 16", "norm blocks", "augmentation", "fixed copies",
        "rounding", "all, 16",
    ]  # fmt: skip
    quiet = planned["full batch"].recipe
    changed = {name: set(differing(quiet, arm.recipe)) - {"name"} for name, arm in planned.items()}
    schedule = {"steps", "horizon"}
    assert changed["sampling, 32"] == {"regime", "block", "shuffle", "draw"} | schedule
    assert changed["norm blocks"] == {"shuffle"}
    assert changed["augmentation"] == {"augment"}
    assert changed["fixed copies"] == {"augment", "copies"}
    assert changed["rounding"] == {"autocast"}
    assert changed["all, 16"] == {"regime", "block", "shuffle", "augment"} | schedule


def test_without_batch_norm_or_augmentation_these_sources_are_left_out():
    planned = by_name(with_flags(RECIPE, augment="none"), IMAGES, batch_norm=False)
    assert list(planned) == ["full batch", "sampling, 64", "sampling, 32", "sampling, 16", "rounding", "all, 16"]
    assert planned["sampling, 32"].recipe.objective.draw == "examples"


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        ({"penalty": 0.5}, {}, "--penalty 0.5 acts on blocks"),
        ({"max_up": 2}, {}, "--max-up 2 acts on blocks"),
        ({"block_clip": 1.0}, {}, "--block-clip 1 acts on blocks"),
        ({}, {"batches": [24]}, "6 updates in a pass .* do not divide --steps 32"),
        ({"steps": 128, "horizon": 128}, {"batches": [4]}, "must be a multiple of the 8 examples"),
        ({}, {"batches": [128]}, "smaller than the 128 training images"),
        ({"steps": 7, "horizon": 7}, {}, "must be even"),
        ({"steps": 4, "horizon": 4}, {"batches": [64]}, "fewer than 4 passes"),
        ({"warmup": 3, "schedule": "constant"}, {"batches": [64]}, "do not divide --warmup 3"),
        ({"warmup": 8}, {}, "give --warmup 0"),
        ({"compat": "published"}, {}, "--compat published counts steps"),
    ],
)
def test_what_no_dial_can_have_is_refused(flags, options, message):
    with pytest.raises(ValueError, match=message):
        arms(with_flags(RECIPE, **flags), IMAGES, **options)


@pytest.mark.parametrize("replacement", [False, True])
def test_norm_blocks_are_drawn_whole(replacement):
    """22 images in units of 4: five whole units in a keyed order, and the rest of two last."""
    x = torch.arange(22.0)[:, None]
    risk = EmpiricalRisk(torch.nn.Linear(1, 1), squared_error, (x, x), block=8, norm_block=4, statistics="ema")
    regime = Stochastic(
        risk, lambda step: risk.selection.examples, lambda risk, time: risk, seed=3, replacement=replacement, unit=4
    )
    orders = [torch.cat([one.selection.numbers for one in regime.objectives(step)]) for step in (0, 1)]
    for step, order in enumerate(orders):
        units = order[:20].view(5, 4)
        assert torch.equal(units, units[:, :1] + torch.arange(4)), "a unit was cut"
        assert torch.equal(order[20:], torch.tensor([20, 21]))
        drawn = (
            keyed.integers(3, "replacement", step, torch.arange(5), 5) if replacement
            else keyed.permutation(3, "shuffle", step, 5)
        )  # fmt: skip
        assert torch.equal(units[:, 0] // 4, drawn)
    assert not torch.equal(*orders)
