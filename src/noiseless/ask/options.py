"""Options of the analyses of a run's state: the flags of the commands. This module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import MOST_SEED, at_least, positive

MOST_PRODUCTS = 1_000_000
"""largest number of eigenvalues, vectors and products"""
BatchNorm = Literal["block", "running"]
Curvature = Literal["hessian", "ggn", "fisher", "empirical-fisher"]
Normalised = Literal["filter", "layer", "weight", "none"]


@dataclass(frozen=True)
class SharpnessOptions:
    """Which numbers of a spectrum are computed, of which matrix, and how."""

    largest: int = 1
    """number of largest eigenvalues"""
    smallest: int = 0
    """number of smallest (most negative) eigenvalues"""
    of: str = "loss"
    """loss: over all training examples; objective: what the run minimises, with its penalty; layer: each layer's block
    of the loss' matrix; or a pattern of names, such as 'layer3.*': the block of these parameters"""
    curvature: Curvature = "hessian"
    """hessian; ggn: generalised Gauss-Newton; fisher: of the model's distribution; empirical-fisher: of single
    examples' gradients; all but the first are of the loss"""
    preconditioned: bool = False
    """the Hessian preconditioned by the diagonal of the run's optimizer (Adam, AdamW, RMSprop, Adagrad)"""
    density: bool = False
    """also computes the spectral density"""
    probes: int = 4
    """random vectors for the density"""
    steps: int = 30
    """Lanczos steps from each random vector of the density"""
    trace: int = 0
    """products for the trace, or with --of layer for the traces of all layers; 0: no trace"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
    tolerance: float = 1e-3
    """largest residual of an eigenvalue, in units of the eigenvalue that is largest in magnitude"""
    most: int = 200
    """largest number of Hessian products for the eigenvalues"""
    seed: int = 0
    """of the random vectors"""

    @property
    def products(self) -> int:
        """Largest number of products that these options can take; with `of="layer"`, for one layer."""
        return self.most_products(1)

    def most_products(self, layers: int) -> int:
        """Largest number of products that these options can take.

        Args:
            layers: number of layers whose eigenvalues are computed, if `of` is `"layer"`.

        Returns:
            The number.
        """
        searches = layers if self.of == "layer" else 1
        eigenvalues = searches * self.most if self.largest + self.smallest else 0
        return eigenvalues + self.density * self.probes * self.steps + self.trace

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        for name, low in (("largest", 0), ("smallest", 0), ("trace", 0), ("probes", 1), ("steps", 2), ("seed", 0)):
            at_least(name, getattr(self, name), low, MOST_SEED if name == "seed" else MOST_PRODUCTS)
        at_least("most", self.most, 0)
        if not self.products:
            raise ValueError("nothing to compute: give --largest, --smallest, --density or --trace")
        if 0 < self.trace < 6:
            raise ValueError(f"--trace must be 0 or at least 6 products, not {self.trace}; 30 is a good number")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance must be between 0 and 1, not {self.tolerance}")
        if not self.of:
            raise ValueError("--of is empty: give loss, objective, layer, or a pattern of names such as 'layer3.*'")
        if self.of == "objective" and self.curvature != "hessian":
            raise ValueError(f"--curvature {self.curvature} is a matrix of the loss: leave out --of objective")
        if self.of == "layer" and self.density:
            raise ValueError("--density is of one matrix: give --of a pattern that names one layer")
        if self.most < self.largest + self.smallest:
            raise ValueError(
                f"--most {self.most} must be at least the number of eigenvalues, {self.largest + self.smallest}"
            )


@dataclass(frozen=True)
class NoiseOptions:
    """The blocks between which gradient noise is measured."""

    block: int | None = None
    """examples in a block; none: as in the run"""
    sizes: tuple[int, ...] = ()
    """block sizes for which signal to noise is predicted; none: powers of 8, the block, all examples"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""
    shuffle: bool = False
    """assigns examples to blocks at random (keyed by the run's seed): for sorted data, for instance by class"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        at_least("block", self.block, 1)
        for size in self.sizes:
            at_least("sizes", size, 1)


@dataclass(frozen=True)
class FlatnessOptions:
    """The random directions along which flatness is measured."""

    radius: float = 0.5
    """length of the step, as a multiple of the normalised direction"""
    normalised: Normalised = "filter"
    """parts of the parameters to whose norms a direction is scaled"""
    tolerance: float = 0.1
    """stops when the standard error is at most this share of the mean; 0: always takes --most directions"""
    most: int = 100
    """largest number of directions"""
    seed: int = 0
    """of the directions"""
    batch_norm: BatchNorm = "block"
    """block: the model in training mode, batch norm by blocks; running: in evaluation mode, without dropout"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        positive("radius", self.radius)
        at_least("tolerance", self.tolerance, 0)
        at_least("most", self.most, 4, MOST_PRODUCTS)
        at_least("seed", self.seed, 0, MOST_SEED)


