"""Options of the questions to a run's state, as plain values: flags of the commands, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BatchNorm = Literal["block", "running"]
Normalised = Literal["filter", "layer", "weight", "none"]


@dataclass(frozen=True)
class SharpnessOptions:
    """Which numbers of a Hessian's spectrum are computed, and how."""

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
    """Hessian products for the trace; 0: no trace"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
    tolerance: float = 1e-3
    """of the residuals, in units of the eigenvalue that is largest in magnitude"""
    most: int = 200
    """largest number of products for the eigenvalues"""
    seed: int = 0
    """keys the random vectors"""

    @property
    def products(self) -> int:
        """Largest number of Hessian products."""
        return (self.most if self.largest + self.smallest else 0) + self.density * self.probes * self.steps + self.trace

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        for name, low in (("largest", 0), ("smallest", 0), ("trace", 0), ("probes", 1), ("steps", 2), ("seed", 0)):
            if (value := getattr(self, name)) < low:
                raise ValueError(f"--{name} must be a whole number of at least {low}, not {value}")
        if not self.products:
            raise ValueError("nothing to compute: give --largest, --smallest, --density or --trace")
        if 0 < self.trace < 6:
            raise ValueError(f"--trace must be at least 6 products, not {self.trace}; 30 is a good number")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance must be between 0 and 1, not {self.tolerance}")
        if self.most < self.largest + self.smallest:
            raise ValueError(f"--most {self.most} is fewer than the {self.largest + self.smallest} eigenvalues")


@dataclass(frozen=True)
class NoiseOptions:
    """The blocks between which gradient noise is measured."""

    block: int | None = None
    """examples a block; none: the run's"""
    sizes: tuple[int, ...] = ()
    """blocks for which signal to noise is predicted; none: powers of 8, the block, all examples"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
    shuffle: bool = False
    """blocks are cut from a keyed random order: for data that are sorted, by class for instance"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        if wrong := [size for size in self.sizes if size < 1]:
            raise ValueError(f"--sizes must be whole numbers of at least 1, not {wrong[0]}")


@dataclass(frozen=True)
class FlatnessOptions:
    """The random directions along which flatness is measured."""

    radius: float = 0.5
    """length of the step, in normalised directions"""
    normalised: Normalised = "filter"
    """by which norms of the parameters a direction is scaled"""
    tolerance: float = 0.1
    """stops where the standard error is at most this share of the mean; 0: at the bound"""
    most: int = 100
    """bound on the directions"""
    seed: int = 0
    """of the directions"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
