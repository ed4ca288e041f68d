"""Asks each question of the program once of runs on digits and on CIFAR-10, and keeps what comes out.

    .venv/bin/python benchmarks/questions.py --data-dir DIR [--runs DIR] [--only NAME ...] [--plan]

Runs and answers that are there are kept, and an interrupted one goes on. At the end the results are written to
benchmarks/results/questions.json; benchmarks/questionpage.py makes tables and figures of docs/questions.md from it.
benchmarks/questionplan.py lists runs and questions as data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from questionplan import QUESTIONS, RUNS, Question
from questionvalues import values

from noiseless.cli import main as noiseless
from noiseless.files.atomic import write_bytes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results/questions.json"


class Maker:
    """Makes runs and answers in a directory."""

    def __init__(self, place: Path, data_dir: Path):
        self.place = place
        self.data_dir = data_dir

    def train(self, name: str) -> None:
        """Makes a run, or finishes one that was interrupted."""
        run = self.place / name
        if not (run / "model.safetensors").exists():
            words = RUNS[name].split()
            if "cifar10" in words:
                words += ["--data-dir", str(self.data_dir)]
            words += ["--threads", "1", "--compile", "off", "--run-dir", name, "--again"]
            self._noiseless(f"run {name}", "train", *words)

    def ask(self, question: Question) -> None:
        """Asks a question, unless its answer is there."""
        marker = self._marker(question)
        if marker.exists():
            return
        for run in question.runs:
            self.train(run)
        words = question.command.split()
        if question.data:
            words += ["--data-dir", str(self.data_dir)]
        seconds = self._noiseless(question.name, *words)
        if question.folder:
            answer = self.place / question.folder
        else:
            answers = (self.place / question.runs[0] / "analysis").glob(f"{words[0]}-*.json")
            answer = max(answers, key=lambda path: path.stat().st_mtime_ns)
        entry = {"seconds": round(seconds, 1), "answer": str(answer.relative_to(self.place))}
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(marker, json.dumps(entry).encode())

    def collect(self) -> dict[str, Any]:
        """What is there of all questions, by name: command, seconds of a core, and the values that the page needs."""
        results = {}
        for question in QUESTIONS:
            marker = self._marker(question)
            if marker.exists():
                entry = json.loads(marker.read_text())
                results[question.name] = {
                    "command": f"noiseless {question.command}",
                    "seconds": entry["seconds"],
                    **values(self.place / entry["answer"]),
                }
        return results

    def _marker(self, question: Question) -> Path:
        return self.place / f"{question.name}.json"

    def _noiseless(self, name: str, *words: str) -> float:
        """Executes a command; returns its seconds of a core, with those of interrupted executions before it."""
        log = self.place / f"{name.replace('/', '-').replace(' ', '-')}.seconds"
        print(time.strftime("%H:%M:%S"), "noiseless", *words, flush=True)
        self.place.mkdir(parents=True, exist_ok=True)
        child = os.fork()  # torch is imported once for all commands; no thread runs here
        if not child:
            self._execute(words)
        _, status, usage = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        with log.open("a") as file:
            file.write(f"{usage.ru_utime + usage.ru_stime:.2f}\n")
        if code:
            sys.exit(f"exit code {code}, see {self.place / 'commands.log'}")
        return sum(map(float, log.read_text().split()))

    def _execute(self, words: Sequence[str]) -> NoReturn:
        """Executes a command in this process, with its output in a file, and ends the process."""
        os.chdir(self.place)
        output = os.open("commands.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(output, f"\n$ noiseless {' '.join(words)}\n".encode())
        os.dup2(output, 1)
        os.dup2(output, 2)
        torch.set_num_threads(1)
        code = noiseless(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Makes what is missing, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where cifar-10-batches-bin is")
    parser.add_argument("--runs", type=Path, default=Path("runs/questions"))
    parser.add_argument("--only", nargs="+", help="questions, or beginnings of their names")
    parser.add_argument("--plan", action="store_true", help="print the commands, and execute nothing")
    parser.add_argument("--collect", action="store_true", help="write the results of what is there, and make nothing")
    args = parser.parse_args()
    chosen = [q for q in QUESTIONS if args.only is None or q.name.startswith(tuple(args.only))]
    if args.plan:
        for question in chosen:
            print(f"{question.name:32} noiseless {question.command}")
        return
    maker = Maker(args.runs.resolve(), args.data_dir.resolve())
    if not args.collect:
        for question in chosen:
            maker.ask(question)
    write_bytes(RESULTS, (json.dumps(maker.collect(), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
