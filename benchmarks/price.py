"""Runs the races of docs/price.md, and writes their results to benchmarks/results/price, one file for each race.

.venv/bin/python benchmarks/price.py [--runs DIR] [--races digits m14 ...] [--few] [--contenders aggregated]
                                     [--budgets 300]
Finished runs are kept. The races take hours on two cores; `noiseless race ... --plan-only` prints how many. Settings
come from benchmarks/choices; a race without a file there is tuned. With `--contenders` and `--budgets`, only these are
run, and the other rows of the file are kept. Prints the table of the page, and draws its figure.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noiseless.data import extent
from noiseless.report import drawing
from noiseless.report.figures import Axis, Curves, Series, View, numbers, scale
from noiseless.report.price import lines
from noiseless.study.contenders import CONTENDERS, Course

RACES: dict[str, list[str]] = {
    "digits": ["--data", "digits"],
    "digits-noaug": ["--data", "digits", "--augment", "none"],
    "m14": ["--data", "mnist-5k", "--pixels", "14"],
    "m14-noaug": ["--data", "mnist-5k", "--pixels", "14", "--augment", "none"],
    "m28": ["--data", "mnist-5k"],
    "m28-noaug": ["--data", "mnist-5k", "--augment", "none"],
}
"""name -> flags of `noiseless race` for its data"""
WIDE = {"digits": "15,30,60,120,300"}
"""races of all contenders, with a figure -> their budgets"""
FEW = ("30,60", "sgd,adamw,muon,aggregated")
"""budgets and contenders of the other races"""
SEEDS = 5
TUNED_AT = {"m28": "30", "m28-noaug": "30"}
"""race -> budget at which its settings are chosen; 60 for other races"""
CHOICES = Path("benchmarks/choices")
"""directory of the settings chosen by tuning, one file for each race"""
RESULTS = Path("benchmarks/results/price")
SETS = {"digits": "digits", "m14": "MNIST-5k at 14x14", "m28": "MNIST-5k at 28x28"}
FIGURES = Path("docs/price")


def main() -> None:
    """Executes the missing runs, writes files and figures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/price"))
    parser.add_argument("--races", nargs="+", choices=list(RACES), default=list(RACES))
    parser.add_argument("--few", action="store_true", help="four contenders and two budgets in every race")
    parser.add_argument("--contenders", help="separated by commas; the file keeps the rows of others")
    parser.add_argument("--budgets", help="passes, separated by commas; the file keeps the rows of others")
    args = parser.parse_args()
    for race in args.races:
        path, choices = args.runs / race, CHOICES / f"{race}.json"
        flags = _flags(race, race in WIDE and not args.few, args.contenders, args.budgets)
        print(f"noiseless race {' '.join(flags)}", flush=True)
        command = [sys.executable, "-m", "noiseless", "race", *flags, "--run-dir", str(path)]
        if code := subprocess.run(command, check=False).returncode:  # noqa: S603
            sys.exit(code)  # it has printed why
        if not choices.exists():
            shutil.copy(path / "choices.json", choices)
        before = load(race) if (RESULTS / f"{race}.json").exists() else {"rows": []}
        rows = merged(before["rows"], measured(path / "table.csv"))
        full = f"noiseless race {' '.join(_flags(race, race in WIDE))}"
        save(race, {**before, "command": full, "seeds": SEEDS, "rows": rows})
        if race in WIDE:
            (FIGURES / f"{race}-test-error-over-passes.png").write_bytes(figure(rows, title(race)))
    print(table())


def _flags(race: str, wide: bool, contenders: str | None = None, budgets: str | None = None) -> list[str]:
    """Flags of `noiseless race`, for a whole race or for some contenders or budgets."""
    usual, few = (WIDE[race], None) if wide else FEW
    names = contenders or few
    flags = [*RACES[race], *(["--contenders", names] if names else []), "--budgets", budgets or usual]
    flags += ["--seeds", str(SEEDS), "--tune-at", TUNED_AT.get(race, "60")]
    choices = CHOICES / f"{race}.json"
    return flags + (["--choices", str(choices)] if choices.exists() else [])


def measured(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a race's `table.csv`, with mean and sample standard deviation of the accuracy in %."""
    with path.open() as stream:
        return [
            {
                "contender": row["contender"], "passes": int(row["budget"]),
                "accuracy": round(100 * float(row["test_accuracy_mean"]), 2),
                "deviation": round(100 * float(row["test_accuracy_std"]), 2),
                "setting": row["setting"], **provenance(),
            }
            for row in csv.DictReader(stream)
        ]  # fmt: skip


def merged(before: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old and new rows sorted by contender and passes; new rows replace old ones with the same contender and passes."""
    by_run = {(row["contender"], row["passes"]): row for row in (*before, *new)}
    return [by_run[key] for key in sorted(by_run, key=lambda key: (list(CONTENDERS).index(key[0]), key[1]))]


def table(passes: int = 60) -> str:
    """Markdown table of accuracies after a number of passes: a line for each race, with the contenders of all races."""
    names = FEW[1].split(",")
    rows = []
    for race in RACES:
        by_name = {row["contender"]: row for row in load(race)["rows"] if row["passes"] == passes}
        rows.append([title(race), *(f"{by_name[n]['accuracy']:.2f} ± {by_name[n]['deviation']:.2f}" for n in names)])
    return "\n".join(lines(["set", *names], rows))


def figure(rows: list[dict[str, Any]], data: str) -> bytes:
    """Draws test error over passes as a PNG, with bands of ± one standard deviation; wide axes are logarithmic."""
    series = []
    for look, name in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        contender_rows = [row for row in rows if row["contender"] == name]
        low, middle, high = (
            numbers(100 - row["accuracy"] + sign * row["deviation"] for row in contender_rows) for sign in (-1, 0, 1)
        )
        series.append(Series(name, [float(row["passes"]) for row in contender_rows], middle, look, low=low, high=high))
    axis = Axis("test error %", scale(y for line in series for y in line.y))
    over = View(Axis("passes", scale(float(row["passes"]) for row in rows)), series)
    label = f"test error % with a budget of passes, {data}"
    curves = Curves("test-error-over-passes", label, axis, {"passes": over}, legend=True)
    return drawing.encode(drawing.draw(curves, "passes"), "png")


def course(race: str) -> Course:
    """Data and augmentation of a race."""
    flags = dict(zip(RACES[race][::2], RACES[race][1::2], strict=True))
    pixels = int(flags["--pixels"]) if "--pixels" in flags else None
    data = flags["--data"]
    return Course(data, extent(data, None, pixels), pixels, augment="--augment" not in flags)


def title(race: str) -> str:
    """Name of a race's data and augmentation, for tables."""
    base, _, unaugmented = race.partition("-")
    return f"{SETS[base]}, {'without' if unaugmented else 'fresh'} augmentation"


def provenance() -> dict[str, str]:
    """Revision of the repository and today's date, for new rows."""
    command = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    return {"revision": revision, "date": f"{datetime.now(UTC):%Y-%m-%d}"}


def load(name: str) -> dict[str, Any]:
    """Reads a file of results."""
    results: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return results


def save(name: str, results: Mapping[str, Any]) -> None:
    """Writes a file of results, a line for each row of its lists."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    members = []
    for key, value in results.items():
        rows = isinstance(value, list)
        text = (
            "[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value) + "\n ]"
            if rows
            else json.dumps(value, ensure_ascii=False)
        )
        members.append(f" {json.dumps(key)}: {text}")
    (RESULTS / f"{name}.json").write_text("{\n" + ",\n".join(members) + "\n}\n")


if __name__ == "__main__":
    main()
