"""Compares groups of runs with the runs of one recipe: reads them, groups them by recipe, tests the differences.

The statistics are those of `comparison.py`. This module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseless.errors import command
from noiseless.files import environment, predictions, reading
from noiseless.files.address import StateAddress
from noiseless.files.predictions import Predictions
from noiseless.plain import real
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.study import comparison, grouping
from noiseless.study.comparison import POINTS, Agreement, Comparison, Correct

IMAGES_ONLY = "images only: one seed"
"""sources of variance that an interval covers where a group has one seed"""


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A finished run, or a state of a run, with its predictions on the test images."""

    path: Path
    """with `@STEP` for a state"""
    recipe: Recipe
    """with the number of steps done"""
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
        """Seeds of the runs, ascending."""
        return [run.recipe.seed for run in self.runs]

    @property
    def correct(self) -> Correct:
        """Whether the run of each seed classifies each image correctly, `[S, M]`."""
        return np.stack([run.predictions.correct for run in self.runs])

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Test accuracies of the runs, in %, `[S]`."""
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
    """Comparison of one group with the reference."""

    group: Group
    comparison: Comparison
    agreement: Agreement
    adjusted_p: float
    """p value of the difference, adjusted for the number of rows by Holm's method"""
    equivalence_p: float
    """p value of the two one-sided tests"""
    verdict: str


@dataclass(frozen=True, eq=False)
class ComparisonTable:
    """Comparisons of one or more recipes with one reference recipe."""

    against: Group
    """the reference"""
    rows: list[Row]
    margin: float
    """margin of equivalence, in points"""
    confidence: float
    """confidence of the intervals; differences are tested at the level 1 - confidence"""

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.against.runs[0].predictions.target)


def compare_runs(
    runs: Sequence[Path],
    against: Sequence[Path],
    margin: float = 0.5,
    confidence: float = 0.95,
    labels: Sequence[str] = (),
) -> ComparisonTable:
    """Compares runs of one or more recipes with runs of a reference recipe.

    Args:
        runs: directories of the runs, or `RUN@STEP`; runs that differ only in their seed form a group.
        against: directories of the runs of the reference recipe, or `RUN@STEP`.
        margin: margin of equivalence, in points of accuracy.
        confidence: confidence of the intervals.
        labels: names of the recipes in the order of first appearance, the reference last; empty: their own.

    Returns:
        A row for each group, in the order of first appearance.

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
    by_recipe, by_reference = grouping.by_recipe(compared), grouping.by_recipe(references)
    if len(by_reference) > 1:
        first, second = (seed_runs[0] for seed_runs in list(by_reference.values())[:2])
        fields = ", ".join(grouping.differing(list(by_reference)))
        raise ValueError(
            f"--against must be runs of one recipe, but {first.path} and {second.path} differ in {fields}: give the"
            " runs of one of them"
        )
    all_runs = [*compared, *references]
    grouping.by_recipe(all_runs)  # refuses a recipe that has the same seed on both sides
    _refuse_other_images(all_runs)
    names = dict(zip(by_recipe | by_reference, grouping.labelled(labels, list(by_recipe | by_reference)), strict=True))
    (reference,) = (_group(names[recipe], seed_runs) for recipe, seed_runs in by_reference.items())
    groups = [_group(names[recipe], seed_runs) for recipe, seed_runs in by_recipe.items()]
    return ComparisonTable(reference, _rows(groups, reference, margin, confidence), margin, confidence)


def as_json(table: ComparisonTable) -> dict[str, Any]:
    """Converts a table of comparisons to JSON values, unrounded.

    Args:
        table: the comparisons.

    Returns:
        Accuracies in %, differences in points, variances in squared points; None for what one seed cannot estimate.
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
    """Raises if a directory is given twice."""
    compared = {real(path) for path in runs}
    for path in against:
        if real(path) in compared:
            raise ValueError(f"{path} is in both groups, before and after --against: give it once")
    for group in (runs, against):
        for position, path in enumerate(group):
            if real(path) in {real(other) for other in group[:position]}:
                raise ValueError(f"{path} is given twice: give it once")


