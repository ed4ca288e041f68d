"""Mistaken commands: drawn by a seed from the parsers themselves, with values that nobody should give.

As a program it runs as many as its first argument says, by the seed that is its second, each in a copy of itself (so
that torch is imported once), and prints how many passed. A third argument is the number of the first command, from 0.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import random
import re
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import copies

from noiseless import cli, exits
from noiseless.run import prepared

CODES = {0, exits.USER_ERROR, exits.DIVERGED, exits.WORKER_LOST, exits.DIFFERENT}
VALUES = (
    "0", "-1", "1", "2", "2.5", "1e400", "-1e400", "nan", "inf", "1e12", "1000000000000",
    "9" * 30, "9" * 401, "9" * 5000,
    "", " ", ",", "None", "true", "x", "../../../x", "/proc", "/dev/null", "/", "\x1b[31mred", "±", "\udcff", "٣",
    "1,2", "1x2", "1x1000000000", "a=b", "a=9999999999999", "=", "--", "-", "0x10", "1_000", "{}", "[1]", "é" * 300,
)  # fmt: skip
"""absurd values"""
RECIPES = ("fb", "sgd", "fb-practice", "nothing")


@dataclass(frozen=True)
class Flag:
    """A flag of a command, as its help names it."""

    name: str
    takes: bool
    """whether a value follows it"""


def flags() -> dict[str, list[Flag]]:
    """The flags of all commands, read from their help."""
    found = {}
    for name in cli.COMMANDS:
        words = ["data", "info"] if name == "data" else [name]
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.run([*words, "--help-all" if name in ("train", "plan", "bench", "import") else "--help"])
        text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
        shown = re.findall(r"(--[a-z][\w-]*)(?:,[^\n]*?--no-[\w-]+)?( [A-Z{\[])?", text)
        by_name: dict[str, bool] = {}
        for flag, value in shown:
            by_name[flag] = by_name.get(flag, False) or bool(value)
        found[name] = [
            Flag(flag, takes) for flag, takes in by_name.items() if flag not in ("--help", "--help-all", "--no")
        ]
    return found


def command(rng: random.Random, known: dict[str, list[Flag]], run: Path, place: Path) -> list[str]:
    """A mistaken command: short where it happens to be right, so that it ends."""
    name = rng.choice(sorted(known))
    words = [name]
    if name in ("train", "plan", "bench") and rng.random() < 0.8:
        words.append(rng.choice(RECIPES))
    if name == "data":
        words += ["info", rng.choice(["digits", *VALUES])]
    elif name in (
        "evaluate", "report", "sharpness", "verify", "noise", "weights", "landscape", "flatness", "digest", "edge",
        "sharpen", "flow", "fork", "decompose",
    ):  # fmt: skip
        words += [rng.choice([str(run), f"{run}@1", f"{run}@9", *VALUES])]
    elif name in ("resume", "export", "watch", "compare", "import", "models"):
        words += [rng.choice([str(run), *VALUES]) for _ in range(rng.randint(1, 2))]
    for flag in rng.sample(known[name], min(len(known[name]), rng.randint(0, 3))):
        if flag.name in ("--wandb", "--tensorboard", "--device"):
            continue
        words.append(flag.name)
        if flag.takes and rng.random() < 0.95:
            words += [rng.choice(VALUES) for _ in range(1 if rng.random() < 0.9 else 2)]
    if name == "train":
        words += ["--steps", "1"] if "--steps" not in words else []
        words += ["--threads", "1"] if "--threads" not in words else []
        words += ["--run-dir", str(place)] if "--run-dir" not in words else []
    if name in ("race", "reproduce", "dial"):
        words.append("--plan-only")
        words += ["--budgets", "1"] if name == "race" and "--budgets" not in words else []
        words += ["--contenders", "sgd"] if name == "race" and "--contenders" not in words else []
        words += ["--rows", "fb"] if name == "reproduce" and "--rows" not in words else []
    if name == "bench":
        words += ["--images", "64"] if "--images" not in words else []
        words += ["--rounds", "1"] if "--rounds" not in words else []
        words += ["--compile", "off"] if "--compile" not in words else []
    if name == "watch":
        words.append("--once")
    return [word.replace("\0", "") for word in words]


def problem(code: int, out: str, err: str) -> str | None:
    """What is wrong with how a mistaken command ended; None: nothing."""
    if "Traceback (most recent call last)" in out + err:
        return "traceback"
    if code == copies.UNENDED:
        return f"no end within {copies.SECONDS:g} s"
    if code not in CODES:
        return f"exit code {code}"
    lines = err.strip("\n").split("\n")
    if code == exits.USER_ERROR and not lines[-1].startswith("error: "):
        return "no message"
    if code == exits.USER_ERROR and sum(line.startswith("error: ") for line in lines) != 1:
        return "more than one message"
    return None


def campaign(count: int, seed: int, first: int = 0) -> list[str]:
    """Executes mistaken commands; returns those that failed, with what happened."""
    for module in (*prepared.MODULES, "noiseless.ask.landscape", "noiseless.cost.plan", "noiseless.cost.bench"):
        importlib.import_module(module)
    rng, known, failed = random.Random(seed), flags(), []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train = ["train", "fb", "--steps", "2", "--threads", "1", "--images", "64", "--block", "32"]
        train += ["--model", "resnet2"]
        words = [*train, "--run-dir", str(run)]
        assert copies.execute(lambda: cli.main(words), Path(folder)).code == 0
        for number in range(count):
            words = command(rng, known, run, Path(folder) / f"place{number}")
            if number < first:
                continue
            ended = copies.execute(partial(cli.main, words), Path(folder))
            if wrong := problem(ended.code, ended.out, ended.err):
                failed.append(f"{number}: {wrong}: {[word[:60] for word in words]}: {ended.err[-300:]!r}")
                print(failed[-1].encode("ascii", "backslashreplace").decode(), flush=True)
            if number % 50 == 49:
                print(f"{number + 1} of {count}, {len(failed)} failed", flush=True)
    print(f"{count - first - len(failed)} passed, {len(failed)} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(campaign(*map(int, sys.argv[1:]))))
