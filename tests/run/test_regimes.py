"""Regimes: which examples each step has, in which order and view, and what it costs in passes."""

import copy
from dataclasses import replace

import pytest
import small_runs
import torch
import torch.nn.functional as F
from small_runs import IMAGES, examples_of_step, prepare, small_recipe

from noiseless import keyed
from noiseless.optim import take_step
from noiseless.recipes.flags import with_flags


def ordered(images):
    """The rows of [n, ...] in an order that depends on their contents alone."""
    flat = images.flatten(1)
    return torch.stack(sorted(flat, key=lambda image: image.tolist()))


def plain(data):
    """The normalised training images of a data set, without augmentation, in their order."""
    experiment = prepare(small_recipe(data, "fb", augment="none"))
    return experiment.train.take(torch.arange(IMAGES))


@pytest.mark.parametrize("name", ["fb", "fb-regularized"])
def test_the_full_batch_is_one_objective_with_each_example_once_in_order(data, name):
    experiment = prepare(small_recipe(data, name, augment="none"))
    for step in (0, 2):
        (examples,) = examples_of_step(experiment, step)
        assert all(map(torch.equal, examples, plain(data)))


def test_blocks_have_the_size_of_the_recipe_and_the_last_may_be_short(data):
    experiment = prepare(small_recipe(data, "fb", augment="none", block=20))
    (objective,) = experiment.regime.objectives(0)
    assert [chunk.index.shape[1] for chunk in objective.blocks.chunks(1)] == [20, 20, 8]


def test_fresh_augmentation_differs_each_step_and_is_a_function_of_the_step(data):
    experiment = prepare(small_recipe(data, "fb", padding=1))
    first, second = examples_of_step(experiment, 0)[0][0], examples_of_step(experiment, 1)[0][0]
    changed = (first != second).flatten(1).any(1).double().mean()
    # a crop has 9 places, so 1 image in 9 stays where it is: far from 48 of 48, far from none
    assert changed > 0.7
    assert torch.equal(examples_of_step(experiment, 1)[0][0], second)
    assert not torch.equal(examples_of_step(prepare(small_recipe(data, "fb", padding=1, seed=1)), 1)[0][0], second)


def test_a_fixed_set_of_copies_repeats_and_holds_that_many_views_of_each_image(data):
    experiment = prepare(small_recipe(data, "fb", padding=1, copies=3))
    ((images, labels),) = examples_of_step(experiment, 0)
    assert len(images) == 3 * IMAGES
    assert torch.equal(examples_of_step(experiment, 5)[0][0], images)
    copies = images.reshape(3, IMAGES, *images.shape[1:])
    assert not torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[1], copies[2])
    assert torch.equal(labels.reshape(3, IMAGES)[2], plain(data)[1])


def test_a_stochastic_step_visits_one_copy_of_a_fixed_set_in_turn(data):
    fixed = prepare(small_recipe(data, "fb", padding=1, copies=2))
    copies = examples_of_step(fixed, 0)[0][0].reshape(2, IMAGES, -1)
    stochastic = prepare(small_recipe(data, "sgd", padding=1, copies=2))
    for step in range(3):
        visited = torch.cat([images for images, _ in examples_of_step(stochastic, step)])
        assert torch.equal(ordered(visited), ordered(copies[step % 2]))


def test_shuffling_gives_the_same_examples_in_another_order_each_step(data):
    experiment = prepare(small_recipe(data, "fb-practice", augment="none"))
    images, labels = plain(data)
    orders = [examples_of_step(experiment, step)[0] for step in range(3)]
    for shuffled, _ in orders:
        assert torch.equal(ordered(shuffled), ordered(images))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(orders, [*orders[1:], (images, labels)], strict=True))
    order = keyed.permutation(0, "shuffle", 1, IMAGES)
    assert torch.equal(orders[1][1], labels[order])


