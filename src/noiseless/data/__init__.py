"""Data sets, and augmentation as pure functions of (seed, epoch, example number)."""

from noiseless.data.arrays import npz
from noiseless.data.augment import crop_flip
from noiseless.data.datasets import load, pack
from noiseless.data.embedded import digits, mnist_5k
from noiseless.data.extent import Extent, extent, is_local
from noiseless.data.function import from_function
from noiseless.data.home import home
from noiseless.data.images import Images, ImageSet
from noiseless.data.policies import Policy, make_policy, policy_names

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
