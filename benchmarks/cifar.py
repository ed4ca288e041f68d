"""Runs the experiments of docs/cifar.md, one thread each, and keeps what they come to in the ledger.

    .venv/bin/python benchmarks/cifar.py --data-dir DIR [--runs DIR] [--ledger DIR] [--at-once 2] [--only A B]
                                         [--plan] [--hours H]

What the ledger has is not run again; a run that was stopped (Ctrl-C, a kill, a power cut) goes on from its newest
checkpoint. Start it from a clone of its own at the tag that the page names, with `--ledger` in the checkout that is
worked on: then work there does not disturb it. `--plan` prints what is left, with hours from a short measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from cifararms import EXPERIMENTS, Arm, Experiment, Run
from ledger import Ledger

from noiseless.files.directory import RunDirectory
from noiseless.recipes.command import command_of
from noiseless.recipes.config import Config, Settings
from noiseless.run.work import passes_a_step
from noiseless.study.reproduce import costs

CHECKPOINT_SECONDS = 300.0
"""between checkpoints; a sweep under way leaves snapshots in between"""
POLL_SECONDS = 2.0


class Runner:
    """Keeps a number of runs going until none is left, or it is told to stop."""

    def __init__(self, experiments: Sequence[Experiment], ledger: Ledger, runs: Path, data_dir: Path):
        self.experiments = experiments
        self.ledger = ledger
        self.runs = runs
        self.data_dir = data_dir
        self.stopped = False
        self.failed: set[str] = set()
        self._going: dict[subprocess.Popen[bytes], Run] = {}

    def work(self, at_once: int, hours: float | None) -> None:
        """Runs what is ready, `at_once` processes at a time, for at most so many hours."""
        signalled = False
        end = None if hours is None else time.monotonic() + 3600 * hours
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        while True:
            self.stopped |= end is not None and time.monotonic() > end
            free = 0 if self.stopped else at_once - len(self._going)
            for run in self._ready()[:free] if free else []:
                self._start(run)
            if not self._going:
                break
            if self.stopped and not signalled:  # after a second signal a run ends without a checkpoint
                signalled = True
                for process in self._going:
                    process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
            for process in [p for p in self._going if p.poll() is not None]:
                self._finish(process)

    def _ready(self) -> list[Run]:
        results = self.ledger.results()
        started_or_failed = {run.name for run in self._going.values()} | self.failed
        runs = [run for experiment in self.experiments for run in experiment.ready(results)]
        return [run for run in runs if run.name not in started_or_failed]

    def _start(self, run: Run) -> None:
        settings = Settings(
            run_dir=str(self.runs / run.name), data_dir=str(self.data_dir), threads=1, compile="off",
            evaluate_every=run.recipe.schedule.steps, checkpoint_seconds=CHECKPOINT_SECONDS,
        )  # fmt: skip
        flags = ["--run-dir", str(settings.run_dir), "--data-dir", str(settings.data_dir), "--again"]
        flags += ["--evaluate-every", str(settings.evaluate_every)]
        flags += ["--checkpoint-seconds", str(settings.checkpoint_seconds)]
        words = [sys.executable, "-m", *command_of(Config(run.recipe, settings)), *flags]
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / f"{run.name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self._going[process] = run
        _tell(f"start   {run.name}")

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        run = self._going.pop(process)
        directory = RunDirectory(self.runs / run.name)
        if process.returncode == 0 and directory.model.exists():
            self.ledger.add(run, directory)
            _tell(f"end     {run.name}  accuracy {self.ledger.results()[run.name]:.2%}")
        elif not self.stopped:
            self.failed.add(run.name)
            _tell(f"failed  {run.name}: exit {process.returncode}, see {self.runs / run.name}.log")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True


def plan(experiments: Sequence[Experiment], ledger: Ledger, data_dir: Path, at_once: int) -> None:
    """Prints what is left of each arm, in runs, passes and hours of `at_once` processes."""
    results = ledger.results()
    total = 0.0
    print(f"{'arm':24} {'trials':>9} {'runs':>7} {'passes left':>12} {'hours left':>11}")
    for experiment in experiments:
        for arm in experiment.arms:
            trials, runs = _left(arm, results)
            recipes = [replace(run.recipe, seed=0) for run in [*trials, *runs]]
            seconds = costs(dict.fromkeys(recipes), str(data_dir), compile="off")
            hours = sum(seconds[recipe] for recipe in recipes) / 3600 / at_once
            passes = sum(recipe.schedule.steps * passes_a_step(recipe) for recipe in recipes)
            planned = arm.count if arm.like is None else 0
            done = f"{planned - len(trials)}/{planned}", f"{len(arm.seeds) - len(runs)}/{len(arm.seeds)}"
            print(f"{arm.name:24} {done[0]:>9} {done[1]:>7} {passes:12,.0f} {hours:11.1f}", flush=True)
            total += hours
    print(f"{'all':24} {'':>9} {'':>7} {'':>12} {total:11.1f}")


def _left(arm: Arm, results: dict[str, float]) -> tuple[list[Run], list[Run]]:
    """Trials and runs of an arm that have no result; of those that cannot be named yet, others of the same cost."""
    trials: list[Run] = []
    if arm.like is None:
        named = arm.trials(results)
        trials = [run for run in named if run.name not in results] + named[:1] * (arm.count - len(named))
    rate, decay = (arm.rates or (0.1,))[0], (arm.decays or (0.0,))[0]
    return trials, [run for run in arm.runs(rate, decay) if run.name not in results]


def _tell(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", flush=True)


def main() -> None:
    """Runs what is left, or prints the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="where cifar-10-batches-bin is")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar"), help="directories of the runs")
    parser.add_argument("--ledger", type=Path, default=Path(__file__).parent / "results" / "cifar")
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    parser.add_argument("--only", nargs="+", choices=[e.name for e in EXPERIMENTS], help="experiments; none: all")
    parser.add_argument("--hours", type=float, help="stop after so many hours; none: at the end")
    parser.add_argument("--plan", action="store_true", help="print what is left, and run nothing")
    args = parser.parse_args()
    chosen = [e for e in EXPERIMENTS if args.only is None or e.name in args.only]
    ledger = Ledger(args.ledger.resolve())
    if args.plan:
        plan(chosen, ledger, args.data_dir.resolve(), args.at_once)
        return
    runner = Runner(chosen, ledger, args.runs.resolve(), args.data_dir.resolve())
    runner.work(args.at_once, args.hours)
    _tell(json.dumps({"stopped": runner.stopped, "failed": sorted(runner.failed)}))
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    main()
