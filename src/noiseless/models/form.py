"""The form of a model: choices that several families share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from noiseless.errors import UnknownNameError

Norm = Literal["batch", "group", "none", "skipinit"]
Stem = Literal["small", "standard", "efficient"]
Shortcut = Literal["A", "B", "C"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Convolution = Literal["standard", "weight-standardized"]


@dataclass(frozen=True)
class Form:
    """How a model of a family is built.

    Raises:
        UnknownNameError: for an unknown choice.
        ValueError: for choices that contradict each other.
    """

    norm: Norm = "batch"
    """normalisation layers; skipinit: none, and on each residual branch a learned scale that starts at 0 (arXiv
    2002.10444)"""
    stem: Stem = "small"
    """small: one 3x3 convolution; standard: a 7x7 one with stride 2, and a max-pool; efficient: three 3x3 ones, the
    first with stride 2, and a max-pool"""
    shortcut: Shortcut = "C"
    """of a ResNet, where shapes change; A: 1x1 convolution; B: 1x1 convolution and norm; C: average pool, 1x1
    convolution and norm"""
    padding_mode: PaddingMode = "zeros"
    """of the convolutions"""
    convolution: Convolution = "standard"
    """weight-standardized: arXiv 1903.10520"""
    zero_init: bool = False
    """residual branches start at zero: the last scale of each starts at 0 and is learned (arXiv 1706.02677)"""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                if name == "zero_init":
                    raise ValueError(f"zero_init must be True or False, not {self.zero_init!r}")
                raise UnknownNameError(name, str(getattr(self, name)), choices)
        if self.zero_init and self.norm == "none":
            raise ValueError("zero_init needs a scale on each residual branch, and norm none has none: use skipinit")


CHOICES: dict[str, tuple[Any, ...]] = {
    name: get_args(hint) or (False, True) for name, hint in get_type_hints(Form).items()
}
"""all values of each field of `Form`"""
