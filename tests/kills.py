"""Kills: commands that are killed at every place where they change a file, and at random moments, and given again.

As a program it makes as many kills as its first argument says (all: the whole campaign), by the seed that is its
second, in copies of itself (so that torch is imported once), and prints how many passed: after a kill, the command or
`resume` must end in the result of a run that was never killed, without a traceback and in time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import copies
import jobs
import killing
import published_files
import small_runs
from kill_tasks import FINISHED, TASKS, Kill, Task, sample, whole

from noiseless import cli
from noiseless.run import prepared

MODULES = (
    *prepared.MODULES, "noiseless.ask.landscape", "noiseless.exchange.imported", "noiseless.exchange.pretrained",
    "noiseless.report.price", "noiseless.report.drawing", "noiseless.study.race", "matplotlib.pyplot",
)  # fmt: skip


NOWHERE = killing.Plan("/nowhere")


@dataclass
class Campaign:
    """Kills of commands in one folder."""

    folder: Path
    rng: random.Random

    def __post_init__(self) -> None:
        self.paths = {"DATA": small_runs.npz(self.folder / "tiny.npz"), "RUN": str(self.folder / "finished")}
        self.paths["FILE"] = str(self.folder / "published.pth")
        self.undisturbed: dict[str, tuple[Any, int]] = {}
        self.log: Path | None = None
        self.read = 0  # bytes of the log
        self.counted = 0  # changes of the last command
        os.environ[killing.FOLDER] = str(self.folder / "killing")
        (self.folder / "killing").mkdir()
        killing.install()

    def start(self) -> None:
        """Starts the prepared process for commands with several processes, with the hook and its output in a file."""
        self.log = self.folder / "copies.log"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        before = [os.dup(number) for number in (1, 2)]
        with self.log.open("wb") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            prepared.MODULES = (*prepared.MODULES, "killing")  # type: ignore[assignment]
            prepared.start()
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)
        # a copy of this process is not the parent of the prepared process, and cannot ask how that is
        forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None

    def words(self, line: str, place: Path) -> list[str]:
        """A command line at a place, word by word."""
        paths = self.paths | {"PLACE": str(place)}
        return [paths.get(word, word) for word in line.split()]

    def execute(self, words: list[str], chosen: killing.Plan, after: int = 0, worker: bool = False) -> copies.Ended:
        """Executes a command, with a kill; the output of its processes is added to its own.

        Args:
            words: the command line.
            chosen: where a process is killed.
            after: number of changes after which one is killed, at a random moment; 0: none is.
            worker: whether that is one of the processes that the command has started.

        Returns:
            How it ended.
        """
        killing.plan(chosen)
        self.victim = 0

        def meanwhile(copy: int) -> None:
            if self.victim or not after or len(killing.changes()) < after:
                return
            time.sleep(self.rng.uniform(0, 0.2))
            if running := jobs.copies() if worker else [copy]:
                self.victim = self.rng.choice(running)
                end_process(self.victim)

        ended = copies.execute(partial(cli.main, words), self.folder, meanwhile)
        self.counted = len(killing.changes())
        killing.plan(NOWHERE)  # this process is not to be killed
        if self.log is None:
            return ended
        with self.log.open(errors="replace") as file:
            file.seek(self.read)
            ended = replace(ended, err=ended.err + file.read())
            self.read = file.tell()
        return ended

    def prepare(self, name: str) -> None:
        """Executes a task undisturbed, and keeps its result, its number of changes."""
        if name in self.undisturbed:
            return
        task = TASKS[name]
        if task.processes and self.log is None:
            self.start()
        if "RUN" in (task.copied, *task.line.split()) and not Path(self.paths["RUN"]).exists():
            assert small_runs.call(*self.words(FINISHED, self.folder)).code == 0
        if "FILE" in task.line:
            path = Path(self.paths["FILE"])
            copies.execute(lambda: published_files.write(path, published_files.parts()) and None, self.folder)
        place = self.place(task, f"undisturbed-{name}")
        if task.processes:
            ended = self.execute(self.words(task.line, place), killing.Plan(str(place)))
        else:  # in this process, so that its copies have imported and kept all that the command needs
            killing.plan(killing.Plan(str(place)))
            answer = small_runs.call(*self.words(task.line, place))
            ended = copies.Ended(answer.code, answer.out, answer.err)
            self.counted = len(killing.changes())
            killing.plan(NOWHERE)
        assert ended.code == 0, ended
        self.undisturbed[name] = task.result(place), self.counted
        if os.environ.get("KILLS_SHOWN"):
            print(name, self.undisturbed[name][1], flush=True)
        shutil.rmtree(place)

    def changes(self, name: str) -> int:
        """The number of changes of a task that nothing disturbs."""
        self.prepare(name)
        return self.undisturbed[name][1]

    def place(self, task: Task, name: str) -> Path:
        """The place of a command."""
        path = self.folder / name.replace(" ", "-")
        if task.copied:
            shutil.copytree(self.paths[task.copied], path)
        return path

    def carry_out(self, kill: Kill, number: int) -> tuple[bool, str | None]:
        """Kills a command, and continues it to its end.

        Returns:
            Whether a process was killed, and what went wrong.
        """
        self.prepare(kill.task)
        task, (result, count) = TASKS[kill.task], self.undisturbed[kill.task]
        place = self.place(task, f"place{number}")
        words = self.words(task.line, place)
        plan = killing.Plan(str(place), kill.at, kill.torn)
        ended = self.execute(words, plan, round(kill.after * count), kill.worker)
        ends = [ended]
        killed = ended.code < 0 or bool(self.victim) or (0 < kill.at <= self.counted and not kill.torn)
        leaves = self.wait(kill.all)
        for at in (kill.again, 0):
            if ended.code == 0:
                break
            ended = self.go_on(task, words, place, killing.Plan(str(place), at))
            ends.append(ended)
            leaves = leaves or self.wait(kill.all)
        return killed, leaves or self.problem(task, place, ends, result)

    def go_on(self, task: Task, words: list[str], place: Path, plan: killing.Plan) -> copies.Ended:
        """Continues a task that was killed, as a user would."""
        if task.resumes:
            workers = ["--workers", "2"] if task.processes else []
            ended = self.execute(["resume", str(place), *workers], plan)
            if ended.code != 2 or (place / "config.json").exists():
                return ended
            words = [*words, "--again"]
        return self.execute(words, plan)

    def wait(self, kills: bool) -> str | None:
        """Waits until the processes that a command has left have ended; returns what went wrong."""
        if self.log is None:
            return None
        start = time.monotonic()
        while found := jobs.copies():
            if kills or time.monotonic() - start > copies.SECONDS:
                for process in found:
                    end_process(process)
                if not kills:
                    return f"processes do not end: {len(found)}"
            time.sleep(0.05)
        return None

    def problem(self, task: Task, place: Path, ends: list[copies.Ended], result: Any) -> str | None:
        """What went wrong; None: nothing."""
        for ended in ends:
            if "Traceback (most recent call last)" in ended.out + ended.err:
                return f"traceback: {ended.err[-1500:]}"
            if ended.code == copies.UNENDED:
                return "it did not end in time"
            if ended.code not in (0, 2, 4, -signal.SIGKILL, -signal.SIGXFSZ):
                return f"exit code {ended.code}: {ended.err[-500:]}"
        last = ends[-1]
        if last.code != 0 and not (task.once and last.code == 2):
            return f"it is not continued, exit code {last.code}: {last.err[-500:]}"
        try:
            if (ends_in := task.result(place)) != result:
                return f"another result: {str(ends_in)[:2000]} instead of {str(result)[:2000]}"
        except Exception as error:
            return f"no result: {error!r} (last message: {last.err[-300:]})"
        # of files that others may write without the lock, temporary ones are kept for an hour
        temporary = [path for path in place.rglob(".*.tmp") if not path.name.startswith(".report.html")]
        left = [path.name for path in temporary if path.parent not in (place / "analysis", place if task.many else "")]
        return f"files are left: {left}" if left else None


def end_process(number: int) -> None:
    """Kills a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


def run(size: str, seed: int) -> int:
    """Makes the kills and prints what happened; returns the number of failures."""
    for module in MODULES:
        importlib.import_module(module)
    failed = done = 0
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), rng)
        kills = whole(campaign.changes, rng) if size == "all" else sample(campaign.changes, rng, int(size))
        if names := os.environ.get("KILLS_ONLY"):
            kills = [kill for kill in kills if kill.task in names.split(",")]
        gc.collect()
        gc.freeze()  # so that copies do not copy what they only read
        for number, kill in enumerate(kills):
            start = time.monotonic()
            killed, wrong = campaign.carry_out(kill, number)
            done += killed
            if wrong:
                failed += 1
                print(f"{kill}: {wrong}".encode("ascii", "backslashreplace").decode(), flush=True)
            elif not killed:
                print(f"{kill}: nothing was killed", flush=True)
            if os.environ.get("KILLS_SHOWN"):
                print(number, kill, round(time.monotonic() - start, 1), flush=True)
            if not wrong:
                shutil.rmtree(Path(folder) / f"place{number}", ignore_errors=True)
    print(f"{done - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(run(sys.argv[1], int(sys.argv[2]))))
