"""An augmentation policy of the user's own, named `package.module:name`. Step 2 of a training step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noiseless import own
from noiseless.data.policies import Policy

OWN = own.Kind(
    "policy",
    "a function of one image, or a class of such functions",
    harmless=("torchvision.transforms", "torch.nn.modules.container"),
)
TRIED = 8
"""number of images with which a policy is tried"""


@dataclass(frozen=True)
class _Checked:
    """A policy's function with a check of its results: one image uint8 `[C, H, W]` to another of the same shape."""

    name: str
    function: Callable[..., Any]

    def __call__(self, image: Tensor) -> Tensor:
        try:
            changed = self.function(image.clone())
        except Exception as error:
            raise ValueError(f"{self.name} failed on an image {list(image.shape)}: {own.failure(error)}") from error
        if not isinstance(changed, Tensor) or changed.dtype != torch.uint8 or changed.shape != image.shape:
            is_tensor = isinstance(changed, Tensor)
            what = f"{changed.dtype} {list(changed.shape)}" if is_tensor else own.described(changed)
            raise ValueError(
                f"{self.name} returned {what}; it must return an image torch.uint8 {list(image.shape)}, as it gets"
            )
        return changed


def policy_from(name: str, images: Tensor, options: Mapping[str, Any]) -> Policy:
    """A policy of the user's own, after a trial on a few images.

    The name is that of a function of one image uint8 `[C, H, W]`, which returns another of that shape; of such an
    object, as those of `torchvision.transforms.v2`; or of a class of them. A class is called with the options; a
    function gets them as arguments for each image. It must draw random numbers from torch's global CPU generator alone,
    which is seeded for each image, and depend on nothing else: its result is then a pure function of seed, step and
    image.

    Args:
        name: `package.module:name`.
        images: uint8 `[n, C, H, W]`, for the trial.
        options: arguments by name.

    Returns:
        The policy.

    Raises:
        ValueError: if it is no policy, does not take the options, fails, or depends on more than image and generator.
    """
    function = own.imported(OWN, name)
    if isinstance(function, type):
        function, options = own.called(name, function, **options), {}
        if not callable(function):
            raise ValueError(
                f"{name} makes objects of type {type(function).__name__}; they must be functions of one image"
            )
    own.refuse_arguments(name, function, ("image",), options)
    function = partial(function, **options)
    policy = Policy(name, _Checked(name, function))
    _try(policy, images[:TRIED])
    return policy


def _try(policy: Policy, images: Tensor) -> None:
    """Raises for a policy with hidden draws, or whose results depend on the images before."""
    before = _generators()
    numbers = torch.arange(len(images))
    first = policy(images, 0, 0, numbers)
    again = policy(images.flip(0), 0, 0, numbers.flip(0)).flip(0)
    drawn = _generators() != before
    if drawn or not torch.equal(first, again):
        cause = "draws from Python's or numpy's generator" if drawn else "gives two results for the same image and seed"
        raise ValueError(
            f"{policy.name} {cause}: it must draw from torch's global generator alone (torch.rand, torch.randint),"
            " which is seeded for each image, and keep no state"
        )


def _generators() -> object:
    """The states of Python's and numpy's global generators."""
    numpy_state = np.random.get_state(legacy=False)
    return random.getstate(), str(numpy_state["state"]["key"].tolist()), numpy_state["state"]["pos"]
