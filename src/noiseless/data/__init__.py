"""Data sets, and augmentation as pure functions of (seed, epoch, example number).

The names are imported at first use, so that `noiseless data list` does not wait for torch. No name but `home` is that
of a module, which would hide it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from noiseless.data.home import home

if TYPE_CHECKING:
    from noiseless.data.arrays import npz
    from noiseless.data.augment import crop_flip
    from noiseless.data.datasets import load, pack
    from noiseless.data.embedded import digits, mnist_5k
    from noiseless.data.extents import Extent, extent, is_local
    from noiseless.data.function import from_function
    from noiseless.data.images import Images, ImageSet
    from noiseless.data.policies import Policy, make_policy, policy_names

_MODULES = {
    "arrays": ("npz",),
    "augment": ("crop_flip",),
    "datasets": ("load", "pack"),
    "embedded": ("digits", "mnist_5k"),
    "extents": ("Extent", "extent", "is_local"),
    "function": ("from_function",),
    "images": ("ImageSet", "Images"),
    "policies": ("Policy", "make_policy", "policy_names"),
}

__all__ = [
    "Extent",
    "ImageSet",
    "Images",
    "Policy",
    "crop_flip",
    "digits",
    "extent",
    "from_function",
    "home",
    "is_local",
    "load",
    "make_policy",
    "mnist_5k",
    "npz",
    "pack",
    "policy_names",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
