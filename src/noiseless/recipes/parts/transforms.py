"""The part of a recipe about what changes a gradient before the optimizer sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, known_or_code, positive, without_effect


@dataclass(frozen=True)
class Transforms:
    """Changes of the gradient before the optimizer sees it, in this order."""

    block_clip: float | None = None
    """clip each block's gradient to this L2 norm; None: no clipping"""
    norm_bias: float = 0.0
    """strength with which the parameters' norm is pulled towards --norm-target; 0: off"""
    norm_target: float = 0.0
    """target of --norm-bias"""
    norm_bias_type: Literal["l1", "l2"] = "l2"
    """norm of --norm-bias"""
    transform: tuple[str, ...] = ()
    """transforms of the full gradient of your own, package.module:name, after the norm bias and before the clips"""
    transform_options: tuple[str, ...] = ()
    """arguments of each --transform in turn, written as in a call: NAME=VALUE,NAME=VALUE, or '' for none"""
    agc: float | None = None
    """adaptive gradient clipping: largest ratio of a unit's gradient norm to its weights' norm; None: no clipping"""
    clip: float | None = None
    """clip the full gradient to this norm; None: no clipping"""
    clip_type: Literal["l2", "max"] = "l2"
    """norm of --clip; max: the largest element"""
    additive_noise: float = 0.0
    """standard deviation of noise added to each element of the gradient"""
    multiplicative_noise: float = 0.0
    """standard deviation of noise that multiplies each element of the gradient"""
    layer_rate: Literal["none", "lars", "larc"] = "none"
    """scale the learning rate of each layer by the ratio of its weights' norm to its gradient's norm; larc: only
    downwards"""
    trust: float = 0.02
    """trust coefficient of --layer-rate"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        positive("block-clip", self.block_clip)
        at_least("norm-bias", self.norm_bias, 0)
        at_least("norm-target", self.norm_target, 0)
        for name in self.transform:
            known_or_code("transform", name, ())
        if self.transform_options and len(self.transform_options) != len(self.transform):
            raise ValueError(
                f"--transform-options has {len(self.transform_options)} values for {len(self.transform)} transforms:"
                " give one for each --transform, '' for none"
            )
        positive("agc", self.agc)
        positive("clip", self.clip)
        at_least("additive-noise", self.additive_noise, 0)
        at_least("multiplicative-noise", self.multiplicative_noise, 0)
        positive("trust-coefficient", self.trust)
        if not self.norm_bias:
            without_effect("norm-target", self.norm_target, Transforms.norm_target, "--norm-bias")
            without_effect("norm-bias-type", self.norm_bias_type, Transforms.norm_bias_type, "--norm-bias")
        if self.clip is None:
            without_effect("clip-type", self.clip_type, Transforms.clip_type, "--clip")
        if self.layer_rate == "none":
            without_effect("trust-coefficient", self.trust, Transforms.trust, "--layer-rate lars or larc")
