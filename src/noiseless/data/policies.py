"""Augmentation policies: random chains of image operations, before crop and flip. Step 2 of a training step.

The operations and their chains are torchvision's (`torchvision.transforms.v2`): RandAugment (arXiv 1909.13719),
AutoAugment (arXiv 1805.09501), TrivialAugment (arXiv 2103.10158) and AugMix (arXiv 1912.02781; the images alone,
without its consistency loss). They draw from torch's global CPU generator and from nothing else, so seeding it for each
image makes the result a pure function of (seed, epoch, example number).

The draws are made image by image. The operations of a chain are then applied to all images that drew the same, where
the images are (see `chains`); AugMix and policies of the user's own take one image at a time, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from noiseless import keyed
from noiseless.data.chains import Chains, Operation
from noiseless.errors import UnknownNameError

CHANNELS = (1, 3)
"""numbers of channels that an image may have; with one, the operation on colour changes nothing"""


@dataclass(frozen=True)
class Policy:
    """A policy with its arguments."""

    name: str
    """see `policy_names`"""
    transform: Callable[[Tensor], Tensor]
    """one image uint8 `[C, H, W]` to another, with draws from torch's global CPU generator alone"""
    chains: Chains | None = None
    """those of the transform; None: it is no chain of torchvision's operations"""

    def __call__(self, images: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Applies the policy to images.

        The draws of image i are those of torch's generator under `keyed.torch_generators(seed, "policy", epoch, i)`.
        They depend neither on the order nor on the batch of the images.

        Args:
            images: uint8 `[n, C, H, W]`, on any device; not changed.
            seed: the run's seed.
            epoch: the step, epoch or copy number.
            index: the images' numbers in the data set, int64 `[n]`.

        Returns:
            uint8 `[n, C, H, W]`, on the images' device.
        """
        seeds = keyed.torch_seeds(seed, "policy", epoch, index.cpu())
        if self.chains is not None:
            return self.chains.apply(images, self._drawn(self.chains, images, seeds.tolist()))
        changed = torch.empty(images.shape, dtype=images.dtype)
        with torch.random.fork_rng([]):  # restores the global generator once for all images
            for i, (image, drawn) in enumerate(zip(images.cpu(), seeds.tolist(), strict=True)):
                torch.default_generator.manual_seed(drawn)
                changed[i] = self.transform(image)
        return changed.to(images.device)

    @staticmethod
    def _drawn(chains: Chains, images: Tensor, seeds: list[int]) -> list[list[Operation]]:
        blank = torch.zeros(images.shape[1:], dtype=torch.uint8)
        drawn = []
        with torch.random.fork_rng([]):
            for seed in seeds:
                torch.default_generator.manual_seed(seed)
                drawn.append(chains.draw(blank))
        return drawn


@dataclass(frozen=True)
class _Argument:
    default: Any
    requirement: str
    """what a value must be, for error messages"""
    is_valid: Callable[[Any], bool]


def _whole(default: int, low: int, high: float = math.inf) -> _Argument:
    required = f"a whole number of at least {low}" if high == math.inf else f"a whole number between {low} and {high}"
    return _Argument(default, required, lambda v: type(v) is int and low <= v <= high)


def _is_level(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 255


_PIXELS = {
    # the modes of torchvision's rotation of tensors
    "interpolation": _Argument("nearest", "nearest or bilinear", lambda v: v in ("nearest", "bilinear")),
    "fill": _Argument(
        None,
        "a grey level between 0 and 255, a tuple with one for each channel, or None for black",
        lambda v: v is None or (all(map(_is_level, v)) if isinstance(v, tuple) else _is_level(v)),
    ),
}
_BINS = {"num_magnitude_bins": _whole(31, 2, 1000)}
_TABLES = ("CIFAR10", "IMAGENET", "SVHN")
_ARGUMENTS: Mapping[str, Mapping[str, _Argument]] = {
    "rand": {"num_ops": _whole(2, 1), "magnitude": _whole(9, 0), **_BINS, **_PIXELS},
    # by default the policy that was learned on CIFAR-10, as images are small
    "auto": {
        "policy": _Argument("CIFAR10", " or ".join(_TABLES), lambda v: isinstance(v, str) and v.upper() in _TABLES),
        **_PIXELS,
    },
    "trivial": {**_BINS, **_PIXELS},
    "augmix": {
        "severity": _whole(3, 1, 10),
        "mixture_width": _whole(3, 1),
        "chain_depth": _Argument(
            -1,
            "a whole number of at least 1, or -1 for a random one from 1 to 3",
            lambda v: type(v) is int and (v > 0 or v == -1),
        ),
        "alpha": _Argument(1.0, "a number above 0 and up to 1e6", lambda v: type(v) in (int, float) and 0 < v <= 1e6),
        "all_ops": _Argument(True, "True or False", lambda v: isinstance(v, bool)),
        **_PIXELS,
        "interpolation": replace(_PIXELS["interpolation"], default="bilinear"),
    },
}  # fmt: skip


def policy_names() -> list[str]:
    """The names of the policies."""
    return list(_ARGUMENTS)


def make_policy(name: str, channels: int, **arguments: Any) -> Policy:
    """Builds a policy.

    Args:
        name: "rand", "auto", "trivial" or "augmix".
        channels: of the images.
        arguments: those of torchvision, with its defaults, except that AutoAugment's `policy` is a string, by default
            "CIFAR10".

    Returns:
        The policy.

    Raises:
        UnknownNameError: for an unknown policy or argument, with the nearest known names and all of them.
        ValueError: for an invalid value of an argument, or a number of channels that no policy takes.
    """
    if name not in _ARGUMENTS:
        raise UnknownNameError("policy", name, _ARGUMENTS)
    known = _ARGUMENTS[name]
    for key, value in arguments.items():
        if key not in known:
            raise UnknownNameError(f"argument of the policy {name}", key, known)
        if not known[key].is_valid(value):
            raise ValueError(f"the policy {name}: {key} must be {known[key].requirement}, not {value!r}")
    if channels not in CHANNELS:
        raise ValueError(f"the policy {name} takes images of 1 or 3 channels, and these have {channels}; use no policy")
    values = {key: argument.default for key, argument in known.items()} | arguments
    most, fill = values.get("num_magnitude_bins", math.inf) - 1, values["fill"]
    if values.get("magnitude", 0) > most:
        raise ValueError(
            f"the policy {name}: magnitude must be below num_magnitude_bins, at most {most}, not {values['magnitude']}"
        )
    if isinstance(fill, tuple) and len(fill) != channels:
        raise ValueError(f"the policy {name}: fill has {len(fill)} values, and the images have {channels} channels")
    transform = _transform(name, values)
    chained = name != "augmix" and Chains.fit(transform)
    return Policy(name, transform, Chains(transform) if chained else None)


def _transform(name: str, values: dict[str, Any]) -> nn.Module:
    from torchvision.transforms import v2  # imported here: it takes a second, and most runs have no policy

    values = values | {"interpolation": v2.InterpolationMode(values["interpolation"])}
    if name == "auto":
        values["policy"] = v2.AutoAugmentPolicy[values["policy"].upper()]
    if name == "augmix":
        values["alpha"] = float(values["alpha"])  # torch's Dirichlet distribution takes no integers
    kinds = {"rand": v2.RandAugment, "auto": v2.AutoAugment, "trivial": v2.TrivialAugmentWide, "augmix": v2.AugMix}
    policy: nn.Module = kinds[name](**values)
    return policy
