"""What a plan says: formulas against numbers derived by hand, sizes against real models."""

from dataclasses import replace

import pytest
import torch
from small_runs import npz

from noiseless import models
from noiseless.cost.cost import Measured
from noiseless.cost.plan import LOOPBACK, MEETING, Figures, by_figures, by_measurement
from noiseless.cost.share import memory, share
from noiseless.cost.sizes import Sizes, sizes
from noiseless.data import Extent, extent, is_local, load
from noiseless.objective import parameter_space
from noiseless.recipes.config import Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.run.updates import make_optimizer
from noiseless.run.work import Work

P, S = 1_000_000, 100
SIZES = Sizes(
    Work(passes=10, examples=1000, gradient_flops=6e9, parameters=P, tensors=10),
    Extent(1000, 100, (3, 32, 32), 10), element=4, saved=1e6, statistics=S, state=1.0,
)  # fmt: skip
RECIPE = with_flags(Recipe(), steps=10, block=100)  # 10 blocks
ONE = Settings(chunk=1)
FIGURES = Figures(flops=6e12, memory_bandwidth=1e12, link_bandwidth=1e9)


def planned(workers=1, settings=ONE, figures=FIGURES, **changes):
    return by_figures(with_flags(RECIPE, **changes), settings, SIZES, workers, figures)


def test_a_step_of_four_workers_by_hand():
    plan = planned(4)
    # ceil(10 / 4) = 3 blocks are 300 examples
    assert (plan.share.own, plan.share.examples) == (3, 300)
    assert plan.seconds.compute == pytest.approx(300 * 6e9 / 6e12)  # 0.3 s
    assert plan.seconds.traffic == pytest.approx(5 * 300 * 1e6 / 1e12)  # 1.5 ms
    # a block: bins 3 * 8 bytes read and written, the gradient's 4 bytes read twice
    assert plan.seconds.exact_sum == pytest.approx(3 * 56e6 / 1e12)
    # bins 24 (P + S), six float64 numbers a block, one byte a chunk; a ring of 4 sends 2 * 3/4 of it
    assert plan.wire == pytest.approx(1.5 * (24 * 1_000_100 + 48 * 10 + 10))
    assert plan.seconds.all_reduce == pytest.approx(plan.wire / 1e9)
    # compute and traffic overlap
    assert plan.seconds.step == pytest.approx(0.3 + 168e-6 + 0.036004215)
    # 100 test images forward, a third of a gradient's FLOPs
    assert plan.evaluation == pytest.approx(100 * 2e9 / 6e12)
    assert plan.time == pytest.approx(10 * plan.seconds.step + 10 * plan.evaluation)
    assert (plan.passes, plan.flops, plan.seconds.limit) == (10, 10 * 1000 * 6e9, "compute")


@pytest.mark.parametrize(
    ("changes", "gradients", "sweeps"),
    [
        ({"penalty": 0.5}, 2, 1),  # a probe's gradient goes through the same sum
        ({"penalty": 0.5, "penalty_method": "central"}, 3, 1),
        ({"penalty": 0.5, "full_penalty": 0.5}, 3, 2),
        ({"sam": 0.1}, 2, 2),
        ({"sam": 0.1, "penalty": 0.5}, 4, 2),
    ],
)
def test_penalty_and_sam_cost_gradients_and_sweeps(changes, gradients, sweeps):
    plain, plan = planned(4), planned(4, **changes)
    assert plan.passes_a_step == gradients
    assert plan.seconds.compute == pytest.approx(gradients * plain.seconds.compute)
    assert plan.seconds.traffic == pytest.approx(gradients * plain.seconds.traffic)
    assert plan.seconds.exact_sum == pytest.approx(sweeps * plain.seconds.exact_sum)
    assert plan.wire == pytest.approx(sweeps * plain.wire)


def test_the_slowest_part_is_the_limit():
    assert planned(figures=Figures(6e12, memory_bandwidth=1e9)).seconds.limit == "traffic"
    assert planned(4, figures=Figures(6e15, 1e12, link_bandwidth=1e6)).seconds.limit == "all_reduce"
    assert planned(4, figures=Figures(6e12)).seconds.step == pytest.approx(0.3)  # what is not known is not counted


def test_one_worker_sends_nothing():
    assert (planned().wire, planned().seconds.all_reduce) == (0, 0)


