"""What a run will cost: passes against those of the record, and seconds by a clock that the tests set.

benchmarks/plan.py compares planned seconds with those of real runs.
"""

from types import SimpleNamespace

import pytest
import torch
from small_runs import npz, prepare, run, small_recipe

from noiseless import optim
from noiseless.cost import cost
from noiseless.cost.cost import Measured, measure, seconds, timing_key
from noiseless.objective import risk_of
from noiseless.objective.risk import Blockwise
from noiseless.recipes.ladder import LADDER, row
from noiseless.run.work import passes_a_step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sgd", {}),
        ("sgd", {"copies": 3}),
        ("fb", {"copies": 3}),
        ("fb", {"copies": 3, "parts": 4}),
        ("fb-regularized", {}),
        ("fb-regularized", {"full_penalty": 0.1}),
        ("fb-regularized", {"penalty_method": "central", "copies": 2}),
    ],
)
def test_the_passes_of_a_step_are_those_of_the_record(data, tmp_path, name, changes):
    recipe = small_recipe(data, name, steps=2, **changes)
    assert [r["passes"] for r in run(tmp_path / "run", recipe).rows()] == [
        passes_a_step(recipe), 2 * passes_a_step(recipe),
    ]  # fmt: skip


class Clock:
    """A clock that work advances by set times: 3 ms for a sweep, and 2 ms for each block in it."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: self.now))
        sweep, step = Blockwise.evaluate, torch.optim.SGD.step
        updates = iter([0.5])  # the first update takes longer: it allocates

        def evaluate(risk):
            self.now += 0.003 + 0.002 * len(list(risk_of(risk).blocks.chunks(1)))
            return sweep(risk)

        def take_step(*arguments):
            self.now += next(updates, 0.02)
            return optim.take_step(*arguments)

        monkeypatch.setattr(Blockwise, "evaluate", evaluate)
        monkeypatch.setattr(cost, "take_step", take_step)
        monkeypatch.setattr(torch.optim.SGD, "step", self.advancing(0.00025, step))
        monkeypatch.setattr(cost, "score", self.advancing(0.004, cost.score))
        monkeypatch.setattr(cost, "save", self.advancing(0.7, cost.save))

    def advancing(self, seconds, function):
        def call(*arguments, **options):
            self.now += seconds
            return function(*arguments, **options)

        return call


@pytest.mark.parametrize(
    ("name", "changes", "step", "fixed"),
    [
        # 48 images in blocks of 16; an update takes 0.25 ms
        ("fb", {}, 3 + 3 * 2 + 0.25, 3 + 0.25),
        # from the first one and the first four of 6 blocks, and of 24
        ("fb", {"copies": 2}, 3 + 6 * 2 + 0.25, 3 + 0.25),
        ("fb", {"copies": 8}, 3 + 24 * 2 + 0.25, 3 + 0.25),
        # each part is one block, which does not show the fixed time of a sweep
        ("fb", {"parts": 3}, 3 * (5 + 0.25), 3 * 0.25),
        # 3 updates, each with a step of the optimizer; the first measured one is left out
        ("sgd", {}, 3 * (20 + 5 + 0.25), 0),
    ],
)
def test_a_step_is_measured_on_a_part_of_it(data, monkeypatch, name, changes, step, fixed):
    experiment = prepare(small_recipe(data, name, **changes), chunk=1)
    Clock(monkeypatch)
    measured = measure(experiment)
    assert 1000 * measured.step == pytest.approx(step)
    assert 1000 * measured.fixed == pytest.approx(fixed)
    assert measured.evaluation == pytest.approx(0.004)  # all 20 test images at once
    assert measured.checkpoint == pytest.approx(0.7)


@pytest.mark.parametrize(("name", "parts"), [("sgd", 1), ("fb-strong", 1), ("fb", 6)])
def test_measuring_changes_nothing(data, name, parts):
    experiment = prepare(small_recipe(data, name, steps=20, parts=parts))
    before = {key: tensor.clone() for key, tensor in experiment.model.state_dict().items()}
    measured = measure(experiment, least=0.01)
    for key, tensor in experiment.model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    assert not experiment.optimizer.state
    assert min(measured.step, measured.evaluation, measured.checkpoint) > 0


def test_rows_whose_steps_do_the_same_work_are_measured_once():
    rows = [row(name) for name in LADDER]
    kinds = {timing_key(r) for r in rows}
    # sgd; fb, longer and clipped; regularized; strong; practice, whose blocks are cut at each step
    assert len(kinds) == 5
    assert timing_key(row("fb")) == timing_key(row("fb-clipped")) != timing_key(row("fb-regularized"))
    assert timing_key(row("fb")) != timing_key(row("fb", data="mnist-5k"))


def test_a_measurement_is_scaled_to_the_steps_and_evaluations_of_a_run(data):
    config = prepare(small_recipe(data, "fb", steps=20)).config  # evaluated every other step
    assert seconds(config.recipe, config.settings, Measured(step=3.0, evaluation=0.5)) == 20 * 3.0 + 10 * 0.5


def test_checkpoints_are_counted_from_the_seconds_of_the_steps(data):
    config = prepare(small_recipe(data, "fb", steps=20), checkpoint_seconds=15).config
    # 20 steps of 3 s and 10 evaluations of 0.5 s are 65 s: first, last, and four in between
    measured = Measured(step=3.0, evaluation=0.5, checkpoint=0.25)
    assert seconds(config.recipe, config.settings, measured) == 65 + 6 * 0.25
    always = prepare(small_recipe(data, "fb", steps=20), checkpoint_seconds=0).config
    assert seconds(always.recipe, always.settings, measured) == 65 + 21 * 0.25
