"""Images as examples: normalisation, augmentation by copy, and the statistics of a data set."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from noiseless.data import Images, ImageSet, crop_flip, make_policy
from noiseless.objective import Examples

MEAN, STD = (0.4, 0.5), (0.2, 0.25)


def _images(count=6, **settings):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 2, 4, 5), generator=rng, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3, MEAN, STD, torch.float64, **settings)


def _normalised(pixels):
    channels = [(pixels[:, c].double() / 255 - MEAN[c]) / STD[c] for c in range(2)]
    return torch.stack(channels, 1)


def test_take_normalises_images():
    part = _images()
    x, y = part.take(torch.tensor([[4, 0], [1, 1]]))
    assert x.shape == (2, 2, 2, 4, 5)
    assert y.tolist() == [[1, 0], [1, 1]]
    torch.testing.assert_close(x.flatten(0, 1), _normalised(part.images[[4, 0, 1, 1]]), rtol=1e-14, atol=1e-14)
    assert isinstance(part, Examples)
    assert dataclasses.replace(part, dtype=torch.float32).take(torch.tensor([0]))[0].dtype == torch.float32


def test_augmentation_pads_before_it_normalises():
    part = _images(augment="crop-flip", padding=2, flip=0.5, seed=3, epoch=5)
    index = torch.tensor([5, 0, 3])
    expected = _normalised(crop_flip(part.images[index], 3, 5, index, 2, 0.5))
    torch.testing.assert_close(part.take(index)[0], expected, rtol=1e-14, atol=1e-14)


def test_copies_equal_separate_epochs():
    many = _images(augment="crop-flip", padding=2, seed=3, epoch=4, copies=3)
    assert len(many) == 18
    all_copies, labels = many.take(torch.arange(18))
    for k in range(3):
        one = dataclasses.replace(many, copies=1, epoch=4 + k)
        x, y = one.take(torch.arange(6))
        assert torch.equal(all_copies[6 * k : 6 * k + 6], x)
        assert torch.equal(labels[6 * k : 6 * k + 6], y)
    assert not torch.equal(all_copies[:6], all_copies[6:12])
    order = torch.randperm(18, generator=torch.Generator().manual_seed(2))
    assert torch.equal(many.take(order)[0], all_copies[order])


def test_copies_without_augmentation_repeat():
    many = _images(copies=2)
    x, _ = many.take(torch.arange(12))
    assert torch.equal(x[:6], x[6:])


def test_the_policy_acts_on_the_bytes_before_crop_and_flip():
    grey = torch.randint(256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    policy, index = make_policy("trivial", 1), torch.tensor([5, 0, 3])
    part = Images(grey, torch.arange(6), (0.4,), (0.2,), torch.float64, "crop-flip", 2, 0.5, 3, 5, policy=policy)
    augmented = crop_flip(policy(grey[index], 3, 5, index), 3, 5, index, 2, 0.5)
    expected = (augmented.double() / 255 - 0.4) / 0.2
    torch.testing.assert_close(part.take(index)[0], expected, rtol=1e-14, atol=1e-14)
    alone = dataclasses.replace(part, augment="none")
    expected = (policy(grey[index], 3, 5, index).double() / 255 - 0.4) / 0.2
    torch.testing.assert_close(alone.take(index)[0], expected, rtol=1e-14, atol=1e-14)


def _with_policy(**settings):
    pixels = torch.randint(256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, std, policy = (0.4,) * 3, (0.2,) * 3, make_policy("rand", 3)
    return Images(pixels, torch.arange(6), mean, std, torch.float64, "crop-flip", 1, policy=policy, **settings)


def test_a_policy_draws_for_each_copy():
    many = _with_policy(epoch=4, copies=3)
    all_copies, _ = many.take(torch.arange(18))
    for k in range(3):
        one = dataclasses.replace(many, copies=1, epoch=4 + k)
        assert torch.equal(all_copies[6 * k : 6 * k + 6], one.take(torch.arange(6))[0])
    order = torch.randperm(18, generator=torch.Generator().manual_seed(2))
    assert torch.equal(many.take(order)[0], all_copies[order])
    assert torch.equal(torch.cat([many.take(part)[0] for part in torch.arange(18).split(5)]), all_copies)
    assert len({tuple(x.flatten().tolist()) for x in all_copies}) == 18


def test_with_first_clean_the_first_copy_is_not_augmented():
    plain = dataclasses.replace(_with_policy(), policy=None, augment="none").take(torch.arange(6))[0]
    clean, augmented = (_with_policy(copies=3, first_clean=first).take(torch.arange(18))[0] for first in (True, False))
    assert torch.equal(clean[:6], plain)
    assert not torch.equal(augmented[:6], plain)
    assert torch.equal(clean[6:], augmented[6:])
    for k in range(3):  # visited one at a time, the copies are the same
        one = _with_policy(epoch=k, first_clean=True)
        assert torch.equal(one.take(torch.arange(6))[0], clean[6 * k : 6 * k + 6])


def test_take_does_not_change_the_pixels():
    part = _images(augment="crop-flip", padding=2)
    before = part.images.clone()
    part.take(torch.arange(6))
    assert torch.equal(part.images, before)


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="crop-flip"):
        _images(augment="crop_flip").take(torch.arange(2))


def _set(**changes):
    part = _images()
    return ImageSet("x", **{
        "x_train": part.images, "y_train": part.labels, "x_test": part.images[:2], "y_test": part.labels[:2], **changes,
    })  # fmt: skip


def test_statistics_are_those_of_the_training_pixels():
    data_set = _set()
    mean, std = data_set.statistics()
    for c in range(2):
        pixels = [v / 255 for v in data_set.x_train[:, c].flatten().tolist()]
        average = math.fsum(pixels) / len(pixels)
        assert mean[c] == pytest.approx(average, rel=1e-13)
        assert std[c] == pytest.approx(
            math.sqrt(math.fsum((p - average) ** 2 for p in pixels) / len(pixels)), rel=1e-13
        )


def test_the_digest_depends_on_every_part():
    other = _images().images.clone()
    other[0, 0, 0, 0] ^= 1
    sets = [
        _set(), _set(x_train=other), _set(y_train=torch.tensor([0, 1, 2, 0, 1, 1])), _set(x_test=other[:2]),
        _set(y_test=torch.tensor([2, 1])), _set(x_train=_images().images.transpose(2, 3)),
    ]  # fmt: skip
    assert len({s.sha256() for s in sets}) == len(sets)
    assert _set().sha256() == sets[0].sha256()


def test_classes_are_counted_from_the_training_labels():
    assert _set().classes == 3


@pytest.mark.parametrize("value", [1, 9, 77, 255])
def test_equal_pixels_have_a_deviation_of_zero(value):
    pixels = torch.full((7, 1, 11, 13), value, dtype=torch.uint8)
    labels = torch.zeros(7, dtype=torch.int64)
    assert ImageSet("flat", pixels, labels, pixels, labels).statistics() == ([value / 255], [0.0])
