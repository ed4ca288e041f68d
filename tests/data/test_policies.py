"""Policies: each image's result is torchvision's under its own key, in any order and batch; wrong arguments."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from noiseless import keyed
from noiseless.data import chains, make_policy, policy_names

NAMES = policy_names()
INDEX = torch.tensor([0, 3, 17, 100_000, 2, 2**33, 5, 6, 7, 8, 9, 10])
DIRECT = {
    "rand": lambda: v2.RandAugment(),
    "auto": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "trivial": lambda: v2.TrivialAugmentWide(),
    "augmix": lambda: v2.AugMix(),
}


def _images(count=12, channels=3, height=9, width=8):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, height, width), generator=rng, dtype=torch.uint8)


def _one_at_a_time(transform, images, seed, epoch, index):
    results = []
    for image, number in zip(images, index.tolist(), strict=True):
        with keyed.torch_generators(seed, "policy", epoch, number, torch.device("cpu")):
            results.append(transform(image))
    return torch.stack(results)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_torchvision_with_its_defaults_under_the_key_of_each_image(name, channels):
    images = _images(channels=channels)
    augmented = make_policy(name, channels)(images, 7, 3, INDEX)
    assert torch.equal(augmented, _one_at_a_time(DIRECT[name](), images, 7, 3, INDEX))
    assert (augmented.dtype, augmented.shape) == (torch.uint8, images.shape)
    assert not torch.equal(augmented, images)


@pytest.mark.parametrize(
    ("name", "arguments", "direct"),
    [
        ("rand", {"num_ops": 1, "magnitude": 4, "num_magnitude_bins": 5, "fill": 7},
         lambda: v2.RandAugment(1, 4, 5, fill=7)),
        ("auto", {"policy": "svhn", "fill": (1, 2, 255)},
         lambda: v2.AutoAugment(v2.AutoAugmentPolicy.SVHN, fill=(1, 2, 255))),
        ("auto", {"policy": "IMAGENET"}, lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)),
        ("trivial", {"num_magnitude_bins": 3, "interpolation": "bilinear"},
         lambda: v2.TrivialAugmentWide(3, v2.InterpolationMode.BILINEAR)),
        ("augmix", {"severity": 9, "mixture_width": 2, "chain_depth": 1, "alpha": 2, "all_ops": False,
                    "interpolation": "nearest"},
         lambda: v2.AugMix(9, 2, 1, 2.0, False, v2.InterpolationMode.NEAREST)),
    ],
)  # fmt: skip
def test_arguments_reach_torchvision(name, arguments, direct):
    images = _images()
    augmented = make_policy(name, 3, **arguments)(images, 0, 0, INDEX)
    assert torch.equal(augmented, _one_at_a_time(direct(), images, 0, 0, INDEX))
    assert not torch.equal(augmented, make_policy(name, 3)(images, 0, 0, INDEX))


@pytest.mark.parametrize("size", [(32, 32), (33, 29), (260, 260)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_an_operation_gives_an_image_the_same_bytes_alone_and_among_others(size, interpolation):
    """260 x 260 pixels sum to more than float32 counts exactly, which only contrast may notice."""
    policy = make_policy("rand", 3, interpolation=interpolation, fill=(3, 100, 77))
    assert policy.chains is not None  # else the test shows nothing
    images = _images(6, 3, *size)
    for name in ("Contrast",) if size[0] == 260 else v2.RandAugment._AUGMENTATION_SPACE:
        for magnitude in {"Posterize": (2.0, 5.0), "Solarize": (0.27, 0.9)}.get(name, (0.27, -0.9, 7.0)):
            drawn = [[(name, magnitude)]] * len(images)
            together = policy.chains.apply(images, drawn)
            alone = [policy.chains.apply(image[None], drawn[:1]) for image in images]
            assert torch.equal(together, torch.cat(alone)), (name, magnitude)


def test_other_versions_of_torchvision_get_images_one_at_a_time(monkeypatch):
    images, expected = _images(), make_policy("rand", 3)(_images(), 0, 0, INDEX)
    monkeypatch.setattr(chains, "METHOD", "_of_another_version")
    policy = make_policy("rand", 3)
    assert policy.chains is None
    assert torch.equal(policy(images, 0, 0, INDEX), expected)


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_order_or_batch(name):
    policy, images, index = make_policy(name, 3), _images(20), torch.arange(20)
    augmented = policy(images, 1, 2, index)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(policy(images[order], 1, 2, index[order]), augmented[order])
    assert torch.equal(torch.cat([policy(images[p], 1, 2, p) for p in index.split(7)]), augmented)


@pytest.mark.parametrize("name", NAMES)
def test_draws_only_from_its_key_and_changes_no_global_generator(name):
    policy, results, images = make_policy(name, 3), [], _images()
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        results.append(policy(images, 1, 2, INDEX))
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert before[:2] == after[:2]
        assert torch.equal(before[2], after[2])
    assert torch.equal(*results)
    assert torch.equal(images, _images())  # the input is not changed


@pytest.mark.parametrize("name", NAMES)
def test_draws_differ_by_seed_epoch_and_example(name):
    policy, images, index = make_policy(name, 3), _images(1).expand(12, -1, -1, -1), torch.arange(12)
    base = policy(images, 0, 0, index)
    assert not torch.equal(policy(images, 1, 0, index), base)
    assert not torch.equal(policy(images, 0, 1, index), base)
    assert len({tuple(x.flatten().tolist()) for x in base}) > 4  # of 12; some leave an image as it is


@pytest.mark.parametrize("name", ["rand", "trivial", "augmix"])
def test_a_grey_image_gives_the_result_of_three_equal_channels(name):
    """A colour image's grey is 0.2989 + 0.587 + 0.114 = 0.9999 of each channel, floored: one level less at a time.

    Saturation and contrast mix that grey in, by a factor of at most 2, once an operation; equalize stretches the
    histogram, so single pixels may land on its neighbouring level. Most images agree but for a few levels.
    """
    grey = _images(60, channels=1)
    index = torch.arange(60)
    one = make_policy(name, 1)(grey, 0, 0, index)
    three = make_policy(name, 3)(grey.expand(-1, 3, -1, -1), 0, 0, index)
    assert torch.equal(three[:, 0], three[:, 2])
    distance = (one.int() - three[:, :1].int()).abs().flatten(1).max(1).values
    assert (distance <= 4).double().mean() > 0.9
    changed = (one.int() - grey.int()).abs().flatten(1).max(1).values
    assert (changed > 4).double().mean() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_images_keep_their_shape(name, size):
    images = _images(50, 3, *size)
    assert make_policy(name, 3)(images, 0, 0, torch.arange(50)).shape == images.shape


@pytest.mark.parametrize(
    ("name", "arguments", "names"),
    [
        ("randaugment", {}, ("unknown policy 'randaugment'", "rand, auto, trivial, augmix")),
        ("rand", {"magnitud": 3}, ("argument of the policy rand 'magnitud'", "did you mean magnitude", "num_ops")),
        ("auto", {"num_ops": 3}, ("'num_ops'", "known: policy, interpolation, fill")),
        ("rand", {"num_ops": 0}, ("num_ops", "at least 1", "0")),
        ("rand", {"num_ops": 2.0}, ("num_ops", "whole", "2.0")),
        ("rand", {"num_ops": True}, ("num_ops", "True")),
        ("rand", {"magnitude": 31}, ("magnitude", "at most 30", "31")),
        ("rand", {"magnitude": -1}, ("magnitude", "-1")),
        ("rand", {"magnitude": 9, "num_magnitude_bins": 9}, ("magnitude", "at most 8")),
        ("trivial", {"num_magnitude_bins": 1}, ("num_magnitude_bins", "between 2 and 1000")),
        ("trivial", {"interpolation": "bicubic"}, ("interpolation", "nearest or bilinear", "'bicubic'")),
        ("trivial", {"fill": 256}, ("fill", "0 and 255", "256")),
        ("trivial", {"fill": (1, "red", 2)}, ("fill", "'red'")),
        ("trivial", {"fill": (1, 2)}, ("fill has 2 values", "3 channels")),
        ("auto", {"policy": "MNIST"}, ("policy", "CIFAR10 or IMAGENET or SVHN", "'MNIST'")),
        ("auto", {"policy": 3}, ("policy", "3")),
        ("augmix", {"severity": 11}, ("severity", "between 1 and 10", "11")),
        ("augmix", {"mixture_width": 0}, ("mixture_width", "0")),
        ("augmix", {"chain_depth": 0}, ("chain_depth", "at least 1, or -1", "0")),
        ("augmix", {"alpha": 0}, ("alpha", "above 0", "0")),
        ("augmix", {"alpha": float("nan")}, ("alpha", "nan")),
        ("augmix", {"alpha": 1e39}, ("alpha", "1e+39")),
        ("augmix", {"all_ops": 1}, ("all_ops", "True or False", "1")),
    ],
)
def test_wrong_arguments_are_refused_with_the_allowed_ones(name, arguments, names):
    with pytest.raises(ValueError, match=r"policy") as refusal:
        make_policy(name, 3, **arguments)
    for part in names:
        assert part in str(refusal.value)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_are_refused(channels):
    with pytest.raises(ValueError, match=f"1 or 3 channels, and these have {channels}"):
        make_policy("rand", channels)
