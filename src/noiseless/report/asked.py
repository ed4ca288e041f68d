"""The answers of the runs of a report: which recipe and seed they are of, and what to call them."""

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
class Asked:
    """One answer, and whose it is."""

    look: int
    """number of the recipe"""
    summary: Summary
    run: Run
    answer: Answer

    @property
    def found(self) -> dict[str, Any]:
        """What the analysis has found."""
        return self.answer.found

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.found["step"])

    @property
    def name(self) -> str:
        """The recipe and the state: `fb @100`, with the seed where the recipe has several."""
        seed = f", seed {self.run.seed}" if len(self.summary.runs) > 1 else ""
        return f"{self.summary.name} @{self.step}{seed}"

    def place(self, over: str) -> float | None:
        """Where it stands on the axis of steps or passes; None if the run's rows do not say."""
        return place_of(self.run, self.step, over)


def asked(summaries: Sequence[Summary], kind: str) -> list[Asked]:
    """The answers of a kind, by recipe, run and step.

    Args:
        summaries: of the recipes.
        kind: of analysis.

    Returns:
        Them.
    """
    return [
        Asked(look, summary, run, answer)
        for look, summary in enumerate(summaries)
        for run in summary.runs
        for answer in answers.read(run.directory, kind)
    ]


@contextmanager
def whole(one: Asked) -> Iterator[dict[str, Any]]:
    """What an answer has found, as a context in which a key that is not there or holds something else is told.

    Yields:
        The values.

    Raises:
        ValueError: naming the file.
    """
    try:
        yield one.found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        path = one.run.directory.path / answers.FOLDER / f"{one.answer.kind}-{one.answer.name}.json"
        raise ValueError(f"{path} lacks what a report needs ({error!r}): remove it, and ask again") from None


def at(ones: Sequence[Asked], over: str, of: Callable[[dict[str, Any]], Any]) -> tuple[list[float], list[float | None]]:
    """A value of answers over the steps or passes at which they were asked.

    Args:
        ones: the answers.
        over: steps or passes.
        of: the value of what one has found.

    Returns:
        Places and values, rising by place; a value that is not finite is None.
    """
    points = []
    for one in ones:
        where = one.place(over)
        if where is not None:
            with whole(one) as found:
                points.append((where, number(of(found))))
    points.sort(key=lambda point: point[0])
    return [x for x, _ in points], [y for _, y in points]


def looks(ones: Sequence[Asked]) -> tuple[list[int], bool]:
    """Looks for one series an answer: the recipes', or consecutive ones where a recipe has several answers.

    Args:
        ones: the answers.

    Returns:
        The looks, and whether they need a legend of their own.
    """
    own = [one.look for one in ones]
    return (own, False) if len(set(own)) == len(own) else (list(range(len(ones))), True)


def distinct(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """Names, with what tells them from another of the same name behind them.

    Args:
        names: perhaps some of them alike.
        more: what each has of its own.

    Returns:
        The names.
    """
    return [f"{name}, {own}" if names.count(name) > 1 and own else name for name, own in zip(names, more, strict=True)]