def _read(path: Path) -> EvaluatedRun:
    """Reads a run; raises if it has not ended or its data are not known."""
    address = StateAddress.read(str(path))
    step, path = address.step, address.directory.path
    recipe = reading.config(path).recipe
    if step is not None:
        if recipe.evaluation.ema:
            raise ValueError(
                f"{address} cannot be compared: the predictions of this run are those of its average (--ema), and those"
                " of a state are not: compare runs without --ema, or runs that have ended"
            )
        recipe = with_flags(recipe, steps=step)  # the same function of the step: warm-up and horizon are given
    elif not (path / "model.safetensors").exists():
        raise ValueError(
            f"{path} has not ended, so it has no result to compare: finish it with {command('resume', path)}"
        )
    try:
        data_sha256 = environment.data_sha256(path)
    except ValueError as error:
        raise ValueError(
            f"{error}, so it is not known on which data the run was trained: restore the file, or leave the run out"
        ) from None
    return EvaluatedRun(Path(str(address)), recipe, predictions.read(path, step), data_sha256)


def _refuse_other_images(runs: Sequence[EvaluatedRun]) -> None:
    """Raises unless all runs were evaluated on the same images."""
    first, seeds = runs[0], {run.recipe.seed for run in runs}
    for run in runs[1:]:
        if run.data_sha256 != first.data_sha256:
            raise ValueError(
                f"{first.path} and {run.path} were trained on different data ({first.recipe.data.name} and"
                f" {run.recipe.data.name}, by their digests): compare runs on the same data"
            )
    for run in runs:
        if run.recipe.data.validation and len(seeds) > 1:
            raise ValueError(
                f"{run.path} was evaluated on held-out training images (validation"
                f" {run.recipe.data.validation:g}), which differ between the seeds"
                f" {', '.join(map(str, sorted(seeds)))}: compare runs of one seed"
            )
        if not np.array_equal(run.predictions.target, first.predictions.target):
            counts = [len(evaluated.predictions.target) for evaluated in (first, run)]
            how = f"{counts[0]} and {counts[1]}" if len(set(counts)) > 1 else "their labels differ"
            raise ValueError(
                f"{first.path} and {run.path} were evaluated on different images ({how}): compare runs that were"
                " evaluated on the same"
            )


def _group(name: str, runs: list[EvaluatedRun]) -> Group:
    """A group with its runs in the order of their seeds."""
    return Group(name, sorted(runs, key=lambda run: run.recipe.seed))


def _rows(groups: list[Group], against: Group, margin: float, confidence: float) -> list[Row]:
    """Compares each group with the reference, and adjusts the p values for the number of groups."""
    reference, comparisons, agreements = against.correct, [], []
    for group in groups:
        paired = group.seeds == against.seeds
        comparisons.append(comparison.compare(group.correct, reference, paired))
        agreements.append(comparison.agreement(group.correct, reference, paired))
    adjusted = comparison.holm([compared.p for compared in comparisons])
    rows = []
    for group, compared, agreement, p in zip(groups, comparisons, agreements, adjusted, strict=True):
        equivalence_p = compared.equivalence(margin)
        conclusion = comparison.verdict(p, equivalence_p, margin, confidence)
        rows.append(Row(group, compared, agreement, p, equivalence_p, conclusion))
    return rows


def _group_json(group: Group) -> dict[str, Any]:
    runs = [
        {"path": str(run.path), "seed": run.recipe.seed, "accuracy": accuracy}
        for run, accuracy in zip(group.runs, group.accuracies.tolist(), strict=True)
    ]
    return {"name": group.name, "accuracy_mean": group.mean, "accuracy_std": group.deviation, "runs": runs}


def _row_json(row: Row, table: ComparisonTable) -> dict[str, Any]:
    compared, agreement = row.comparison, row.agreement
    return {
        **_group_json(row.group),
        "paired_by_seed": compared.paired,
        "interval_covers": IMAGES_ONLY if compared.images_only else "seeds and images",
        "difference": compared.difference,
        "interval": list(compared.interval(table.confidence)),
        "interval_90": list(compared.interval(1 - 2 * comparison.EQUIVALENCE_LEVEL)),
        "standard_error": compared.standard_error,
        "degrees_of_freedom": compared.degrees,
        "variance_seeds": compared.variance_seeds,
        "variance_images": compared.variance_images,
        "variance_interaction": compared.variance_interaction,
        "p": compared.p,
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