@pytest.mark.parametrize("changes", [{}, {"shuffle": True}, {"copies": 2}, {"max_up": 2, "padding": 1}])
def test_parts_hold_each_example_once_and_are_the_same_in_each_step(data, changes):
    plain_images = {} if "max_up" in changes else {"augment": "none"}
    recipe = small_recipe(data, "fb", parts=5, **plain_images, **changes)
    (full_batch,) = examples_of_step(prepare(with_flags(recipe, parts=1)), 1)
    experiment = prepare(recipe)
    steps = [examples_of_step(experiment, step) for step in range(3)]
    sizes = {"copies": [20, 19, 19, 19, 19], "max_up": [20, 20, 20, 18, 18]}
    for parts in steps:
        assert [len(labels) for _, labels in parts] == sizes.get(next(iter(changes), ""), [10, 10, 10, 9, 9])
    assert torch.equal(ordered(torch.cat([images for images, _ in steps[1]])), ordered(full_batch[0]))
    if "max_up" in changes:  # draws of an image stay together
        for images, labels in steps[1]:
            assert torch.equal(labels[::2], labels[1::2])
            assert not torch.equal(images[::2], images[1::2])
        return
    for part in range(5):
        assert torch.equal(ordered(steps[0][part][0]), ordered(steps[2][part][0]))
        assert torch.equal(steps[0][part][0], steps[2][part][0]) == ("shuffle" not in changes)
    others = examples_of_step(prepare(replace(recipe, seed=1)), 0)
    assert not torch.equal(ordered(steps[0][0][0]), ordered(others[0][0]))


def _step(experiment, step):
    """Takes all updates of a step; returns their results."""
    state, updates = None, []
    for objective in experiment.regime.objectives(step):
        updates.append(take_step(experiment.optimizer, objective, experiment.transform, state, step))
        state = updates[-1].transformed
    return updates


AT_REST = {
    "augment": "none", "lr": 1e-300, "weight_decay": 0.0, "momentum": 0.0, "warmup": 0, "schedule": "constant",
    "dtype": "float64",
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"shuffle": True, "copies": 2}, {"penalty": 0.5, "penalty_method": "exact"}])
def test_while_parameters_do_not_move_the_parts_sum_to_the_full_batchs_gradient(data, changes):
    # block 1: with a penalty, too, the mean over examples does not depend on how they are divided
    recipe = small_recipe(data, "fb", norm="group", block=1, parts=5, **AT_REST, **changes)
    experiment, full_batch = prepare(recipe), prepare(with_flags(recipe, parts=1))
    updates = _step(experiment, 1)
    (expected,) = full_batch.regime.objectives(1)
    # float64: only the order of sums differs
    torch.testing.assert_close(
        torch.cat([p.grad.flatten() for p in experiment.space.parameters]), expected.evaluate().gradient,
        rtol=1e-9, atol=1e-12,
    )  # fmt: skip
    assert len(updates) == 5
    assert sum(update.evaluation.count for update in updates) == IMAGES * max(1, recipe.data.copies)


def test_after_all_parts_the_running_statistics_are_the_mean_over_all_examples(data):
    experiment = prepare(small_recipe(data, "fb", block=16, norm_block=8, parts=5, **AT_REST))
    buffers = {name: b for name, b in experiment.model.named_buffers() if "running" in name}
    expected = {name: torch.zeros_like(b) for name, b in buffers.items()}
    for objective in experiment.regime.objectives(0):
        part = objective.at(replace(objective.selection, before=0))
        evaluation = part.evaluate()
        part.accept(evaluation)
        for name, b in buffers.items():
            expected[name] += b * evaluation.count / IMAGES
    for b in buffers.values():
        b.fill_(1e6)  # what was there before the step does not stay
    _step(experiment, 0)
    for name, b in buffers.items():
        torch.testing.assert_close(b, expected[name], rtol=1e-9, atol=1e-12)


def test_the_stochastic_regime_visits_each_example_once_a_step_in_another_order(data):
    experiment = prepare(small_recipe(data, "sgd", augment="none", block=20))
    images, _ = plain(data)
    steps = [examples_of_step(experiment, step) for step in range(2)]
    for parts in steps:
        assert [len(x) for x, _ in parts] == [20, 20, 8]
        assert torch.equal(ordered(torch.cat([x for x, _ in parts])), ordered(images))
    assert not torch.equal(steps[0][0][0], steps[1][0][0])


