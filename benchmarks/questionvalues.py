"""The values of an answer that docs/questions.md needs, from its file: numbers and short series, no vectors."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

DIGITS = 6
"""significant digits of a number"""
KEYS: dict[str, tuple[str, ...]] = {
    "sharpness": ("step", "largest", "curvature", "loss", "stability", "converged", "layers"),
    "noise": (
        "step",
        "block",
        "examples",
        "covariance_trace",
        "signal",
        "noise_scale",
        "noise_scale_interval",
        "reason",
    ),
    "landscape": ("step", "axes", "loss", "accuracy"),
    "flatness": ("step", "radius", "directions", "mean_increase", "standard_error"),
    "edge": ("measure", "steps", "sharpness", "edge", "losses", "crossings", "catapults", "reproduced"),
    "sharpen": ("step", "sharpness", "change", "predicted", "second_order", "causes"),
    "flow": ("step", "by_flow", "observed", "repeated", "parted"),
    "decompose": ("step", "lr", "examples", "orders", "batches"),
    "fork": ("step", "until", "changes", "flip", "steps", "distance", "barriers", "line", "images", "reproduced"),
}
"""kind of an answer -> names of its values"""
LAYER = ("name", "parameters", "largest", "trace")


def values(path: Path) -> dict[str, Any]:
    """The values of an answer's file, or of the folder of `noiseless dial`.

    Args:
        path: of the file, or the folder.

    Returns:
        Kind, passes and values; numbers with six significant digits.
    """
    if path.is_dir():
        return {"kind": "dial", "passes": None, "table": (path / "table.md").read_text()}
    answer = json.loads(path.read_text())
    found, kind = answer["found"], answer["kind"]
    kept = {name: found[name] for name in KEYS[kind] if found.get(name) is not None}
    if "layers" in kept:
        kept["layers"] = [{name: layer.get(name) for name in LAYER} for layer in kept["layers"]]
    if kind == "edge":
        kept |= {name: len(kept[name]) for name in ("crossings", "catapults")}
        losses = kept["losses"]
        quarter = max(len(losses) // 4, 1)
        kept["followed"] = len(losses)
        kept["rises"] = sum(after > before for before, after in pairwise(losses))
        kept["quarters"] = [fmean(losses[at : at + quarter]) for at in range(0, 4 * quarter, quarter)]
        kept["losses"] = losses[:: found["every"]]
    if kind == "fork" and "images" in kept:
        kept["images"] = {name: value for name, value in kept["images"].items() if name != "differ"}
    if kind == "landscape":
        kept["axes"] = [axis["points"] for axis in kept["axes"]]
    short: dict[str, Any] = _short({"kind": kind, "passes": found["passes"], **kept})
    return short


def _short(value: Any) -> Any:  # plain values of any nesting
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
