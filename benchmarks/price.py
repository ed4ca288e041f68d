"""What full-batch training costs: the races of docs/price.md, their tables and figures put into the page.

.venv/bin/python benchmarks/price.py [--runs DIR] [--races digits m14 ...] [--few] [--contenders aggregated]
                                     [--budgets 300]
What is there already is not computed again. The races take hours on two cores: `noiseless race ... --plan-only` tells
how many. What tuning has chosen in a race is kept in benchmarks/choices, and taken from there;
without that file, the race is tuned anew. With `--contenders` only those run, with `--budgets` those passes, and the
page keeps the rest of its tables.
Points, bars and figure are of the page's tables.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pages import DOCS, put, taken
from racetables import Tables

from noiseless.data import extent
from noiseless.run.contenders import Course

RACES: dict[str, list[str]] = {
    "digits": ["--data", "digits"],
    "digits-noaug": ["--data", "digits", "--augment", "none"],
    "m14": ["--data", "mnist-5k", "--pixels", "14"],
    "m14-noaug": ["--data", "mnist-5k", "--pixels", "14", "--augment", "none"],
    "m28": ["--data", "mnist-5k"],
    "m28-noaug": ["--data", "mnist-5k", "--augment", "none"],
}
"""name -> the course, as `noiseless race` is asked for it"""
WIDE = {"digits": "15,30,60,120,300"}
"""races of all contenders, whose figure the page shows: the budgets"""
FEW = ("30,60", "sgd,adamw,muon,aggregated")
"""of the other races: budgets, and who runs"""
SEEDS = 5
TUNED_AT = {"m28": "30", "m28-noaug": "30"}
"""budget at which the settings of races on large images are chosen; of others at 60"""
CHOICES = Path("benchmarks/choices")
"""what tuning has chosen, a file a race"""
SETS = {"digits": "digits", "m14": "MNIST-5k at 14x14", "m28": "MNIST-5k at 28x28"}
BARS = {"at 60 than sgd": 0.0, "at 60 than the best mini-batch contender": -0.1, "at 30 than sgd at 60": -0.2}
"""what `aggregated` is to have more at least, in points of test accuracy (means)"""
PAGE = DOCS / "price.md"


def main() -> None:
    """Runs what is missing, writes tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/price"))
    parser.add_argument("--races", nargs="+", choices=list(RACES), default=list(RACES))
    parser.add_argument("--few", action="store_true", help="four contenders and two budgets in every race")
    parser.add_argument("--contenders", help="who runs, separated by commas; others keep the rows that the page has")
    parser.add_argument("--budgets", help="passes, separated by commas; other budgets keep the columns of the page")
    asked = parser.parse_args()
    for name in asked.races:
        wide = name in WIDE and not asked.few
        place, known = asked.runs / name, CHOICES / f"{name}.json"
        flags = _flags(name, wide, asked.contenders, asked.budgets)
        command = [sys.executable, "-m", "noiseless", "race", *flags, "--run-dir", str(place)]
        print(f"noiseless race {' '.join(flags)}", flush=True)
        if code := subprocess.run(command, check=False).returncode:  # noqa: S603
            sys.exit(code)  # it has said why
        if not known.exists():
            shutil.copy(place / "choices.json", known)
        tables = Tables.parsed((place / "table.md").read_text())
        if asked.contenders or asked.budgets:
            tables = Tables.parsed(taken(PAGE, name)).renewed(tables)
        put(PAGE, name, f"`noiseless race {' '.join(_flags(name, wide))}`\n\n{tables.markdown()}")
        if wide:
            (DOCS / "price" / f"{name}-test-error-over-passes.png").write_bytes(tables.figure(title(name)))
    put(PAGE, "bars", _bars())


def _flags(name: str, wide: bool, contenders: str | None = None, budgets: str | None = None) -> list[str]:
    """How a race is asked for: in whole, or for some contenders or budgets."""
    usual, few = (WIDE[name], None) if wide else FEW
    who = contenders or few
    flags = [*RACES[name], *(["--contenders", who] if who else []), "--budgets", budgets or usual]
    flags += ["--seeds", str(SEEDS), "--tune-at", TUNED_AT.get(name, "60")]
    known = CHOICES / f"{name}.json"
    return flags + (["--choices", str(known)] if known.exists() else [])


def _bars() -> str:
    """Which bars the recipe meets, in the races that the page has."""
    lines = [
        "| set | " + " | ".join(f"{name} (bar {bar:g})" for name, bar in BARS.items()) + " |",
        "| --- |" + " --- |" * len(BARS),
    ]
    for name in RACES:
        cells = ["not run to its end yet"] * len(BARS)
        if re.search(r"^\|", text := taken(PAGE, name), flags=re.MULTILINE):
            tables = Tables.parsed(text)
            half, whole = ("aggregated", 30), ("aggregated", 60)
            pairs = [(whole, ("sgd", 60)), (whole, (tables.best(60), 60)), (half, ("sgd", 60))]
            more = [tables.more(*pair, SEEDS) for pair in pairs]
            cells = [
                f"{'met' if round(points, 2) >= bar else '**missed**'} ({points:+.2f} ± {error:.2f})"
                for (points, error), bar in zip(more, BARS.values(), strict=True)
            ]
        lines.append(f"| {title(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def course(race: str) -> Course:
    """What all contenders of a race have in common."""
    flags = dict(zip(RACES[race][::2], RACES[race][1::2], strict=True))
    pixels = int(flags["--pixels"]) if "--pixels" in flags else None
    data = flags["--data"]
    return Course(data, extent(data, None, pixels), pixels, augment="--augment" not in flags)


def title(race: str) -> str:
    """A race's name as the page has it."""
    base, _, unaugmented = race.partition("-")
    return f"{SETS[base]}, {'without' if unaugmented else 'fresh'} augmentation"


if __name__ == "__main__":
    main()
