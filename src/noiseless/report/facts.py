"""What stands above the fold of the page: data set, model, recipe, date and result of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from noiseless.report.summary import Run, Summary, mean_and_spread, spread
from noiseless.report.themes import text_of

MOST = 4
"""largest number of values of a fact"""


def facts_of(summaries: Sequence[Summary]) -> str:
    """The facts about runs as a list of HTML.

    Args:
        summaries: the runs by recipe.

    Returns:
        The list.
    """
    runs = [run for summary in summaries for run in summary.runs]
    facts = {
        "data set": _listed(_data(run) for run in runs),
        "model": _listed(run.recipe.model.name for run in runs),
        "recipe": _listed(summary.name for summary in summaries),
        "runs": f"{len(runs)}, {_listed(f'seed {run.seed}' for run in runs)}",
        "date": _dates(runs),
        "test accuracy": _result(summaries),
        "train accuracy": _trained(summaries),
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{text_of(text)}</dd></div>" for name, text in facts.items() if text)
    return f'<dl class="facts">{rows}</dl>'


def _listed(values: Iterable[str]) -> str:
    """Different values, separated by commas; how many more there are than `MOST`."""
    distinct = list(dict.fromkeys(values))
    more = f" and {len(distinct) - MOST} more" if len(distinct) > MOST else ""
    return ", ".join(distinct[:MOST]) + more


def _data(run: Run) -> str:
    """The data set of a run; of a path, its last part."""
    data = run.recipe.data
    kind, colon, path = data.name.partition(":")
    name = f"{kind}:{path.rstrip('/').rpartition('/')[2]}" if colon and kind in ("npz", "folder") else data.name
    return f"{name} at {data.pixels} pixels" if data.pixels else name


def _dates(runs: Sequence[Run]) -> str:
    """The day on which a run's record was last written, or the first and last day of several; in UTC."""
    days = set()
    for run in runs:
        try:
            written = run.directory.metrics.stat().st_mtime
        except OSError:
            continue
        days.add(datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d"))
    return " to ".join(dict.fromkeys((min(days), max(days)))) if days else ""


def _result(summaries: Sequence[Summary]) -> str:
    """The last test accuracy: of one recipe, or the lowest and the highest of several."""
    means = [(mean, s) for s in summaries if (mean := s.figures().accuracy[0]) is not None]
    if not means:
        return ""
    if len(means) == 1:
        (_, only) = means[0]
        return f"{spread([100 * a for run in only.counted if (a := run.accuracy) is not None], 2)} %"
    (low, worst), (high, best) = (pick(means, key=lambda pair: pair[0]) for pick in (min, max))
    return f"{100 * low:.2f} % ({worst.name}) to {100 * high:.2f} % ({best.name})"


def _trained(summaries: Sequence[Summary]) -> str:
    """The training accuracy of the last step, before its update; of several recipes the lowest and the highest."""
    means = []
    for summary in summaries:
        values = [row for run in summary.counted if (row := run.rows[-1].get("train_accuracy")) is not None]
        mean, _ = mean_and_spread(values)
        if mean is not None:
            means.append(100 * mean)
    if not means:
        return ""
    return f"{means[0]:.2f} %" if len(means) == 1 else f"{min(means):.2f} % to {max(means):.2f} %"
