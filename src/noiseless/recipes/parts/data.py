"""The part of a recipe about images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, below_one, positive


@dataclass(frozen=True)
class Data:
    """The images, and how they are augmented."""

    name: str = "digits"
    """data set, see noiseless data list: digits, mnist-5k, cifar10, ..., npz:FILE or folder:PATH"""
    pixels: int | None = None
    """images are resized and cropped to this size; none: as they are"""
    validation: float = 0.0
    """share of the training images, drawn by the seed, that is left out and evaluated in the test images' place"""
    images: int | None = None
    """training images that are used, drawn by the seed from those that are not left out; none: all"""
    mean: tuple[float, ...] | None = None
    """pixel mean a channel in units of 255; none: of the training images"""
    std: tuple[float, ...] | None = None
    """pixel standard deviation a channel in units of 255; none: of the training images"""
    augment: Literal["none", "crop-flip"] = "crop-flip"
    """random crop and mirror image, or none"""
    padding: int = 4
    """pixels of zeros around the image that is cropped"""
    flip: float = 0.5
    """probability of the mirror image"""
    policy: Literal["none", "rand", "auto", "trivial", "augmix"] = "none"
    """RandAugment, AutoAugment, TrivialAugment or AugMix, before the crop"""
    policy_options: str = ""
    """arguments of the policy, as in a call: num_ops=2,magnitude=9"""
    copies: int = 0
    """0: augmentations are drawn anew at each step; N: a fixed set of N copies; a stochastic step visits one"""
    first_clean: bool = False
    """the first of the copies is left as it is"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        positive("pixels", self.pixels)
        below_one("validation", self.validation)
        positive("images", self.images)
        if not all(math.isfinite(value) for value in self.mean or ()):
            raise ValueError(f"--mean must be finite, not {' '.join(map(str, self.mean or ()))}")
        at_least("padding", self.padding, 0)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip must be a probability between 0 and 1, not {self.flip}")
        if self.policy_options and self.policy == "none":
            raise ValueError(f"--policy-options {self.policy_options!r} belong to a --policy, and none is given")
        at_least("copies", self.copies, 0)
        if self.first_clean and not self.copies:
            raise ValueError("--first-clean leaves the first of a fixed set's copies as it is; give --copies N with it")

    @property
    def random(self) -> bool:
        """Whether draws of an image's augmentation differ."""
        return self.policy != "none" or (self.augment == "crop-flip" and bool(self.padding or self.flip))

    def divided(self, images: int) -> tuple[int, int]:
        """How many training images are used, and how many `validation` leaves out, `round(validation N)`.

        Args:
            images: N, of the training set.

        Returns:
            Both numbers; without validation the second is 0.

        Raises:
            ValueError: if nothing would be left to train on, or to evaluate, or more is asked for than there is.
        """
        held_out = round(self.validation * images)
        if self.validation and not 0 < held_out < images:
            raise ValueError(
                f"--validation {self.validation:g} of {images} training images would hold out {held_out}: both parts"
                " need images"
            )
        left = images - held_out
        if self.images is not None and self.images > left:
            raise ValueError(f"--images {self.images} is more than the {left} training images that there are")
        return self.images or left, held_out
