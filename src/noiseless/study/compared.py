"""Runs that are compared: read, grouped by recipe, and held against those of one recipe. Torch is not needed here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseless.files import predictions, reading
from noiseless.files.predictions import Predictions
from noiseless.recipes.recipe import Recipe
from noiseless.study import comparison, grouping
from noiseless.study.comparison import POINTS, Agreement, Comparison, Correct

IMAGES_ONLY = "images only: one seed"
"""what an interval covers where a group has one seed"""


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A run that has ended, with its predictions."""

    path: Path
    recipe: Recipe
    predictions: Predictions
    data_sha256: str


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one recipe."""

    name: str
    runs: list[EvaluatedRun]
    """by seed"""

    @property
    def seeds(self) -> list[int]:
        """Of the runs, ascending."""
        return [run.recipe.seed for run in self.runs]

    @property
    def correct(self) -> Correct:
        """Whether the run of each seed classifies each image correctly, `[S, M]`."""
        return np.stack([run.predictions.correct for run in self.runs])

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Of the runs, in %, `[S]`."""
        return POINTS * self.correct.mean(1)

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds, in %."""
        return float(self.accuracies.mean())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the accuracy over the seeds, in points; None for one seed."""
        return float(self.accuracies.std(ddof=1)) if len(self.runs) > 1 else None


@dataclass(frozen=True, eq=False)
class Row:
    """One recipe beside the one that it is compared with."""

    group: Group
    comparison: Comparison
    agreement: Agreement
    adjusted_p: float
    """the comparison's p value, adjusted for the number of rows after Holm"""
    equivalence_p: float
    """of the two one-sided tests"""
    verdict: str


@dataclass(frozen=True, eq=False)
class ComparisonTable:
    """Recipes, each compared with the same one."""

    against: Group
    rows: list[Row]
    margin: float
    """of equivalence, in points"""
    confidence: float
    """of the intervals; 1 - confidence is the level of the tests of a difference"""

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.against.runs[0].predictions.target)


