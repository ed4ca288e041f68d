"""Largest eigenvalues and traces of the layers' blocks of a curvature matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from noiseless.report.figures import AnyFigure, Axis, Curves, Series, View, number, scale
from noiseless.report.run_answers import RunAnswer, checked_values, distinct, looks

TRACES = "Traces have bars of one standard error."


def layer_figures(answers: Sequence[RunAnswer]) -> list[AnyFigure]:
    """The figures of all answers by layer: the largest eigenvalue of each layer, and its trace.

    Args:
        answers: of the kind sharpness.

    Returns:
        A figure for each of the two that an answer has.
    """
    chosen = [answer for answer in answers if answer.values.get("layers")]
    names = distinct([answer.name for answer in chosen], [answer.answer.name for answer in chosen])
    colours, legend = looks(chosen)
    rows = []
    for answer, name, look in zip(chosen, names, colours, strict=True):
        with checked_values(answer) as content:
            layers = [
                (
                    str(layer["name"]) or "(module)",
                    number(layer["largest"][0]) if layer.get("largest") else None,
                    number(layer["trace"]["value"]) if layer["trace"] else None,
                    number(layer["trace"]["error"]) if layer["trace"] else None,
                )
                for layer in content["layers"]
            ]
            matrix = content.get("curvature", "hessian")
        rows.append((name if matrix == "hessian" else f"{name}, {matrix}", look, layers))
    return layers_figures(rows, legend)


def layers_figures(
    rows: Sequence[tuple[str, int, Sequence[tuple[str, float | None, float | None, float | None]]]], legend: bool
) -> list[AnyFigure]:
    """Figures over the layers.

    Args:
        rows: name and look of each answer, with its layers: name, largest eigenvalue, trace and its error.
        legend: whether the figures need a legend of their own.

    Returns:
        A figure of eigenvalues and one of traces, as far as there are values.
    """
    eigenvalues, traces = [], []
    for name, look, layers in rows:
        places = [layer for layer, *_ in layers]
        if any(value is not None for _, value, *_ in layers):
            eigenvalues.append(Series(name, places, [value for _, value, *_ in layers], look, "points"))
        if any(value is not None for _, _, value, _ in layers):
            values = [value for _, _, value, _ in layers]
            errors = [error or 0.0 for *_, error in layers]
            low = [None if v is None else v - e for v, e in zip(values, errors, strict=True)]
            high = [None if v is None else v + e for v, e in zip(values, errors, strict=True)]
            traces.append(Series(name, places, values, look, "points", low, high))
    return [
        *_figure(
            "layer-eigenvalues", "Largest eigenvalue of each layer's block", "eigenvalue", eigenvalues, legend, ""
        ),
        *_figure("layer-traces", "Trace of each layer's block", "trace", traces, legend, TRACES),
    ]


def _figure(name: str, title: str, axis: str, series: list[Series], legend: bool, note: str) -> list[Any]:
    if not series:
        return []
    values = [y for line in series for y in line.y if y is not None]
    kind = scale(values) if all(value > 0 for value in values) else "linear"
    view = {"layer": View(Axis("layer"), series)}
    return [Curves(name, title, Axis(axis, kind), view, legend=legend, wide=True, note=note)]
