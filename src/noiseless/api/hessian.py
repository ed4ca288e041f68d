"""The Hessian of any module's mean loss, or another curvature matrix: sharpness, spectral density and trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noiseless.analysis import Curvature, density, top_eigenvalues, trace
from noiseless.analysis.spectrum import MOST, TOLERANCE
from noiseless.api.curvature import matrix_of
from noiseless.api.preparing import Options, prepared, with_options
from noiseless.api.results import APART, Numbers, OfMatrix, gaps, shown
from noiseless.documented import documented
from noiseless.losses.terms import PerExample
from noiseless.report.curvature import density_figure
from noiseless.report.figures import AnyFigure, Axis, Curves, Series, View


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sharpness(OfMatrix):
    """Eigenvalues of the Hessian, or of another curvature matrix, of a module's mean loss."""

    eigenvalues: Numbers
    """the largest ones, in descending order, `[k]`; the first is the sharpness"""
    smallest: Numbers
    """the smallest ones, in ascending order, `[smallest]`"""
    residuals: Numbers
    """`||H v - value v||` of the largest and then of the smallest: an eigenvalue of H lies within that distance"""
    eigenvectors: NDArray[Any] = field(metadata=APART)
    """of length 1, those of the largest and then of the smallest, `[k + smallest, P]`; not in `to_dict`"""
    converged: bool
    """whether each residual is within the tolerance"""

    @property
    def value(self) -> float:
        """The largest eigenvalue: the sharpness."""
        return float(self.eigenvalues[0])

    def _brief(self) -> str:
        smallest = f", smallest={shown(self.smallest)}" if len(self.smallest) else ""
        return f"{shown(self.eigenvalues)}{smallest}, converged={self.converged}, passes={self.passes:.4g}"

    def _figures(self) -> Sequence[AnyFigure]:
        return _eigenvalues(self)


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HessianDensity(OfMatrix):
    """The spectral density of the Hessian, or of another curvature matrix, of a module's mean loss."""

    eigenvalues: Numbers
    """places at which the density is given, rising, `[n]`"""
    density: Numbers
    """density of the eigenvalues there, `[n]`; it integrates to 1"""
    width: float
    """standard deviation of the Gaussian with which it is smoothed"""
    nodes: Numbers
    """Ritz values of each probe, `[probes, steps]`"""
    weights: Numbers
    """their quadrature weights, `[probes, steps]`; those of a probe sum to 1"""

    def _brief(self) -> str:
        low, high = self.nodes.min(), self.nodes.max()
        return f"eigenvalues from {low:.4g} to {high:.4g}, probes={len(self.nodes)}, passes={self.passes:.4g}"

    def _figures(self) -> Sequence[AnyFigure]:
        return density_figure([Series("density", self.eigenvalues.tolist(), gaps(self.density))], False, self._matrix)


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HessianTrace(OfMatrix):
    """An estimate of the trace of the Hessian, or of another curvature matrix, of a module's mean loss."""

    value: float
    """the estimate"""
    error: float
    """its standard error; 0 if the rank of the Hessian is not above that of the sketch"""
    products: int
    """number of vectors that were multiplied"""
    parameters: int
    """number of parameters that count, P: the mean eigenvalue is `value / P`"""

    def _brief(self) -> str:
        return f"{self.value:.4g} ± {self.error:.2g}, products={self.products}, passes={self.passes:.4g}"

    def _figures(self) -> Sequence[AnyFigure]:
        low, high = [self.value - self.error], [self.value + self.error]
        point = Series("trace", ["trace"], [self.value], 0, "points", low, high)
        return [
            Curves(
                "trace",
                f"Trace of {self._matrix}",
                Axis("trace"),
                {"": View(Axis("estimate and standard error"), [point])},
            )
        ]


@with_options
def sharpness(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    k: int = 1,
    *,
    smallest: int = 0,
    curvature: Curvature = "hessian",
    of: str | None = None,
    tolerance: float = TOLERANCE,
    most: int = MOST,
    seed: int = 0,
    **options: Unpack[Options],
) -> Sharpness:
    """The largest eigenvalues of the Hessian of a module's mean loss, over all examples; the first is its sharpness.

    By Lanczos' method with Hessian-vector products that are exact over the whole data set; see
    `noiseless.analysis.top_eigenvalues`. The module is not changed.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: any loss of torch, or `(output, target)` -> one value for each example.
        data: tensors `(input, ..., target)`, a data set or a `DataLoader`, of which batch size and data set are used.
        k: number of largest eigenvalues.
        smallest: number of smallest eigenvalues, which may be negative.
        curvature: `"hessian"`, `"ggn"` (generalised Gauss-Newton), `"fisher"` or `"empirical-fisher"`; see
            `noiseless.analysis.GaussNewton`.
        of: a pattern of names of parameters or layers, such as `"layer3.*"`: the block of these parameters alone; None:
            all parameters. `curvature_by_layer` takes each layer.
        tolerance: largest residual, relative to the eigenvalue that is largest in magnitude.
        most: largest number of Hessian-vector products.
        seed: of the random vector with which the search starts.
        **options: see `Options`.

    Returns:
        Eigenvalues, eigenvectors and residuals.
    """
    with prepared("sharpness", model, loss, data, **options) as work:
        matrix = matrix_of(work, curvature, of)
        top = top_eigenvalues(matrix, k, smallest, tolerance=tolerance, most=most, seed=seed)
        both = top.largest, top.smallest
        return Sharpness(
            eigenvalues=_array(top.largest.values),
            smallest=_array(top.smallest.values),
            residuals=_array(torch.cat([pairs.residuals for pairs in both])),
            eigenvectors=_as_numpy(torch.cat([pairs.vectors for pairs in both])),
            converged=top.converged,
            curvature=curvature,
            of=of,
            **work.common(top.passes),
        )


