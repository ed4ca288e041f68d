"""Answers of analyses about the runs of a report, with the recipe and seed they belong to, and their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.report.figures import number
from noiseless.report.seeds import place_of
from noiseless.report.summary import Run, Summary


@dataclass(frozen=True)
class RunAnswer:
    """An answer about a state of a run, with the run and its recipe."""

    look: int
    """number of the recipe, which gives colour and marker"""
    summary: Summary
    run: Run
    answer: Answer

    @property
    def values(self) -> dict[str, Any]:
        """The answer's values. Read values that a figure needs in `checked_values`."""
        return self.answer.values

    @property
    def step(self) -> int:
        """Number of steps before the state."""
        return int(self.values["step"])

    @property
    def name(self) -> str:
        """Recipe and state, as `fb @100`; with the seed if the recipe has several runs."""
        seed = f", seed {self.run.seed}" if len(self.summary.runs) > 1 else ""
        return f"{self.summary.name} @{self.step}{seed}"

    def place(self, over: str) -> float | None:
        """Place on the axis of steps or passes; None if the run's rows lack it."""
        return place_of(self.run, self.step, over)


def answers_of(summaries: Sequence[Summary], kind: str) -> list[RunAnswer]:
    """The answers of one kind, in the order of recipe, run and step.

    Args:
        summaries: the runs by recipe.
        kind: of the analysis, see `Answer.kind`.

    Returns:
        The answers.
    """
    return [
        RunAnswer(look, summary, run, answer)
        for look, summary in enumerate(summaries)
        for run in summary.runs
        for answer in answers.read(run.directory, kind)
    ]


@contextmanager
def checked_values(run_answer: RunAnswer) -> Iterator[dict[str, Any]]:
    """The values of an answer, as a context manager that turns a missing or wrong value into a `ValueError`.

    Yields:
        The values.

    Raises:
        ValueError: if the code in the context fails because of a value; the message names the file.
    """
    try:
        yield run_answer.values
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        answer = run_answer.answer
        path = run_answer.run.directory.path / answers.FOLDER / f"{answer.kind}-{answer.name}.json"
        raise ValueError(f"{path} lacks what a report needs ({error!r}): remove it and compute it again") from None


def series_over(
    run_answers: Sequence[RunAnswer], over: str, value: Callable[[dict[str, Any]], Any]
) -> tuple[list[float], list[float | None]]:
    """One value of several answers, over the steps, passes or seconds of their states.

    Args:
        run_answers: the answers.
        over: steps, passes or seconds.
        value: values of an answer -> the value.

    Returns:
        Places in rising order, and the values there; None for a value that is not finite.
    """
    points = []
    for run_answer in run_answers:
        place = run_answer.place(over)
        if place is not None:
            with checked_values(run_answer) as values:
                points.append((place, number(value(values))))
    points.sort(key=lambda point: point[0])
    return [x for x, _ in points], [y for _, y in points]


def looks(run_answers: Sequence[RunAnswer]) -> tuple[list[int], bool]:
    """Looks for series of one answer each: those of the recipes, or consecutive ones if a recipe has several answers.

    Args:
        run_answers: the answers.

    Returns:
        The looks, and whether the figure needs its own legend.
    """
    of_recipes = [run_answer.look for run_answer in run_answers]
    if len(set(of_recipes)) == len(of_recipes):
        return of_recipes, False
    return list(range(len(run_answers))), True


def distinct(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """Names of series, with an addition to those that occur more than once.

    Args:
        names: of the series.
        more: the addition to each name; empty if there is none.

    Returns:
        The names.
    """
    pairs = zip(names, more, strict=True)
    return [f"{name}, {part}" if names.count(name) > 1 and part else name for name, part in pairs]