def test_more_workers_compute_no_longer_and_are_idle_beyond_the_blocks():
    plans = [planned(workers) for workers in range(1, 14)]
    compute = [plan.seconds.compute for plan in plans]
    assert compute == sorted(compute, reverse=True)
    # ceil(10 / W) for W = 1 ... 13
    assert [plan.share.own for plan in plans] == [10, 5, 4, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1]
    assert [plan.idle for plan in plans[8:]] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("block", "chunk", "workers", "expected"),
    [
        # 1000 examples, blocks of 96: 10 full ones and one of 40
        (96, 1, 1, (11, 11, 11, 1000)),
        (96, 1, 4, (11, 11, 3, 288)),
        (96, 4, 1, (11, 4, 11, 1000)),  # chunks of 4, 4, 2, and the short one
        (96, 4, 2, (11, 4, 8, 768)),
        (96, 4, 4, (11, 4, 4, 384)),
        (1000, 1, 8, (1, 1, 1, 1000)),
    ],
)
def test_shares_of_blocks_that_workers_do_not_divide(block, chunk, workers, expected):
    result = share(with_flags(RECIPE, block=block), 1000, chunk, workers)
    assert (result.blocks, result.chunks, result.own, result.examples) == expected


def test_copies_draws_and_dropped_blocks_count():
    assert share(with_flags(RECIPE, copies=3), 1000, 1, 1).examples == 3000
    assert share(with_flags(RECIPE, max_up=2), 1000, 1, 1).examples == 2000
    assert share(with_flags(RECIPE, block=96, drop_last=True), 1000, 1, 1).examples == 960


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"block": 2000}, "block 2000 is larger than the 1000 examples: choose at most 1000"),
        ({"norm_block": 33}, "norm_block 33 must divide block 100"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(flags, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        share(with_flags(RECIPE, **flags), 1000, 1, 1)


def test_a_stochastic_update_is_one_block_of_one_worker():
    plan = planned(4, regime="stochastic", shuffle=True)
    assert (plan.idle, plan.share.updates, plan.share.examples) == (3, 10, 1000)
    # 10 all-reduces, each of the numbers of one block in one chunk
    assert plan.wire == pytest.approx(10 * 1.5 * (24 * 1_000_100 + 41))


def test_an_update_from_a_part_is_shared_and_has_its_own_sum():
    plain, plan = planned(2), planned(2, parts=3)
    # the largest part has 334 examples in 4 blocks, 2 for each of 2 workers
    assert (plan.share.blocks, plan.share.updates, plan.share.own, plan.share.examples) == (4, 3, 6, 600)
    assert plan.wire == pytest.approx(3 * (24 * 1_000_100 + 48 * 4 + 4))
    assert plan.seconds.exact_sum / plain.seconds.exact_sum == pytest.approx(6 / 5)
    assert plan.passes == plain.passes
    assert (plain.memory.parts, plan.memory.parts) == (0, 3 * 4 * P)
    assert plan.memory.total - plain.memory.total == 3 * 4 * P
    fewer = planned(parts=20, settings=Settings(chunk=2)).memory  # one short block of 50 images an update
    assert (fewer.block_gradients, fewer.activations) == (4 * P, 50 * 1e6)
    with pytest.raises(ValueError, match="parts 1001 is larger than the 1000 images"):
        planned(parts=1001)


def test_a_switch_is_the_mean_over_its_steps():
    plan = planned(4, regime="switch", switch=4)
    first, then = planned(4, regime="stochastic"), planned(4)
    for value, parts in (
        (plan.seconds.step, (first.seconds.step, then.seconds.step)),
        (plan.wire, (first.wire, then.wire)),
    ):
        assert value == pytest.approx(0.4 * parts[0] + 0.6 * parts[1])


def test_memory_by_hand():
    usage = planned(4, settings=Settings(chunk=2), penalty=0.5, ema=0.9).memory
    # chunks of 2 blocks; forward differences hold a gradient, a point and the gradient there for each block
    assert (usage.parameters, usage.gradient, usage.optimizer, usage.average) == (4 * P,) * 4
    assert (usage.bins, usage.block_gradients) == (24 * P, 2 * 3 * 4 * P)
    assert usage.activations == 2 * 100 * 1e6
    assert usage.data == 1100 * (3 * 32 * 32 + 8)  # bytes of pixels, labels of 8 bytes
    assert usage.total == 16 * P + 24 * P + 24 * P + 200_000_000 + usage.data
    large = replace(SIZES, data=extent("imagenet", None, 224))
    assert memory(RECIPE, large, share(RECIPE, large.data.train, 1, 1), 1).data == 0  # it stays on disk


def test_a_measurement_is_shared_among_workers():
    measured = Measured(step=1.1, evaluation=0.5, fixed=0.1, checkpoint=0.2)
    alone = by_measurement(RECIPE, ONE, SIZES, 1, measured)
    assert alone.seconds.step == pytest.approx(1.1)
    assert alone.time == pytest.approx(10 * 1.1 + 10 * 0.5 + 2 * 0.2)  # a checkpoint first and last
    four = by_measurement(RECIPE, ONE, SIZES, 4, measured, room=4)
    assert four.seconds.compute == pytest.approx(0.35)  # 3 of 10 blocks, and half a block until the last one is done
    assert four.seconds.step == pytest.approx(0.35 + 0.1 + MEETING + four.wire / LOOPBACK)
    crowded = by_measurement(RECIPE, ONE, SIZES, 4, measured, room=2)
    assert crowded.seconds.compute == pytest.approx(0.7)


@pytest.mark.parametrize("name", ["resnet8", "densenet121", "linear"])
def test_sizes_without_values_are_those_of_a_real_model(name):
    data = Extent(100, 10, (3, 32, 32), 7)
    planned_sizes = sizes(with_flags(Recipe(), model=name), data)
    model = models.build(name, 3, 7, size=(32, 32))
    assert planned_sizes.work.parameters == len(parameter_space(model))

    def saved_bytes(n):
        module_storages = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
        tensors = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: tensors.append(t) or t, lambda t: t):
            model(torch.randn(n, 3, 32, 32))
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(count for pointer, count in storages.items() if pointer not in module_storages)

    assert planned_sizes.saved == pytest.approx((saved_bytes(6) - saved_bytes(2)) / 4, rel=0.01)


def test_sizes_of_a_linear_model_by_hand():
    planned_sizes = sizes(with_flags(Recipe(), model="linear"), Extent(5, 5, (1, 8, 8), 10))
    # 64 inputs, 10 outputs: a product of 2 * 640 FLOPs, and two for its backward; it saves its input
    assert (planned_sizes.work.parameters, planned_sizes.work.gradient_flops, planned_sizes.saved) == (
        650, 3 * 1280, 4 * 64,
    )  # fmt: skip
    doubled = sizes(with_flags(Recipe(), model="linear", dtype="float64"), Extent(5, 5, (1, 8, 8), 10))
    assert (doubled.saved, doubled.element) == (8 * 64, 8)


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [("SGD", 1), ("AdamW", 2), ("LBFGS", 202), ("DampedLBFGS", 22)],  # L-BFGS: 100 and 10 pairs of vectors
)
def test_the_size_of_an_optimizers_state(optimizer, state):
    recipe = with_flags(Recipe(), model="linear", optimizer=optimizer)
    assert sizes(recipe, Extent(5, 5, (1, 8, 8), 10)).state == state
    model = models.build("linear", 1, 10, size=(8, 8)).double()
    stepped, parameters = make_optimizer(recipe, model), list(model.parameters())
    curvatures = [torch.linspace(0.1, 1, p.numel(), dtype=p.dtype).view_as(p) for p in parameters]

    def closure():
        for p, curvature in zip(parameters, curvatures, strict=True):
            p.grad = (curvature * p).detach() + 1
        return torch.zeros(())

    for _ in range(110):  # more than the pairs that L-BFGS keeps
        stepped.step(closure)
    pending, numbers = list(stepped.state.values()), 0
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            numbers += value.numel() if value.numel() > 1 else 0  # without counters and other scalars
        elif isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
    assert numbers == state * sum(p.numel() for p in parameters)


def test_published_extents_are_those_of_the_data_sets(tmp_path):
    loaded = load("digits")
    assert extent("digits") == Extent(len(loaded.x_train), len(loaded.x_test), (1, 8, 8), loaded.classes)
    assert extent("cifar10", tmp_path) == Extent(50_000, 10_000, (3, 32, 32), 10)
    assert extent("imagenet", tmp_path, 224) == Extent(1_281_167, 50_000, (3, 224, 224), 1000)
    assert extent("digits", None, 6).shape == (1, 6, 6)
    path = npz(tmp_path / "tiny.npz")
    assert extent(path) == Extent(48, 20, (1, 8, 8), 4)
    with pytest.raises(ValueError, match="--pixels"):
        extent("imagenet", tmp_path)
    assert is_local("digits", tmp_path)
    assert is_local(path, tmp_path)
    assert not is_local("cifar10", tmp_path)
    assert not is_local("imagenet", tmp_path, 224)
