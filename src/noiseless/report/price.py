"""Results of a race: error and loss against passes and seconds, as a table, as figures and as files."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from noiseless.files.atomic import write_bytes
from noiseless.report.figures import Axis, Curves, Series, View, numbers, scale
from noiseless.report.summary import Run, mean_and_spread, spread

MINI_BATCH = "mini-batch"
"""group of the contenders with which the others are compared"""
COLUMNS = (
    "contender", "group", "budget", "passes", "setting", "at_edge", "n", "test_accuracy_mean",
    "test_accuracy_std", "test_loss_mean", "test_loss_std", "seconds_mean", "seconds_std",
)  # fmt: skip
SETTINGS = (
    "Settings, by passes. In brackets: axes on which the choice is the smallest or largest value of its grid. A value"
    " beyond it may be better."
)


@dataclass(frozen=True)
class Result:
    """A contender with a budget of passes, over the seeds that have ended."""

    contender: str
    group: str
    budget: int
    setting: str
    at_edge: str
    """axes on which the setting is the smallest or largest value of its grid, as text; empty if there is none"""
    runs: list[Run]
    planned: int
    """number of seeds of the race; runs that have not ended were stopped, or were not finite"""

    @property
    def passes(self) -> float:
        """Passes that a run spent, at most the budget."""
        return statistics.mean(run.rows[-1]["passes"] for run in self.runs)

    def values(self, name: str) -> list[float]:
        """A value of each run: `test_accuracy` or `test_loss` of its last step, or `seconds` of all its steps."""
        if name == "seconds":
            return [run.seconds for run in self.runs]
        last = [run.rows[-1][name] for run in self.runs]
        return [math.nan if value is None else value for value in last]  # None: not finite

    def mean(self, name: str) -> float:
        """The mean of a value over the runs, see `values`."""
        return statistics.mean(self.values(name))

    def shown(self, name: str, factor: float = 1.0, digits: int = 2) -> str:
        """Mean ± sample standard deviation of a value as text, see `values`."""
        return spread([factor * value for value in self.values(name)], digits)


def table(results: Sequence[Result], title: str) -> Table:
    """The table of test accuracies by contender and budget for the terminal; five budgets fit into 80 columns."""
    seeds = max(result.planned for result in results)
    means = f"mean ± standard deviation of {seeds} seed{'s' * (seeds > 1)}"
    accuracies = Table(
        title=f"{title}: test accuracy %, {means}, by passes", box=box.SIMPLE,
        padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    (_, *budgets), rows = _cells(results, lambda result: result.shown("test_accuracy", 100).replace("± ", "±"))
    accuracies.add_column("contender", no_wrap=True)
    for budget in budgets:
        accuracies.add_column(budget, justify="right", no_wrap=True)
    for row in rows:
        accuracies.add_row(*row)
    return accuracies


def _cells(results: Sequence[Result], shown: Callable[[Result], str]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: one row per contender, one column per budget of passes."""
    budgets = sorted({result.budget for result in results})
    rows = []
    for name in dict.fromkeys(result.contender for result in results):
        by_budget = {result.budget: result for result in results if result.contender == name}
        cells = [name]
        for budget in budgets:
            result = by_budget.get(budget)
            note = f" ({len(result.runs)} of {result.planned})" if result and len(result.runs) < result.planned else ""
            cells.append(shown(result) + note if result and result.runs else f"-{note}")
        rows.append(cells)
    return ["contender", *map(str, budgets)], rows