def compare_runs(
    runs: Sequence[Path], against: Sequence[Path], margin: float = 0.5, confidence: float = 0.95
) -> ComparisonTable:
    """Compares the recipes of some runs with the recipe of others.

    Args:
        runs: directories of runs of one or more recipes; those that are equal but for their seed are one group.
        against: directories of runs of the one recipe with which each group is compared.
        margin: of equivalence, in points of accuracy.
        confidence: of the intervals.

    Returns:
        A row a group, in the order of first appearance.

    Raises:
        ValueError: if margin or confidence is out of range, a run cannot be compared, or the runs were not evaluated on
            the same images.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"--margin must be a positive number of points, not {margin:g}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"--confidence must lie between 0.5 and 1, such as 0.95, not {confidence:g}")
    if not runs or not against:
        what = "--against is missing: give the runs to compare with" if runs else "give at least one run to compare"
        raise ValueError(f"{what}: noiseless compare RUN [RUN ...] --against RUN [RUN ...]")
    _refuse_repeated(runs, against)
    compared, references = [_read(path) for path in runs], [_read(path) for path in against]
    recipes, reference = grouping.by_recipe(compared), grouping.by_recipe(references)
    if len(reference) > 1:
        first, second = (alike[0] for alike in list(reference.values())[:2])
        fields = ", ".join(grouping.differing(list(reference)))
        raise ValueError(
            f"--against must be runs of one recipe, but {first.path} and {second.path} differ in {fields}: give those"
            " of one recipe"
        )
    everything = [*compared, *references]
    grouping.by_recipe(everything)  # the same recipe with the same seed on both sides would be compared with itself
    _refuse_other_images(everything)
    names = dict(zip(recipes | reference, grouping.names(list(recipes | reference)), strict=True))
    (one,) = (_group(names[recipe], alike) for recipe, alike in reference.items())
    groups = [_group(names[recipe], alike) for recipe, alike in recipes.items()]
    return ComparisonTable(one, _rows(groups, one, margin, confidence), margin, confidence)


def as_json(table: ComparisonTable) -> dict[str, Any]:
    """Comparisons as plain values, unrounded.

    Args:
        table: the comparisons.

    Returns:
        Accuracies in %, differences in points, variances in squared points; None for what one seed cannot tell.
    """
    return {
        "images": table.images,
        "data": table.against.runs[0].recipe.data.name,
        "data_sha256": table.against.runs[0].data_sha256,
        "margin": table.margin,
        "confidence": table.confidence,
        "against": _group_json(table.against),
        "compared": [_row_json(row, table) for row in table.rows],
    }


def _refuse_repeated(runs: Sequence[Path], against: Sequence[Path]) -> None:
    there = {path.resolve() for path in runs}
    for path in against:
        if path.resolve() in there:
            raise ValueError(f"{path} is in both groups: a run compared with itself tells nothing; give it once")
    for group in (runs, against):
        for position, path in enumerate(group):
            if path.resolve() in {other.resolve() for other in group[:position]}:
                raise ValueError(f"{path} is given twice: give it once")


def _read(path: Path) -> EvaluatedRun:
    recipe = reading.config(reading.find(path)).recipe
    if not (path / "model.safetensors").exists():
        raise ValueError(
            f"{path} has not ended, so there is nothing to compare yet: go on with noiseless resume {path}"
        )
    try:
        data_sha256 = str(json.loads((path / "environment.json").read_text())["data_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path / 'environment.json'} cannot be read ({error!r}), so whether the data are the same is not known:"
            " put it back, or leave the run out"
        ) from None
    return EvaluatedRun(path, recipe, predictions.read(path), data_sha256)


def _refuse_other_images(runs: Sequence[EvaluatedRun]) -> None:
    """Raises unless all runs were evaluated on the same images."""
    first, seeds = runs[0], {run.recipe.seed for run in runs}
    for run in runs[1:]:
        if run.data_sha256 != first.data_sha256:
            raise ValueError(
                f"{first.path} and {run.path} are of different data ({first.recipe.data.name} and"
                f" {run.recipe.data.name}, by their digests): compare runs on the same data"
            )
    for run in runs:
        if run.recipe.data.validation and len(seeds) > 1:
            raise ValueError(
                f"{run.path} was evaluated on held-out training images (validation"
                f" {run.recipe.data.validation:g}), which are others for each of the seeds"
                f" {', '.join(map(str, sorted(seeds)))}: compare runs of one seed"
            )
        if not np.array_equal(run.predictions.target, first.predictions.target):
            counts = [len(each.predictions.target) for each in (first, run)]
            how = f"{counts[0]} and {counts[1]}" if len(set(counts)) > 1 else "their labels differ"
            raise ValueError(
                f"{first.path} and {run.path} were evaluated on different images ({how}): compare runs that were"
                " evaluated on the same"
            )


def _group(name: str, runs: list[EvaluatedRun]) -> Group:
    return Group(name, sorted(runs, key=lambda run: run.recipe.seed))


def _rows(groups: list[Group], against: Group, margin: float, confidence: float) -> list[Row]:
    other, comparisons, agreements = against.correct, [], []
    for group in groups:
        paired = group.seeds == against.seeds
        comparisons.append(comparison.compare(group.correct, other, paired))
        agreements.append(comparison.agreement(group.correct, other, paired))
    adjusted = comparison.holm([found.p for found in comparisons])
    rows = []
    for group, found, agreement, p in zip(groups, comparisons, agreements, adjusted, strict=True):
        equivalence_p = found.equivalence(margin)
        shown = comparison.verdict(p, equivalence_p, margin, confidence)
        rows.append(Row(group, found, agreement, p, equivalence_p, shown))
    return rows


def _group_json(group: Group) -> dict[str, Any]:
    runs = [
        {"path": str(run.path), "seed": run.recipe.seed, "accuracy": accuracy}
        for run, accuracy in zip(group.runs, group.accuracies.tolist(), strict=True)
    ]
    return {"name": group.name, "accuracy_mean": group.mean, "accuracy_std": group.deviation, "runs": runs}


def _row_json(row: Row, table: ComparisonTable) -> dict[str, Any]:
    found, agreement = row.comparison, row.agreement
    return {
        **_group_json(row.group),
        "paired_by_seed": found.paired,
        "interval_covers": IMAGES_ONLY if found.images_only else "seeds and images",
        "difference": found.difference,
        "interval": list(found.interval(table.confidence)),
        "interval_90": list(found.interval(1 - 2 * comparison.EQUIVALENCE_LEVEL)),
        "standard_error": found.standard_error,
        "degrees_of_freedom": found.degrees,
        "variance_seeds": found.variance_seeds,
        "variance_images": found.variance_images,
        "variance_interaction": found.variance_interaction,
        "p": found.p,
        "p_holm": row.adjusted_p,
        "p_equivalence": row.equivalence_p,
        "verdict": row.verdict,
        "who_is_right": {
            "pairs": agreement.pairs,
            "both": agreement.both,
            "only_this": agreement.only_first,
            "only_against": agreement.only_second,
            "neither": agreement.neither,
        },
    }
