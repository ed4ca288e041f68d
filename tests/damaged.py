"""Damaged files: every kind of file of a run, an export or a data set, with every damage, read by what reads it.

As a program it damages as many as its first argument says, by the seed that is its second, and prints how many passed;
a third argument is the number of the first case, from 0. Commands run in this process, one after the other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import damages
import mistakes
from damaged_subjects import SUBJECTS, Subject, make
from forgeries import FORGERIES
from small_runs import Answer, call

from noiseless import exits, from_pretrained
from noiseless.exchange import pretrained
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory

SECONDS = 60
CODES = {0, exits.USER_ERROR, exits.DIVERGED, exits.DIFFERENT}
FOREIGN = ("hostile_code", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")
"""what no case may import or do; git is asked for the program's own revision"""


class Hang(BaseException):
    """A case has not ended in time."""


@dataclass(frozen=True)
class Case:
    """A damaged file, and what reads it."""

    subject: Subject
    pattern: str
    damage: str
    forged: bool
    """whether the digests fit, so that what is in the file is computed with"""
    reader: str | Callable[[Path], Any]

    def __str__(self) -> str:
        return f"{self.subject.name}/{self.pattern}, {self.damage}: {getattr(self.reader, '__qualname__', self.reader)}"


def cases(seed: int) -> Iterator[Case]:
    """Cases without an end: one for each kind of file in turn, with each damage in turn, in a random order."""
    rng = random.Random(seed)
    turns = []
    for subject in SUBJECTS:
        for pattern, form in subject.files.items():
            form, _, seal = form.partition(" ")
            known = [(name, False) for name in (damages.ANY | damages.FORMS[form])]
            known += [(name, True) for name in FORGERIES.get(seal, {})] * 3
            rng.shuffle(known)
            turns.append((subject, pattern, itertools.cycle(known)))
    while True:
        for subject, pattern, damage in turns:
            yield Case(subject, pattern, *next(damage), rng.choice((*subject.commands, *subject.calls)))


class Campaign:
    """The subjects in a directory, and what an undisturbed run comes to."""

    def __init__(self, place: Path):
        self.place, self.data = place, make(place)
        self.events: list[str] = []
        self.digests = {}
        for name in ("ended", "stopped", "within"):
            run = self._copy(name)
            assert call("resume", run).code == 0
            self.digests[name] = self._digests(run)
        self.digests["exported"] = self.digests["ended"][:1]
        sys.addaudithook(self._hook)

    def execute(self, case: Case, rng: random.Random) -> str | None:
        """Damages a copy of a case's subject, and reads it; returns what is wrong with how that ended."""
        copy, new = self._copy(case.subject.name), self.place / "new"
        damages.remove(new)
        damages.remove(self.place / "outside")
        path = rng.choice(sorted(path for path in copy.glob(case.pattern) if path.is_file()))
        form, _, seal = case.subject.files[case.pattern].partition(" ")
        (FORGERIES.get(seal, {}) if case.forged else damages.ANY | damages.FORMS[form])[case.damage](rng, path)
        outside = self._outside()
        self.events.clear()
        os.environ["XDG_CONFIG_HOME"] = str(
            copy if case.subject.name == "settings" else self.place / "subjects/settings"
        )
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # where a signal is not looked at
        signal.alarm(SECONDS)
        try:
            wrong = self._read(case, copy, path, new)
        except Hang:
            wrong = f"no end within {SECONDS} s"
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {str(error)[:200]}"
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
        if self.events:
            return f"{self.events[0]}; {wrong}"
        return "a file elsewhere has changed" if self._outside() != outside else wrong

    def _read(self, case: Case, copy: Path, path: Path, new: Path) -> str | None:
        if callable(case.reader):
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    result = case.reader(copy)
            except (ValueError, OSError):  # what a command tells as one sentence
                return None
            known = self.digests.get(case.subject.name)
            if not case.forged and case.reader in (from_pretrained, pretrained.from_run):
                return None if digest(result.state_dict()) == known[0] else "another model"
            return None
        words = {"RUN": str(copy), "PLACE": str(self.place), "NEW": str(new), "DATA": self.data, "FILE": str(path)}
        line = case.reader
        for word, value in words.items():
            line = line.replace(word, value)
        answer = call(*line.split())
        return self._problem(case, copy, answer)

    def _problem(self, case: Case, copy: Path, answer: Answer) -> str | None:
        """What is wrong with how a command ended."""
        if answer.code not in CODES:
            return f"exit code {answer.code}"
        if wrong := mistakes.problem(answer.code, answer.out, answer.err):
            return f"{wrong}: {answer.err[-300:]!r}"
        if case.forged or answer.code != 0:
            return None
        known = self.digests.get(case.subject.name, ())
        if case.reader == "resume RUN" and self._digests(copy)[:1] != known[:1]:
            return "another digest after resume"
        if case.reader == "digest RUN" and answer.out.strip() != known[0] and not answer.err:
            return "another digest, without a word"
        return None

    def _copy(self, name: str) -> Path:
        copy = self.place / "case" / name
        damages.remove(copy)
        shutil.copytree(self.place / "subjects" / name, copy)
        return copy

    def _digests(self, run: Path) -> list[str]:
        """The digests of a run's final model and average."""
        directory = RunDirectory(run)
        assert directory.model.exists()
        head = directory.end()
        assert head is not None
        return [digest(directory.state()), *(head.digests[name] for name in head.digests if name == "average")]

    def _outside(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.place / "outside").glob("*"))]

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        what = str(arguments[0]) if event == "import" else event
        if what.startswith(FOREIGN) and not (event == "subprocess.Popen" and arguments[1][0] in ("git", "uname")):
            self.events.append(f"{event} {arguments[:2]}"[:200])


def campaign(count: int, seed: int, first: int = 0) -> list[str]:
    """Executes cases; returns those that failed, with what happened."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        attacked = Campaign(Path(folder).resolve())

        sys.path.insert(0, str(attacked.place / "code"))
        os.chdir(attacked.place)
        for number, case in itertools.islice(enumerate(cases(seed)), first, count):
            if wrong := attacked.execute(case, random.Random(f"{seed} {number}")):
                failed.append(f"{number}: {case}: {wrong}")
                print(failed[-1].encode("ascii", "backslashreplace").decode(), flush=True)
            if number % 200 == 199:
                print(f"{number + 1} of {count}, {len(failed)} failed", flush=True)
        os.chdir("/")
    print(f"{count - first - len(failed)} passed, {len(failed)} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(campaign(*map(int, sys.argv[1:]))))
