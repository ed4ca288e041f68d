"""Random crop and flip: equal to a loop over images and pixels, and independent of order and batch."""

from __future__ import annotations

import oracles
import pytest
import torch

from noiseless import keyed
from noiseless.data import crop_flip


def _images(count=6, channels=2, height=5, width=4):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, channels, height, width), generator=rng, dtype=torch.uint8)


INDEX = torch.tensor([0, 3, 17, 100_000, 2, 2**33])


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_the_loop_over_images(padding, flip, dtype):
    images = _images().to(dtype)
    words = keyed.words(7, "augment", 3, INDEX).tolist()
    expected = [oracles.crop_flip(x, w, padding, flip) for x, w in zip(images, words, strict=True)]
    augmented = crop_flip(images, 7, 3, INDEX, padding, flip)
    assert torch.equal(augmented, torch.stack(expected))
    assert augmented.dtype == dtype


def test_does_not_depend_on_order_or_batch():
    images, index = _images(20), torch.arange(20)
    augmented = crop_flip(images, 1, 2, index, 2, 0.5)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(crop_flip(images[order], 1, 2, index[order], 2, 0.5), augmented[order])
    parts = [crop_flip(images[p], 1, 2, p, 2, 0.5) for p in index.split(7)]
    assert torch.equal(torch.cat(parts), augmented)


def test_padding_0_without_flip_changes_nothing():
    assert torch.equal(crop_flip(_images(), 0, 0, INDEX, 0, 0.0), _images())


def test_flip_1_mirrors_all():
    assert torch.equal(crop_flip(_images(), 0, 0, INDEX, 0, 1.0), _images().flip(3))


def test_draws_differ_by_seed_epoch_and_example():
    images, index = _images(1).expand(12, -1, -1, -1), torch.arange(12)
    base = crop_flip(images, 0, 0, index, 2, 0.5)
    assert not torch.equal(crop_flip(images, 1, 0, index, 2, 0.5), base)
    assert not torch.equal(crop_flip(images, 0, 1, index, 2, 0.5), base)
    assert len({tuple(x.flatten().tolist()) for x in base}) > 6  # of 50 possible pictures


def test_all_corners_and_both_sides_are_drawn_evenly():
    n, padding = 9000, 1
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(n, 1, 2, 2)
    crops = crop_flip(image, 0, 0, torch.arange(n), padding, 0.5).flatten(1)
    _, counts = crops.unique(dim=0, return_counts=True)
    # 9 corners times 2 sides, all different pictures but for the 4 crops of one corner pixel, which mirroring cannot
    # repeat either (its place changes): 18 pictures of n / 18 = 500, deviation sqrt(500 * 17 / 18) = 21.7; five of them
    assert len(counts) == 18
    assert (counts - n / 18).abs().max() < 5 * 21.7


def test_the_input_is_not_changed():
    images = _images()
    crop_flip(images, 0, 0, INDEX, 2, 1.0)
    assert torch.equal(images, _images())
