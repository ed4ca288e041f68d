"""Writes the results of experiments into docs/cifar.md, from the ledger alone.

    .venv/bin/python benchmarks/cifarreport.py            # prints the tables
    .venv/bin/python benchmarks/cifarreport.py --write    # and writes them into the page

The statistics are those of `noiseless compare`, with the comparisons that the page planned.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cifararms import EXPERIMENTS, Arm
from ledger import Ledger, unpacked
from numpy.typing import NDArray

from noiseless.study import comparison
from noiseless.study.comparison import Comparison

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "benchmarks/results/cifar"
LABELS = ROOT / "benchmarks/results/cifar10-test-labels.json"
PAGE = ROOT / "docs/cifar.md"
MARGIN = 0.5
"""points within which two arms count as equivalent, as the page planned"""
CONFIDENCE = 0.95
PLANNED = {
    "A": (
        ("A-mini", "A-full"), ("A-full-recut", "A-full"), ("A-mini-group", "A-full"), ("A-full-group", "A-full"),
        ("A-mini-group", "A-full-group"),
    ),
}  # fmt: skip
"""experiment -> the comparisons (arm, reference) of its table"""
TRIALS = ("B", "N")
"""experiments whose trials have a table of their own: those of B until its runs end, and N, which has nothing else"""


@dataclass(frozen=True)
class Group:
    """The runs of an arm that are in the ledger."""

    arm: Arm
    seeds: tuple[int, ...]
    correct: NDArray[np.bool_]
    """whether each seed's run classifies each test image correctly, `[S, M]`"""
    passes: float
    updates: int
    setting: str
    """learning rate and weight decay, with marks where they are at the end of an axis"""

    @property
    def accuracy(self) -> str:
        """Mean and sample standard deviation over the seeds, in %."""
        values = 100 * self.correct.mean(1)
        return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def groups(experiment: str, ledger: Ledger) -> dict[str, Group]:
    """The arms of an experiment that have runs in the ledger, by name."""
    target = unpacked(json.loads(LABELS.read_text())["labels"])
    results = ledger.results()
    (arms,) = (e.arms for e in EXPERIMENTS if e.name == experiment)
    by_name = {arm.name: arm for arm in arms}
    existing = {}
    for arm in arms:
        tuned = by_name[arm.like or arm.name]
        chosen = tuned.chosen(results)
        if chosen is None:
            continue
        runs = [run for run in arm.runs(*chosen) if run.name in results]
        if not runs:
            continue
        entries = [ledger.entry(run.name) for run in runs]
        for run in runs:
            assert not ledger.differing(run), f"{run.name}: the ledger has another run"
        predicted = np.stack([unpacked(entry["predictions"]) for entry in entries])
        correct = predicted == target
        for entry, row in zip(entries, correct, strict=True):
            assert abs(entry["accuracy"] - row.mean()) < 1e-9, f"{entry['run']}: predictions and accuracy disagree"
        recipe = runs[0].recipe
        images = recipe.data.images or 50_000
        a_pass = images // recipe.objective.block if recipe.objective.regime == "stochastic" else 1
        existing[arm.name] = Group(
            arm, tuple(run.recipe.seed for run in runs), correct, entries[0]["passes"],
            recipe.schedule.steps * a_pass * recipe.objective.parts, _setting(tuned, *chosen),
        )  # fmt: skip
    return existing


def _setting(arm: Arm, rate: float, decay: float) -> str:
    marks = ["*" if len(axis) > 1 and value in (min(axis), max(axis)) else ""
             for value, axis in ((rate, arm.rates), (decay, arm.decays))]  # fmt: skip
    return f"{rate:g}{marks[0]}, {decay:g}{marks[1]}"


