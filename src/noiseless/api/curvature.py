"""Curvature matrices of any module's mean loss, and their eigenvalues and traces layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from torch import nn

from noiseless.analysis import (
    Curvature,
    Operator,
    Restricted,
    curvature_matrix,
    diagonal,
    layer_parts,
    matching_part,
    top_eigenvalues,
)
from noiseless.analysis.spectrum import MOST, TOLERANCE
from noiseless.api.preparing import Options, Prepared, prepared, with_options
from noiseless.api.results import Numbers, OfMatrix, gaps, shown
from noiseless.documented import documented
from noiseless.losses.terms import PerExample
from noiseless.report.figures import AnyFigure
from noiseless.report.layer_curvature import layers_figures


def matrix_of(work: Prepared, curvature: Curvature, of: str | None) -> Operator:
    """A curvature matrix of a module during an analysis.

    Args:
        work: the module's risk.
        curvature: which matrix.
        of: a pattern of names of the parameters to whose block it is restricted; None: all parameters.

    Returns:
        The operator.
    """
    matrix = curvature_matrix(work.risk, curvature, work.batch_norm)
    return matrix if of is None else Restricted(matrix, matching_part(work.risk.space, of))


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LayerCurvature(OfMatrix):
    """Eigenvalues and traces of the blocks of a curvature matrix that belong to the layers of a module."""

    layers: Sequence[str]
    """names of the layers: the modules that hold parameters themselves, `[layers]`"""
    parameters: Sequence[int]
    """numbers of their parameters"""
    eigenvalues: Numbers
    """the largest ones of each layer's block, in descending order, `[layers, k]`; NaN where a layer has fewer"""
    residuals: Numbers
    """`||A v - value v||` of each, `[layers, k]`: an eigenvalue of the block lies within that distance"""
    traces: Numbers
    """of the blocks, `[layers]`"""
    errors: Numbers
    """standard errors of the traces, `[layers]`"""
    converged: bool
    """whether each residual is within the tolerance"""

    def _brief(self) -> str:
        largest = self.eigenvalues[:, 0] if self.eigenvalues.size else self.traces
        what = "largest" if self.eigenvalues.size else "traces"
        return f"{len(self.layers)} layers, {what}={shown(largest)}, passes={self.passes:.4g}"

    def _figures(self) -> Sequence[AnyFigure]:
        count = len(self.layers)
        largest = gaps(self.eigenvalues[:, 0]) if self.eigenvalues.size else [None] * count
        traces = gaps(self.traces) if self.traces.size else [None] * count
        errors = gaps(self.errors) if self.errors.size else [None] * count
        return layers_figures([("", 0, list(zip(self.layers, largest, traces, errors, strict=True)))], False)


@with_options
def curvature_by_layer(
    model: nn.Module,
    loss: PerExample,
    data: Any,
    k: int = 1,
    *,
    curvature: Curvature = "hessian",
    probes: int = 30,
    tolerance: float = TOLERANCE,
    most: int = MOST,
    seed: int = 0,
    **options: Unpack[Options],
) -> LayerCurvature:
    """The largest eigenvalues and the trace of each layer's block of a curvature matrix, over all examples.

    The eigenvalues are searched layer by layer. The traces share their products: each is estimated from random signs,
    with a standard error, see `noiseless.analysis.diagonal`. The module is not changed.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: as for `sharpness`.
        data: as for `sharpness`.
        k: number of largest eigenvalues of each layer; 0: none.
        curvature: as for `sharpness`.
        probes: vectors of random signs for the traces, at least 2; 0: no traces.
        tolerance: as for `sharpness`.
        most: largest number of products for the eigenvalues of a layer.
        seed: of the random vectors.
        **options: see `Options`.

    Returns:
        Eigenvalues and traces by layer.

    Raises:
        ValueError: if k and probes are 0, or a number is out of range.
    """
    if k < 0 or probes < 0 or not k + probes:
        raise ValueError(f"give a number of eigenvalues or of probes for traces, not k={k} and probes={probes}")
    with prepared("curvature by layer", model, loss, data, **options) as work:
        matrix = curvature_matrix(work.risk, curvature, work.batch_norm)
        parts = layer_parts(work.risk.space)
        values, residuals = np.full((len(parts), k), np.nan), np.full((len(parts), k), np.nan)
        passes, converged = 0.0, True
        for number, part in enumerate(parts.values()):
            count = min(k, len(part))
            if not count:
                continue
            top = top_eigenvalues(Restricted(matrix, part), count, tolerance=tolerance, most=most, seed=seed)
            values[number, :count] = top.largest.values.numpy()
            residuals[number, :count] = top.largest.residuals.numpy()
            passes, converged = passes + top.passes, converged and top.converged
        estimate = diagonal(matrix, probes, seed) if probes else None
        traces = [] if estimate is None else list(estimate.layers.values())
        passes += 0.0 if estimate is None else estimate.passes
        return LayerCurvature(
            layers=list(parts),
            parameters=[len(part) for part in parts.values()],
            eigenvalues=values,
            residuals=residuals,
            traces=np.array([trace.value for trace in traces]),
            errors=np.array([trace.error for trace in traces]),
            converged=converged,
            curvature=curvature,
            **work.common(passes),
        )