def test_with_replacement_examples_are_keyed_draws(data):
    experiment = prepare(small_recipe(data, "sgd", augment="none", replacement=True))
    images, _ = plain(data)
    for step in (0, 1):
        drawn = keyed.integers(0, "replacement", step, torch.arange(IMAGES), IMAGES)
        assert torch.equal(torch.cat([x for x, _ in examples_of_step(experiment, step)]), images[drawn])
        assert len(drawn.unique()) < IMAGES


def test_the_regime_switches_at_its_step(data):
    experiment = prepare(small_recipe(data, "sgd", regime="switch", switch=2))
    assert [len(examples_of_step(experiment, step)) for step in range(4)] == [3, 3, 1, 1]


@pytest.mark.parametrize(
    ("name", "changes", "passes"),
    [
        ("sgd", {}, 1),
        ("sgd", {"block": 20}, 1),
        ("sgd", {"replacement": True}, 1),
        ("sgd", {"copies": 3}, 1),
        ("sgd", {"penalty": 0.5}, 2),
        ("fb", {}, 1),
        ("fb", {"copies": 3}, 3),
        ("fb-clipped", {}, 1),
        ("fb-practice", {}, 2),
        ("fb-practice", {"copies": 3}, 6),
        # "the full gradient's penalty needs a sweep to get g first; cost 3 passes" (PAPER.md)
        ("fb-practice", {"full_penalty": 0.5}, 3),
        ("fb-practice", {"penalty_method": "central"}, 3),
        ("fb", {"parts": 5}, 1),
        ("fb-practice", {"parts": 3, "copies": 3}, 6),
    ],
)
def test_passes_of_a_step(data, name, changes, passes):
    experiment = prepare(small_recipe(data, name, **changes))
    spent = sum(
        take_step(experiment.optimizer, objective, experiment.transform, None, 1).passes
        for objective in experiment.regime.objectives(1)
    )
    assert spent == pytest.approx(passes, rel=1e-12)  # thirds of a pass do not add up exactly in binary


def test_a_run_counts_its_passes_over_the_switch(data, tmp_path):
    recipe = small_recipe(data, "sgd", regime="switch", switch=1, copies=2)
    rows = small_runs.run(tmp_path / "run", recipe).rows()
    assert [row["passes"] for row in rows] == [1, 3, 5]


@pytest.mark.parametrize("max_up", [1, 2])
def test_a_block_may_hold_all_examples_of_an_update_and_no_more(data, max_up):
    block = IMAGES * max_up
    experiment = prepare(small_recipe(data, "sgd", block=block, max_up=max_up))
    assert [len(x) for x, _ in examples_of_step(experiment, 0)] == [block]
    with pytest.raises(ValueError, match=f"block {block + max_up} is larger than the {block} examples"):
        prepare(small_recipe(data, "sgd", block=block + max_up, max_up=max_up))


@pytest.mark.parametrize(
    ("model", "changes"), [("linear", {}), ("speednet128", {"norm": "none"}), ("resnet8", {"norm": "group"})]
)
def test_a_stochastic_run_of_a_model_without_batch_norm_is_a_loop_of_torchs_sgd(data, tmp_path, model, changes):
    recipe = small_recipe(
        data, "sgd", model=model, augment="none", shuffle=False, schedule="constant", warmup=0, lr=0.05, steps=2,
        dtype="float64", **changes,
    )  # fmt: skip
    experiment = prepare(recipe)
    module, (x, y) = copy.deepcopy(experiment.model), experiment.train.take(torch.arange(IMAGES))
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(2):
        for images, labels in zip(x.split(16), y.split(16), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(module(images), labels).backward()
            optimizer.step()
    state = small_runs.run(tmp_path / "run", recipe).state()
    for name, expected in module.state_dict().items():
        # float64: only the order of sums differs
        torch.testing.assert_close(state[name], expected, rtol=1e-9, atol=1e-12)