def lines(experiment: str, ledger: Ledger) -> list[str]:
    """The tables of an experiment, as lines of Markdown: its arms, and its planned comparisons."""
    arms = groups(experiment, ledger)
    short = {name: name.removeprefix(f"{experiment}-") for name in arms}
    text = [
        "| arm | updates | passes | lr, decay | seeds | test accuracy % |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, group in arms.items():
        text.append(
            f"| {short[name]} | {group.updates} | {group.passes:g} | {group.setting} | {len(group.seeds)} |"
            f" {group.accuracy} |"
        )
    pairs = [(a, b) for a, b in PLANNED[experiment] if a in arms and b in arms]
    compared = [_compare(arms[a], arms[b]) for a, b in pairs]
    adjusted = comparison.holm([one.p for one in compared]) if compared else []
    text += ["", "| comparison | difference, points | 95 % interval | 90 % interval | p (Holm) | verdict |",
             "| --- | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for (a, b), one, p in zip(pairs, compared, adjusted, strict=True):
        cells = (
            f"{short[a]} - {short[b]}", f"{one.difference:+.2f}", _interval(one, CONFIDENCE), _interval(one, 0.9),
            f"{p:.4f}" if p >= 1e-4 else "< 0.0001",
            comparison.verdict(p, one.equivalence(MARGIN), MARGIN, CONFIDENCE),
        )  # fmt: skip
        text.append(f"| {' | '.join(cells)} |")
    return text


def trial_lines(experiment: str, ledger: Ledger) -> list[str]:
    """The table of an experiment's finished trials: accuracy on the 5,000 training images that they left out."""
    results = ledger.results()
    (arms,) = (e.arms for e in EXPERIMENTS if e.name == experiment)
    text = [
        "| arm | images | passes | lr | decay | held-out accuracy % |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm in arms:
        for run in arm.trials(results) if arm.like is None else ():
            if run.name not in results:
                continue
            assert not ledger.differing(run), f"{run.name}: the ledger has another run"
            entry, recipe = ledger.entry(run.name), run.recipe
            images = recipe.data.images or round(50_000 * (1 - recipe.data.validation))
            setting = f"{recipe.optimizer.lr:g} | {recipe.optimizer.weight_decay:g}"
            accuracy = f"{100 * entry['accuracy']:.2f}"
            name = arm.name.removeprefix(f"{experiment}-")
            text.append(f"| {name} | {images:,} | {entry['passes']:g} | {setting} | {accuracy} |")
    return text


def _compare(first: Group, second: Group) -> Comparison:
    """Paired by the seeds that both have."""
    common = [seed for seed in first.seeds if seed in second.seeds]
    rows = [[group.seeds.index(seed) for seed in common] for group in (first, second)]
    return comparison.compare(first.correct[rows[0]], second.correct[rows[1]], paired=True)


def _interval(one: Comparison, confidence: float) -> str:
    return "{:+.2f} to {:+.2f}".format(*one.interval(confidence))


def with_results(page: str, experiment: str, tables: Sequence[str], kind: str = "results") -> str:
    """The page with an experiment's tables, of its results or trials, between its two marks."""
    begin, end = (f"<!-- {kind} of {experiment}: {word} -->" for word in ("begin", "end"))
    assert begin in page and end in page, f"docs/cifar.md lacks the marks of {experiment}"
    return re.sub(
        f"{re.escape(begin)}.*{re.escape(end)}", lambda _: "\n".join([begin, *tables, end]), page, flags=re.DOTALL
    )


def main() -> None:
    """Prints the tables, and with `--write` writes them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/cifar.md")
    args = parser.parse_args()
    page = PAGE.read_text()
    for experiment in PLANNED:
        tables = lines(experiment, Ledger(LEDGER))
        print("\n".join([f"{experiment}:", *tables]))
        page = with_results(page, experiment, tables)
    for experiment in TRIALS:
        tables = trial_lines(experiment, Ledger(LEDGER))
        print("\n".join([f"trials of {experiment}:", *tables]))
        page = with_results(page, experiment, tables, "trials")
    if args.write:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
