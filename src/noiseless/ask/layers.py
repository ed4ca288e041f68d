"""The curvature of a run's state by layer: eigenvalues of each layer's block, and the traces of all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from noiseless.analysis import Eigenpairs, Operator, Restricted, diagonal, layer_parts, top_eigenvalues
from noiseless.ask.options import SharpnessOptions
from noiseless.objective import ParameterSpace


def by_layer(matrix: Operator, space: ParameterSpace, options: SharpnessOptions) -> dict[str, Any]:
    """Eigenvalues and traces of the blocks of a matrix that belong to the layers of a module.

    Args:
        matrix: on all parameters.
        space: of the module.
        options: numbers of eigenvalues, and of probes for the traces, which all layers share.

    Returns:
        `layers`: for each layer its `name`, number of `parameters`, eigenvalues with residuals, whether these have
        `converged`, and `trace`; and of all of them `trace`, `products`, `passes` and `converged`.
    """
    rows: list[dict[str, Any]] = []
    total: dict[str, Any] = {"products": 0, "passes": 0.0, "converged": True, "trace": None}
    for name, part in layer_parts(space).items():
        row: dict[str, Any] = {"name": name, "parameters": len(part), "trace": None, "converged": True}
        kept = fitting(options, len(part))
        if kept.largest + kept.smallest:
            top = top_eigenvalues(
                Restricted(matrix, part), kept.largest, kept.smallest, tolerance=options.tolerance, most=options.most,
                seed=options.seed,
            )  # fmt: skip
            row |= {"converged": top.converged, **eigenvalues("largest", top.largest)}
            row |= eigenvalues("smallest", top.smallest)
            total["products"] += top.products
            total["passes"] += top.passes
            total["converged"] = total["converged"] and top.converged
        rows.append(row)
    if options.trace:
        traces = diagonal(matrix, options.trace, options.seed)
        for row in rows:
            layer = traces.layers[row["name"]]
            row["trace"] = {"value": layer.value, "error": layer.error}
        total |= {"trace": {"value": traces.trace, "error": traces.trace_error}}
        total["passes"] += traces.passes
    return {"layers": rows, **total}


def fitting(options: SharpnessOptions, parameters: int) -> SharpnessOptions:
    """The options with no more eigenvalues than a layer has parameters."""
    largest = min(options.largest, parameters)
    return replace(options, largest=largest, smallest=min(options.smallest, parameters - largest))


def eigenvalues(name: str, pairs: Eigenpairs) -> dict[str, Any]:
    """Eigenvalues and residuals as plain values, under the name of their end of the spectrum."""
    return {name: pairs.values.tolist(), f"{name}_residuals": pairs.residuals.tolist()}