@dataclass(frozen=True)
class FlowOptions:
    """Along which flows a run is followed, and how exactly."""

    steps: int = 100
    """steps of the run that the flows go along"""
    flows: tuple[Literal["central", "stable", "gradient"], ...] = ("central", "stable", "gradient")
    """central: with the mean effect of oscillations; stable: without; gradient: stable, with the preconditioner of the
    start; for SGD the last two are one"""
    substeps: int = 2
    """substeps of the central flow in one step of the run"""
    directions: int = 6
    """largest number of eigenvectors that the central flow follows; one more than may be at the edge"""
    tolerance: float = 1e-2
    """largest error of a substep of the stable flow, as a share of an optimizer's step"""
    eigen_tolerance: float = 3e-3
    """largest residual of the central flow's eigenvectors, in units of the eigenvalue that is largest in magnitude"""
    share: float = 0.1
    """share of the run's distance from the start at which a flow and the run have parted"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        for name, low in (("steps", 1), ("substeps", 1), ("directions", 2)):
            at_least(name, getattr(self, name), low, MOST_PRODUCTS)
        for flag, value in (("tolerance", self.tolerance), ("eigen-tolerance", self.eigen_tolerance)):
            if not 0 < value < 1:
                raise ValueError(f"--{flag} must be between 0 and 1, not {value}")
        if not 0 < self.share < math.inf:
            raise ValueError(f"--share must be a positive, finite number, not {self.share}")
        if not self.flows or len(set(self.flows)) < len(self.flows):
            raise ValueError(
                f"--flows must name each flow once, and at least one, not {' '.join(self.flows) or 'none'}"
            )


@dataclass(frozen=True)
class StepOptions:
    """Which steps of a run are followed, and how eigenvalues are computed at them."""

    steps: int | None = None
    """number of steps to follow; none: to the end of the run"""
    every: int = 1
    """measures at every N-th step"""
    pairs: int = 2
    """number of largest eigenvalues that are followed"""
    tolerance: float = 1e-3
    """largest residual of an eigenvalue, in units of the eigenvalue that is largest in magnitude"""
    most: int = 200
    """largest number of Hessian products for the eigenvalues of a step"""
    seed: int = 0
    """of the random vectors"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        at_least("steps", self.steps, 1)
        at_least("every", self.every, 1)
        at_least("pairs", self.pairs, 1, MOST_PRODUCTS)
        at_least("seed", self.seed, 0, MOST_SEED)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance must be between 0 and 1, not {self.tolerance}")
        if self.most < self.pairs:
            raise ValueError(f"--most {self.most} must be at least the number of eigenvalues, {self.pairs}")


@dataclass(frozen=True)
class EdgeOptions(StepOptions):
    """Which steps are followed, and what is measured at them."""

    batch: int | None = None
    """examples in a block of the batch sharpness; none: as in the run; 0: no batch sharpness"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        super().check()
        at_least("batch", self.batch, 0)


@dataclass(frozen=True)
class SharpenOptions(StepOptions):
    """Which steps are followed, and how the change of the sharpness in them is computed."""

    steps: int | None = 1
    """number of steps to follow; none: to the end of the run"""
    tolerance: float = 1e-4
    """largest residual of an eigenvalue, in units of the eigenvalue that is largest in magnitude"""
    both_ends: bool = True
    """also computes the eigenvalue's gradient at the end of each step, for a prediction of second order"""
