"""Tables of a race as the page has them: parsed, a contender's rows put in the place of its earlier ones, compared.

The page is the record: runs are in no repository, so one contender that runs again is held against the means and
standard deviations of the others as they stand there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from noiseless.report import drawing
from noiseless.report.figures import Axis, Curves, Series, View, numbers, scale
from noiseless.report.price import MINI_BATCH, lines, points
from noiseless.run.contenders import CONTENDERS

ACCURACY, POINTS, SETTINGS = "Test accuracy", "Points", "Settings"
KEPT = (ACCURACY, POINTS, SETTINGS)
"""beginnings of the titles of the tables that the page has"""
Cells = dict[tuple[str, int], str]
"""by contender and budget"""


@dataclass(frozen=True)
class Tables:
    """What the page has of a race."""

    titles: dict[str, str]
    """by their beginnings"""
    accuracy: Cells
    """in %, mean ± sample standard deviation"""
    settings: Cells

    @classmethod
    def parsed(cls, text: str) -> Tables:
        """From Markdown: a race's `table.md`, or what the page has of it."""
        parts = re.findall(r"^([A-Z][^\n]*:)\n\n((?:\|[^\n]*\n)+)", text, flags=re.MULTILINE)
        found = {name: part for name in KEPT for part in parts if part[0].startswith(name)}
        titles = {name: title for name, (title, _) in found.items()}
        return cls(titles, _cells(found[ACCURACY][1]), _cells(found[SETTINGS][1]))

    def renewed(self, other: Tables) -> Tables:
        """This, with what the other has of contenders and budgets as it is there, in the usual order."""
        accuracy, settings = (
            dict(sorted({**own, **new}.items(), key=_place))
            for own, new in ((self.accuracy, other.accuracy), (self.settings, other.settings))
        )
        return Tables(other.titles, accuracy, settings)

    def mean(self, name: str, budget: int) -> float:
        """Mean test accuracy, in %."""
        return _numbers(self.accuracy[name, budget])[0]

    def best(self, budget: int) -> str:
        """The mini-batch contender with the largest mean."""
        names = [name for name, at in self.accuracy if at == budget and CONTENDERS[name].group == MINI_BATCH]
        return max(names, key=lambda name: self.mean(name, budget))

    def more(self, one: tuple[str, int], other: tuple[str, int], seeds: int) -> tuple[float, float]:
        """Points of mean accuracy that one has more, with the standard error over seeds, `sqrt((s1^2 + s2^2) / n)`."""
        (mean, spread), (against, its) = (_numbers(self.accuracy[key]) for key in (one, other))
        return mean - against, math.sqrt((spread**2 + its**2) / seeds)

    def markdown(self) -> str:
        """All three tables."""
        headings = ["contender", "passes", "than sgd", "than the best mini-batch", "than sgd at twice"]
        means = {key: _numbers(text)[0] for key, text in self.accuracy.items()}
        noisy = [name for name, contender in CONTENDERS.items() if contender.group == MINI_BATCH]
        parts = {
            ACCURACY: lines(*_wide(self.accuracy)),
            POINTS: lines(headings, points(means, noisy)),
            SETTINGS: lines(*_wide(self.settings)),
        }
        return "\n".join("\n".join([self.titles[name], "", *table, ""]) for name, table in parts.items())

    def figure(self, title: str) -> bytes:
        """Test error over passes, on a logarithmic axis where it spans much; bands: ± a standard deviation. A PNG."""
        series = []
        for look, name in enumerate(dict.fromkeys(name for name, _ in self.accuracy)):
            own = {budget: _numbers(text) for (of, budget), text in self.accuracy.items() if of == name}
            errors = [100 - mean for mean, _ in own.values()]
            spreads = [spread for _, spread in own.values()]
            low, high = (
                numbers(error + sign * spread for error, spread in zip(errors, spreads, strict=True))
                for sign in (-1, 1)
            )
            series.append(Series(name, [float(at) for at in own], numbers(errors), look, low=low, high=high))
        budgets = [float(budget) for _, budget in self.accuracy]
        axis = Axis("test error %", scale(y for each in series for y in each.y))
        ident, label = "test-error-over-passes", f"test error % with a budget of passes, {title}"
        curves = Curves(ident, label, axis, {"passes": View(Axis("passes", scale(budgets)), series)}, legend=True)
        return drawing.encode(drawing.draw(curves, "passes"), "png")


def _cells(table: str) -> Cells:
    heading, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return {
        (row[0], int(budget)): cell
        for row in rows
        for budget, cell in zip(heading[1:], row[1:], strict=True)
        if cell != "-"
    }


def _wide(cells: Cells) -> tuple[list[str], list[list[str]]]:
    budgets = sorted({budget for _, budget in cells})
    names = dict.fromkeys(name for name, _ in cells)
    rows = [[name, *(cells.get((name, budget), "-") for budget in budgets)] for name in names]
    return ["contender", *map(str, budgets)], rows


def _place(item: tuple[tuple[str, int], str]) -> tuple[int, int]:
    (name, budget), _ = item
    return list(CONTENDERS).index(name), budget


def _numbers(text: str) -> tuple[float, float]:
    """Mean and standard deviation of a cell."""
    mean, spread, *_ = re.findall(r"[\d.]+", text)
    return float(mean), float(spread)