def prices(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Points of test accuracy by which the other contenders exceed the mini-batch contenders.

    Args:
        results: of the race. Results without runs are left out.

    Returns:
        Rows `(contender, budget, over sgd, over the best mini-batch contender, over sgd with twice the budget)`, with
        a hyphen if there is nothing to compare with.
    """
    known = {(result.contender, result.budget): 100 * result.mean("test_accuracy") for result in results if result.runs}
    return points(known, {result.contender for result in results if result.group == MINI_BATCH})


def points(known: Mapping[tuple[str, int], float], noisy: Collection[str]) -> list[tuple[str, ...]]:
    """The rows of `prices`, from mean accuracies.

    Args:
        known: (contender, budget) -> mean test accuracy in %.
        noisy: the mini-batch contenders.

    Returns:
        The rows, see `prices`.
    """
    rows = []
    for (name, budget), accuracy in known.items():
        if name in noisy:
            continue
        best = max((value for (other, at), value in known.items() if other in noisy and at == budget), default=None)
        references = (known.get(("sgd", budget)), best, known.get(("sgd", 2 * budget)))
        if any(other is not None for other in references):
            gains = ("-" if other is None else f"{accuracy - other:+.2f}" for other in references)
            rows.append((name, str(budget), *gains))
    return rows


def figures(results: Sequence[Result], title: str) -> list[Curves]:
    """Test error and test loss, each against passes and against seconds.

    Args:
        results: of a race.
        title: of the race.

    Returns:
        Four figures. The axis is logarithmic if the values are far apart, because errors near 0 % could otherwise not
        be told from each other. A band reaches from the best seed to the worst.
    """
    curves = []
    for label, of in (("test error %", _error), ("test loss", _loss)):
        for over in ("passes", "seconds"):
            views = {over: _view(results, of, over)}
            axis = Axis(label, scale(y for series in views[over].series for y in series.y))
            figure_id = f"{label.removesuffix(' %')} over {over}".replace(" ", "-")
            curves.append(Curves(figure_id, f"{label} {_WHERE[over]}, {title}", axis, views, legend=True))
    return curves


def _error(result: Result) -> list[float]:
    return [100 * (1 - accuracy) for accuracy in result.values("test_accuracy")]


def _loss(result: Result) -> list[float]:
    return result.values("test_loss")


_WHERE = {"passes": "with a budget of passes", "seconds": "in seconds of one thread"}


def _view(results: Sequence[Result], of: Callable[[Result], list[float]], over: str) -> View:
    series = []
    for look, contender in enumerate(dict.fromkeys(result.contender for result in results)):
        ended = [result for result in results if result.contender == contender and result.runs]
        places = [result.passes if over == "passes" else result.mean("seconds") for result in ended]
        order = sorted(range(len(ended)), key=places.__getitem__)
        values = [of(ended[k]) for k in order]
        series.append(Series(
            contender, [places[k] for k in order], numbers(map(statistics.mean, values)), look,
            low=numbers(map(min, values)), high=numbers(map(max, values)),
        ))  # fmt: skip
    all_places = [place for line in series for place in line.x if not isinstance(place, str)]
    return View(Axis(over, scale(all_places)), series)


def write(directory: Path, results: Sequence[Result], title: str, protocol: str, command: str) -> list[Path]:
    """Writes `table.md` and `table.csv`.

    Args:
        directory: of the race.
        results: of the race.
        title: heading of the Markdown file.
        protocol: text about how the race was run.
        command: the command of the race.

    Returns:
        Paths of both files.
    """
    contents = {"table.md": _markdown(results, title, protocol, command), "table.csv": _csv(results)}
    for name, text in contents.items():
        write_bytes(directory / name, text.encode())
    return [directory / name for name in contents]


def _markdown(results: Sequence[Result], title: str, protocol: str, command: str) -> str:
    seeds = results[0].planned if results else 0
    text = [f"# {title}", "", protocol, "", f"Made by `{command}`", ""]
    text += [f"Test accuracy in %, by passes; mean ± sample standard deviation, n = {seeds} seeds:", ""]
    text += lines(*_cells(results, lambda result: result.shown("test_accuracy", 100)))
    text += ["", "Test loss, by passes:", ""]
    text += lines(*_cells(results, lambda result: result.shown("test_loss", 1, 4)))
    text += ["", "Seconds of a run on one thread, by passes:", ""]
    text += lines(*_cells(results, lambda result: result.shown("seconds", 1, 1)))
    text += ["", "Points of mean test accuracy by which a contender exceeds mini-batch contenders:", ""]
    references = ("over sgd", "over the best mini-batch contender", "over sgd with twice the passes")
    text += lines(["contender", "passes", *references], prices(results))
    text += ["", SETTINGS, ""]
    text += lines(*_cells(results, lambda result: result.setting + (f" ({result.at_edge})" if result.at_edge else "")))
    return "\n".join(text) + "\n"


def lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, with the first column aligned left and the others right."""
    under = ["---", *["---:"] * (len(headings) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (headings, under, *rows)]


def _csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        figures: list[float | None] = []
        for name in ("test_accuracy", "test_loss", "seconds"):
            figures += mean_and_spread(result.values(name))
        passes = result.passes if result.runs else None
        writer.writerow(
            [
                result.contender,
                result.group,
                result.budget,
                passes,
                result.setting,
                result.at_edge,
                len(result.runs),
                *figures,
            ]
        )
    return text.getvalue()
