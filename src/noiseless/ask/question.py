"""What can be asked about the sharpness of a run's states; its fields are the flags of `noiseless sharpness`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Question:
    """What is asked of a state; its fields are flags."""

    largest: int = 1
    """eigenvalues at the upper end"""
    smallest: int = 0
    """eigenvalues at the lower end"""
    of: Literal["loss", "objective"] = "loss"
    """the loss over all examples, or what the run minimises, with its penalty"""
    preconditioned: bool = False
    """the Hessian as the run's optimizer sees it, by its diagonal (Adam, AdamW, RMSprop, Adagrad)"""
    density: bool = False
    """the density of the whole spectrum, too"""
    probes: int = 4
    """random vectors of the density"""
    steps: int = 30
    """Lanczos steps from each"""
    trace: int = 0
    """products to be spent on the trace; 0: it is not asked for"""
    batch_norm: Literal["block", "running"] = "block"
    """batch norm by the statistics of each block, as in training, or by the running ones, as in tests"""
    tolerance: float = 1e-3
    """of the residuals, in units of the eigenvalue that is largest in magnitude"""
    most: int = 200
    """products to be spent on the eigenvalues at most"""
    seed: int = 0
    """keys the random vectors"""

    @property
    def products(self) -> int:
        """Hessian products that it can take."""
        return (self.most if self.largest + self.smallest else 0) + self.density * self.probes * self.steps + self.trace

    def check(self) -> None:
        """Refuses numbers that make no sense.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        for name, low in (("largest", 0), ("smallest", 0), ("trace", 0), ("probes", 1), ("steps", 2), ("seed", 0)):
            if (value := getattr(self, name)) < low:
                raise ValueError(f"--{name} must be a whole number of at least {low}, not {value}")
        if not self.products:
            raise ValueError("nothing is asked for: give --largest, --smallest, --density or --trace")
        if 0 < self.trace < 6:
            raise ValueError(f"--trace must be at least 6 products, not {self.trace}; 30 is a good number")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance must be between 0 and 1, not {self.tolerance}")
        if self.most < self.largest + self.smallest:
            raise ValueError(f"--most {self.most} is fewer than the eigenvalues that are asked for")
