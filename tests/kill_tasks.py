"""Commands that are killed, on tiny data, and the results in which they must end all the same."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import small_runs

from noiseless.files import answers, checkpoint, predictions
from noiseless.files.directory import RunDirectory

COMMON = "--model resnet8 --threads 1 --compile off --form small"
FINISHED = f"train fb --data DATA {COMMON} --steps 3 --keep-every 1 --run-dir RUN"
"""the command of the run that others are copies of"""


@dataclass(frozen=True)
class Task:
    """A command that is killed."""

    name: str
    line: str
    """the command line; DATA, PLACE, FILE and RUN stand for paths"""
    result: Callable[[Path], Any]
    """(place of the command) -> what has to be equal, however often the command was killed"""
    copied: str = ""
    """directory that the place begins as a copy of: RUN, or none"""
    resumes: bool = False
    """whether `resume` goes on with it"""
    once: bool = False
    """whether the command is refused where it has ended"""
    processes: bool = False
    """whether it has several processes"""
    many: bool = False
    """whether it has many runs"""


def run_result(path: Path) -> Any:
    """The result of a run: digests, rows and predictions."""
    directory = RunDirectory(path)
    average = checkpoint.digest(directory.state(average=True)) if directory.average.exists() else None
    last = predictions.read(path)
    predicted = [last.target.tolist(), last.predicted.tolist()]
    return small_runs.record(directory), average, predicted, (path / "report.html").exists()


def ladder_result(path: Path) -> Any:
    """The results of all runs below a directory, and the tables without their seconds."""
    runs = {str(file.parent.relative_to(path)): run_result(file.parent) for file in path.rglob("config.json")}
    files = [file for file in path.glob("*.csv") if "seconds" not in file.name]
    tables = {file.name: list(csv.DictReader(file.read_text().splitlines())) for file in files}
    for rows in tables.values():
        for row in rows:
            for name in [name for name in row if "seconds" in name]:
                del row[name]
    chosen = path / "choices.json"
    return runs, tables, json.loads(chosen.read_text()) if chosen.exists() else None


def landscape_result(path: Path) -> Any:
    """The answers of a run."""
    return [(answer.name, answer.values) for answer in answers.read(RunDirectory(path))]


def imported_result(path: Path) -> Any:
    """The state and the config of a run without steps."""
    directory = RunDirectory.open(path)
    newest = directory.newest()
    assert newest is not None
    return newest.step, checkpoint.digest(newest.state["model"]), directory.config().recipe, newest.damaged


def exported_result(path: Path) -> Any:
    """The files of an exported model."""
    names = ("config.json", "model.safetensors", "README.md")
    return {name: (path / name).read_bytes() for name in names}


def train(name: str, flags: str, **others: Any) -> Task:
    """A training run."""
    return Task(name, f"train {flags} --data DATA {COMMON} --run-dir PLACE", run_result, resumes=True, **others)


SNAPSHOTS = "--snapshot-seconds 0 --checkpoint-seconds 0"
TABLE = "reproduce --form small --data DATA --model resnet8 --rows sgd fb --seeds 1 --run-dir PLACE"
RACE = (
    "race --form small --data DATA --model resnet8 --contenders sgd --budgets 2 --seeds 1 --rates 1 --tuning-seeds 1"
    " --run-dir PLACE"
)
IMPORT = "import FILE fb --data DATA --form small --threads 1 --block 16 --steps 5 --run-dir PLACE"
TASKS = {
    task.name: task
    for task in (
        train("full batch", f"fb --steps 2 --block 16 --ema 0.9 --keep 1 {SNAPSHOTS}"),
        train("stochastic", "sgd --steps 1 --block 16 --checkpoint-seconds 1e-4"),
        train("rows", "fb --steps 6 --block 24 --checkpoint-seconds 100"),
        train("workers", f"fb --steps 2 --block 8 --chunk 1 {SNAPSHOTS} --workers 2", processes=True),
        Task("ladder", TABLE, ladder_result, processes=True, many=True),
        Task("race", RACE, ladder_result, processes=True, many=True),
        Task("landscape", "landscape PLACE --points 5", landscape_result, copied="RUN"),
        Task("import", IMPORT, imported_result, once=True),
        Task("export", "export RUN PLACE", exported_result, once=True),
    )
}


@dataclass(frozen=True)
class Kill:
    """One kill, which may be followed by another one."""

    task: str
    at: int = 0
    """number of the change before which a process is killed; 0: none"""
    torn: int = 0
    """bytes that are written after that change; 0: none"""
    after: float = 0.0
    """share of the changes of an undisturbed command after which a process is killed, at a random moment; 0: none"""
    worker: bool = False
    """whether that is one of the processes that the command has started"""
    again: int = 0
    """number of the change before which the command that continues is killed; 0: none"""
    all: bool = False
    """whether what a killed command leaves running is killed with it"""


Changes = Callable[[str], int]
"""(name of a task) -> its number of changes"""


def whole(changes: Changes, rng: random.Random) -> list[Kill]:
    """The whole campaign: every change of two training runs, and random kills of the rest."""
    kills = []
    for name in ("full batch", "stochastic"):
        count = changes(name)
        again = {k: rng.randint(1, count) for k in range(1, count + 1) if rng.random() < 0.2}
        kills += [Kill(name, at, again=again.get(at, 0)) for at in range(1, count + 1)]
    kills += drawn(changes, rng, "rows", 13, torn=2000)
    for name in ("landscape", "import", "export"):
        kills += drawn(changes, rng, name, 13) + drawn(changes, rng, name, 4, torn=400)
    for name, count in (("workers", 4), ("ladder", 3), ("race", 2)):
        kills += of_processes(changes, rng, name, count)
    rng.shuffle(kills)
    return kills


def drawn(changes: Changes, rng: random.Random, name: str, count: int, torn: int = 0) -> list[Kill]:
    """Kills at random changes of a task, each at another one as long as there are such."""
    places = range(1, changes(name) + 1)
    again = [rng.choice(places) if rng.random() < 0.2 else 0 for _ in range(count)]
    if not torn:
        chosen = rng.sample(places, min(count, len(places)))
        return [Kill(name, at, again=other, all=rng.random() < 0.3) for at, other in zip(chosen, again, strict=False)]
    return [Kill(name, rng.choice(places), rng.randint(1, torn), again=other) for other in again]


def of_processes(changes: Changes, rng: random.Random, name: str, count: int) -> list[Kill]:
    """Kills of a task with several processes: at random changes, and of workers or all at random moments."""
    kills = drawn(changes, rng, name, count)
    kills += [Kill(name, after=rng.uniform(0.1, 0.9), worker=True) for _ in range(count)]
    return kills + [Kill(name, after=rng.uniform(0.1, 0.9), all=rng.random() < 0.3) for _ in range(count)]


def sample(changes: Changes, rng: random.Random, count: int) -> list[Kill]:
    """A few kills of commands with one process."""
    names = [rng.choice(("full batch", "stochastic", "export")) for _ in range(count)]
    return [kill for name in names for kill in drawn(changes, rng, name, 1)]
