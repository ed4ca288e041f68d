"""The part of a recipe about images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, below_one, known_or_code, positive

POLICIES = ("none", "rand", "auto", "trivial", "augmix")
"""policies that are built in"""
MOST_PIXELS = 16_384
"""largest side of an image"""


@dataclass(frozen=True)
class Data:
    """The images, and how they are augmented."""

    name: str = "digits"
    """data set: digits, mnist-5k, cifar10, ..., npz:FILE, folder:PATH or package.module:function; noiseless data list
    shows all"""
    pixels: int | None = None
    """crop each image to its centred square and resize that to this side; None: keep the size"""
    validation: float = 0.0
    """share of the training images, drawn by the seed, that is held out and evaluated instead of the test images"""
    images: int | None = None
    """number of training images to use, drawn by the seed from those that are not held out; None: all"""
    mean: tuple[float, ...] | None = None
    """mean of the pixels of each channel, with pixel values between 0 and 1; None: that of the training images"""
    std: tuple[float, ...] | None = None
    """standard deviation of the pixels of each channel, with pixel values between 0 and 1; None: that of the training
    images"""
    augment: Literal["none", "crop-flip"] = "crop-flip"
    """crop-flip: random crops and mirror images; none: neither"""
    padding: int = 4
    """pixels of zeros on each side of an image before its random crop"""
    flip: float = 0.5
    """probability that an image is mirrored"""
    policy: str = "none"
    """augmentation before the crop: rand (RandAugment), auto (AutoAugment), trivial (TrivialAugment), augmix (AugMix),
    none, or package.module:name, a function of one image"""
    policy_options: str = ""
    """arguments of the policy, written as in a call: num_ops=2,magnitude=9"""
    copies: int = 0
    """0: draw new augmentations at each step; N: use a fixed set of N augmented copies of each image, of which a
    stochastic step sees one"""
    first_clean: bool = False
    """do not augment the first of the --copies"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        positive("pixels", self.pixels, MOST_PIXELS)
        below_one("validation", self.validation)
        positive("images", self.images)
        if not all(abs(value) < math.inf for value in self.mean or ()):
            raise ValueError(f"--mean must be finite, not {' '.join(map(str, self.mean or ()))}")
        at_least("padding", self.padding, 0)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip must be a probability between 0 and 1, not {self.flip}")
        known_or_code("policy", self.policy, POLICIES)
        if self.policy_options and self.policy == "none":
            raise ValueError(f"--policy-options {self.policy_options!r} do nothing without a --policy: give one")
        at_least("copies", self.copies, 0, 1_000_000)
        if self.first_clean and not self.copies:
            raise ValueError("--first-clean is about the first copy of a fixed set: give --copies N with it")

    @property
    def random(self) -> bool:
        """Whether augmentation is random, so that two draws of an image can differ."""
        return self.policy != "none" or (self.augment == "crop-flip" and bool(self.padding or self.flip))

    def divided(self, images: int) -> tuple[int, int]:
        """How many training images are used, and how many `validation` holds out, `round(validation N)`.

        Args:
            images: N, the number of images in the training set.

        Returns:
            Both numbers; without validation the second is 0.

        Raises:
            ValueError: if no image would be left to train on or to evaluate, or if `images` exceeds what is left.
        """
        held_out = round(self.validation * images)
        if self.validation and not 0 < held_out < images:
            raise ValueError(
                f"--validation {self.validation:g} of {images} training images would hold out {held_out}: at least one"
                " must be held out and one left for training"
            )
        left = images - held_out
        if self.images is not None and self.images > left:
            raise ValueError(f"--images {self.images} exceeds the {left} training images that are left: give fewer")
        return self.images or left, held_out
