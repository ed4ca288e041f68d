"""Augmented runs: policies, fixed sets and a last block that is left out, against naive loops and by command."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from oracles import ROUNDING
from small_runs import IMAGES, arrays, call, examples_of_step, npz, prepare, record, refused, resume, run, small_recipe

from noiseless import keyed
from noiseless.data import Images, crop_flip, make_policy
from noiseless.files.directory import RunDirectory
from noiseless.objective import Blocks, cross_entropy
from noiseless.optim import take_step

POLICIES = {"rand": "num_ops=1,magnitude=5", "auto": "policy=SVHN", "trivial": "", "augmix": "mixture_width=2"}


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """The value of --data for the tiny data set in three channels."""
    coloured = {}
    for part in ("train", "test"):
        grey = arrays()[f"x_{part}"]
        coloured[f"x_{part}"] = np.stack([grey, grey[:, ::-1], 255 - grey], -1)
    return npz(tmp_path_factory.mktemp("colour") / "colour.npz", **coloured)


def normalised(experiment, pixels):
    recipe = experiment.config.recipe
    return (pixels.double() / 255 - recipe.data.mean[0]) / recipe.data.std[0]


def assert_agree(actual, naive):
    assert actual.loss == pytest.approx(naive.loss, rel=1e-11)
    torch.testing.assert_close(actual.gradient, naive.gradient, rtol=1e-9, atol=1e-11)  # through 8 layers, see ROUNDING
    torch.testing.assert_close(actual.block_square_norms, naive.block_square_norms, rtol=1e-9, atol=ROUNDING["atol"])
    assert actual.hits == naive.hits


# what a policy sees


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_applies_the_policy_then_crop_and_flip_under_the_step_s_key(data, policy):
    options = {"policy": policy, "policy_options": POLICIES[policy], "seed": 3, "padding": 1, "dtype": "float64"}
    experiment = prepare(small_recipe(data, "fb", **options))
    index, images = torch.arange(IMAGES), experiment.train.images
    arguments = {"rand": {"num_ops": 1, "magnitude": 5}, "auto": {"policy": "SVHN"}, "augmix": {"mixture_width": 2}}
    augment = make_policy(policy, 1, **arguments.get(policy, {}))
    for step in (0, 2):
        ((augmented, _),) = examples_of_step(experiment, step)
        pixels = crop_flip(augment(images, 3, step, index), 3, step, index, 1, 0.0)
        torch.testing.assert_close(augmented, normalised(experiment, pixels), rtol=1e-14, atol=1e-14)
    test_images, _ = experiment.test.take(torch.arange(20))  # these are not augmented
    torch.testing.assert_close(test_images, normalised(experiment, experiment.test.images), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["fb-practice", "sgd"])
def test_augmented_images_do_not_depend_on_the_chunk(data, name):
    expected = None
    for chunk in (1, 2, 3):
        experiment = prepare(small_recipe(data, name, policy="rand"), chunk=chunk)
        parts = []
        for objective in experiment.regime.objectives(1):
            risk = getattr(objective, "risk", objective)
            parts += [risk.selection.examples.take(c.index)[0].flatten(0, 1) for c in risk.blocks.chunks(chunk)]
        expected = torch.cat(parts) if expected is None else expected
        assert torch.equal(torch.cat(parts), expected)


def test_copies_with_a_policy_are_a_fixed_set_whose_first_copy_may_be_clean(data):
    changes = {"policy": "trivial", "copies": 3, "padding": 1}
    ((drawn, _),) = examples_of_step(prepare(small_recipe(data, "fb", **changes)), 0)
    experiment = prepare(small_recipe(data, "fb", first_clean=True, **changes))
    ((clean, _),) = examples_of_step(experiment, 0)
    assert torch.equal(examples_of_step(experiment, 7)[0][0], clean)
    plain = prepare(small_recipe(data, "fb", augment="none")).train.take(torch.arange(IMAGES))[0]
    assert torch.equal(clean[:IMAGES], plain)
    assert not torch.equal(drawn[:IMAGES], plain)
    assert torch.equal(clean[IMAGES:], drawn[IMAGES:])
    assert not torch.equal(clean[IMAGES : 2 * IMAGES], clean[2 * IMAGES :])


def test_the_stochastic_baseline_visits_one_copy_an_epoch_in_a_new_order_each_time(data):
    fixed = prepare(small_recipe(data, "fb", policy="rand", copies=2, first_clean=True))
    copies = examples_of_step(fixed, 0)[0][0].reshape(2, IMAGES, 1, 8, 8)
    stochastic = prepare(small_recipe(data, "sgd", policy="rand", copies=2, first_clean=True))
    for step in range(4):
        visited = torch.cat([images for images, _ in examples_of_step(stochastic, step)])
        assert torch.equal(visited, copies[step % 2][keyed.permutation(0, "shuffle", step, IMAGES)])


def test_a_forty_fold_set_of_the_size_of_cifar_stores_an_order_and_no_copies():
    pixels = torch.arange(50_000).remainder(256).to(torch.uint8).reshape(-1, 1, 1, 1)
    images = Images(pixels, torch.arange(50_000), (0.0,), (1.0,), copies=40)
    order = keyed.permutation(0, "shuffle", 1, len(images))
    assert torch.equal(order.bincount(), torch.ones(2_000_000, dtype=torch.int64))
    chunks = list(Blocks(len(images), 128, order).chunks(1))
    assert [len(chunk.index[0]) for chunk in chunks] == [128] * 15_625
    assert chunks[7].index.data_ptr() == order[7 * 128 :].data_ptr()  # a view
    x, y = images.take(chunks[7].index)
    assert torch.equal(y, order[7 * 128 : 8 * 128][None] % 50_000)
    assert torch.equal((x * 255).round().long().flatten(), y.flatten() % 256)


# a last block that is left out


@pytest.mark.parametrize("copies", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_without_its_short_block_the_full_batch_is_the_mean_over_the_others(data, shuffle, copies):
    changes = {"block": 20, "drop_last": True, "shuffle": shuffle, "copies": copies, "dtype": "float64", "padding": 1}
    experiment = prepare(small_recipe(data, "fb", **changes), chunk=2)
    count = IMAGES * max(1, copies)
    used = count // 20 * 20
    orders = []
    for step in (0, 1):
        (objective,) = experiment.regime.objectives(step)
        order = keyed.permutation(0, "shuffle", step, count) if shuffle else torch.arange(count)
        orders.append(order[:used])
        tensors = objective.selection.examples.take(order[:used])
        evaluation = objective.evaluate()
        assert_agree(evaluation, oracles.block_loop(oracles.ghosted(experiment.model, 20), cross_entropy, tensors, 20))
        assert evaluation.count == used
        assert evaluation.passes == pytest.approx(used / IMAGES, rel=1e-12)
        assert len(evaluation.block_square_norms) == used // 20
    assert (set(orders[0].tolist()) != set(orders[1].tolist())) == shuffle


def test_without_its_short_block_an_epoch_has_full_updates_only(data):
    experiment = prepare(small_recipe(data, "sgd", block=20, drop_last=True, dtype="float64"))
    labels = experiment.train.labels
    for step in (0, 1):
        parts = examples_of_step(experiment, step)
        assert [len(y) for _, y in parts] == [20, 20]
        assert torch.equal(torch.cat([y for _, y in parts]), labels[keyed.permutation(0, "shuffle", step, IMAGES)[:40]])
    passes = [
        take_step(experiment.optimizer, objective, experiment.transform, None, 0).passes
        for objective in experiment.regime.objectives(0)
    ]
    assert sum(passes) == pytest.approx(40 / IMAGES, rel=1e-12)


def test_where_all_blocks_are_full_drop_last_changes_nothing(data, tmp_path):
    records = [record(run(tmp_path / str(drop), small_recipe(data, drop_last=drop))) for drop in (False, True)]
    assert records[0] == records[1]


def test_a_run_without_its_short_block_counts_the_examples_of_full_blocks(data, tmp_path):
    rows = run(tmp_path / "run", small_recipe(data, "fb", block=20, drop_last=True, steps=2)).rows()
    assert [row["passes"] for row in rows] == pytest.approx([40 / 48, 80 / 48], rel=1e-8)  # written with 9 digits
    assert rows[0]["train_accuracy"] * 40 == pytest.approx(round(rows[0]["train_accuracy"] * 40), abs=1e-9)


def test_drop_last_with_a_block_larger_than_all_examples_is_refused(data, tmp_path):
    for name in ("fb", "sgd"):
        flags = ("--data", data, "--block", 49, "--drop-last", "--run-dir", tmp_path / "run")
        refused("train", name, *flags, names=("block 49", "at most 48"))


# full runs, and the command line


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "rand", "policy_options": "num_ops=1", "shuffle": True},
        {"policy": "trivial", "max_up": 2, "block": 20, "drop_last": True},
    ],
)
def test_a_run_with_a_policy_resumes_to_the_same_bits(colour, tmp_path, changes):
    recipe = small_recipe(colour, "fb", **changes)
    expected = record(run(tmp_path / "whole", recipe))
    directory = run(tmp_path / "stopped", recipe, stop_after=0)
    assert not directory.model.exists()
    resume(directory)
    assert record(directory) == expected
    other = run(tmp_path / "other", small_recipe(colour, "fb", **(changes | {"policy": "none", "policy_options": ""})))
    assert record(other)[0] != expected[0]


@pytest.mark.parametrize(("policy", "name"), [("rand", "digits"), *((policy, "colour") for policy in POLICIES)])
def test_the_command_trains_with_each_policy(colour, tmp_path, policy, name):
    data, block = (colour, 16) if name == "colour" else (name, 64)
    flags = ("--data", data, "--steps", 2, "--block", block, "--warmup", 0, "--threads", 1, "--model", "resnet2")
    options = ("--policy", policy, "--policy-options", POLICIES[policy])
    answer = call("train", "fb", *flags, *options, "--run-dir", tmp_path / "run")
    assert answer.code == 0, answer.err
    rows = RunDirectory(tmp_path / "run").rows()
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["gradient_norm"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--policy", "mixup"), ("mixup", "trivial")),
        (("--policy", "rand", "--policy-options", "num_op=2"), ("--policy-options", "num_op", "num_ops, magnitude")),
        (("--policy", "rand", "--policy-options", "2"), ("--policy-options", "NAME=VALUE")),
        (("--policy", "rand", "--policy-options", "magnitude=99"), ("--policy rand", "magnitude", "30", "99")),
        (("--policy", "auto", "--policy-options", "policy=MNIST"), ("CIFAR10", "'MNIST'")),
        (("--policy-options", "num_ops=2"), ("--policy-options", "--policy")),
        (("--first-clean",), ("--first-clean", "--copies")),
        (("--max-up", "0"), ("--max-up", "at least 1", "0")),
        (("--max-up", "3"), ("--block 16", "--max-up 3", "divisible")),
        (("--max-up", "2", "--copies", "2"), ("--max-up", "--copies")),
        (("--max-up", "2", "--augment", "none"), ("--max-up", "--augment crop-flip", "--policy")),
    ],
)
def test_flags_that_exclude_each_other_are_refused_with_the_remedy(data, tmp_path, flags, names):
    run_dir = tmp_path / "run"
    answer = call("train", "fb", "--data", data, "--block", 16, *flags, "--steps", 1, "--run-dir", run_dir)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    for name in names:
        assert name in answer.err
    assert not run_dir.exists()


def test_a_policy_on_images_of_two_channels_is_refused(tmp_path):
    arrays_of_two = {name: np.stack([arrays()[name]] * 2, -1) for name in ("x_train", "x_test")}
    data = npz(tmp_path / "two.npz", **arrays_of_two)
    flags = ("--data", data, "--block", 16, "--policy", "augmix", "--run-dir", tmp_path / "run")
    refused("train", "fb", *flags, names=("--policy augmix", "1 or 3 channels", "2"))