@with_options
def hessian_density(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    *,
    curvature: Curvature = "hessian",
    of: str | None = None,
    probes: int = 4,
    steps: int = 30,
    points: int = 400,
    seed: int = 0,
    **options: Unpack[Options],
) -> HessianDensity:
    """The density of the eigenvalues of the Hessian of a module's mean loss, by stochastic Lanczos quadrature.

    See `noiseless.analysis.density`; Ghorbani et al., ICML 2019, arXiv 1901.10159. The module is not changed.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: as for `sharpness`.
        data: as for `sharpness`.
        curvature: as for `sharpness`.
        of: as for `sharpness`.
        probes: number of random vectors.
        steps: Hessian-vector products for each of them.
        points: number of places at which the density is given.
        seed: of the random vectors.
        **options: see `Options`.

    Returns:
        The density.
    """
    with prepared("Hessian density", model, loss, data, **options) as work:
        matrix = matrix_of(work, curvature, of)
        work.bar.total = probes * min(steps, len(matrix.space)) * len(work.risk.blocks)
        spectrum = density(matrix, probes, steps, seed)
        grid, width = spectrum.grid(points)
        return HessianDensity(
            eigenvalues=_array(grid),
            density=_array(spectrum.at(grid, width)),
            width=width,
            nodes=_array(spectrum.nodes),
            weights=_array(spectrum.weights),
            curvature=curvature,
            of=of,
            **work.common(spectrum.passes),
        )


@with_options
def hessian_trace(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    *,
    curvature: Curvature = "hessian",
    of: str | None = None,
    products: int = 30,
    seed: int = 0,
    **options: Unpack[Options],
) -> HessianTrace:
    """The trace of the Hessian of a module's mean loss, by Hutch++, with its standard error.

    See `noiseless.analysis.trace`; Meyer et al., 2021, arXiv 2010.09649. The module is not changed.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: as for `sharpness`.
        data: as for `sharpness`.
        curvature: as for `sharpness`.
        of: as for `sharpness`.
        products: number of Hessian-vector products, at least 6.
        seed: of the random vectors.
        **options: see `Options`.

    Returns:
        The estimate.
    """
    with prepared("Hessian trace", model, loss, data, **options) as work:
        matrix = matrix_of(work, curvature, of)
        estimate = trace(matrix, products, seed)
        return HessianTrace(
            value=estimate.value, error=estimate.error, products=estimate.products, parameters=len(matrix.space),
            curvature=curvature, of=of, **work.common(estimate.passes),
        )  # fmt: skip


def _eigenvalues(result: Sharpness) -> list[Curves]:
    """The eigenvalues by number, with bars of the residuals."""
    series, ends = [], (("largest", result.eigenvalues), ("smallest", result.smallest))
    first = 0
    for look, (name, values) in enumerate(ends):
        errors = result.residuals[first : first + len(values)]
        first += len(values)
        if len(values):
            places = [float(number) for number in range(1, len(values) + 1)]
            low, high = (values - errors).tolist(), (values + errors).tolist()
            series.append(Series(f"{name}, ± residual", places, gaps(values), look, "points", low, high))
    view = {"": View(Axis("number"), series)}
    return [Curves("eigenvalues", f"Eigenvalues of {result._matrix}", Axis("eigenvalue"), view, legend=True)]


def _array(values: Tensor) -> Numbers:
    """Numbers as a float64 array."""
    return np.asarray(values.detach().cpu().double().numpy(), dtype=np.float64)


def _as_numpy(vectors: Tensor) -> NDArray[Any]:
    """Vectors as an array of their dtype, or of float32 where numpy lacks it."""
    vectors = vectors.detach().cpu()
    return vectors.float().numpy() if vectors.dtype == torch.bfloat16 else vectors.numpy()
