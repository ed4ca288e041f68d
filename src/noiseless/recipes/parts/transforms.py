"""The part of a recipe about what is done to a gradient before the optimizer has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, positive, without_effect


@dataclass(frozen=True)
class Transforms:
    """What is done to the gradient, in this order."""

    block_clip: float | None = None
    """L2 norm to which each block's gradient is clipped; none: not"""
    norm_bias: float = 0.0
    """strength of the pull of the parameters' norm towards norm-target"""
    norm_target: float = 0.0
    """target of the norm bias"""
    norm_bias_type: Literal["l1", "l2"] = "l2"
    """norm of the norm bias"""
    agc: float | None = None
    """adaptive clipping: largest ratio of a unit's gradient norm to its weights' norm; none: not"""
    clip: float | None = None
    """norm to which the full gradient is clipped; none: not"""
    clip_type: Literal["l2", "max"] = "l2"
    """norm of the clip: Euclidean, or the largest element"""
    additive_noise: float = 0.0
    """standard deviation of noise added to each element of the gradient"""
    multiplicative_noise: float = 0.0
    """standard deviation of noise that multiplies each element of the gradient"""
    layer_rate: Literal["none", "lars", "larc"] = "none"
    """a learning rate for each layer from its norms: LARS scales, LARC only lowers"""
    trust: float = 0.02
    """trust coefficient of LARS and LARC"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        positive("block-clip", self.block_clip)
        at_least("norm-bias", self.norm_bias, 0)
        at_least("norm-target", self.norm_target, 0)
        positive("agc", self.agc)
        positive("clip", self.clip)
        at_least("additive-noise", self.additive_noise, 0)
        at_least("multiplicative-noise", self.multiplicative_noise, 0)
        positive("trust", self.trust)
        if not self.norm_bias:
            without_effect("norm-target", self.norm_target, Transforms.norm_target, "--norm-bias")
            without_effect("norm-bias-type", self.norm_bias_type, Transforms.norm_bias_type, "--norm-bias")
        if self.clip is None:
            without_effect("clip-type", self.clip_type, Transforms.clip_type, "--clip")
        if self.layer_rate == "none":
            without_effect("trust", self.trust, Transforms.trust, "--layer-rate lars or larc")
