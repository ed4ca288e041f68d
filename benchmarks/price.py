"""The races of docs/price.md: runs them and keeps what comes out in benchmarks/results/price, a file a race.

.venv/bin/python benchmarks/price.py [--runs DIR] [--races digits m14 ...] [--few] [--contenders aggregated]
                                     [--budgets 300]
Finished runs are kept. The races take hours on two cores: `noiseless race ... --plan-only` says how many. Settings come
from benchmarks/choices; without that file a race is tuned anew. With `--contenders` only those run, with `--budgets`
those passes; the file keeps its other rows. Prints the page's table, and draws its figure.
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
"""races of all contenders, with a figure: their budgets"""
FEW = ("30,60", "sgd,adamw,muon,aggregated")
"""of the other races: budgets and contenders"""
SEEDS = 5
TUNED_AT = {"m28": "30", "m28-noaug": "30"}
"""budget at which the settings of races on large images are chosen; of others at 60"""
CHOICES = Path("benchmarks/choices")
"""settings that tuning has chosen, a file a race"""
RESULTS = Path("benchmarks/results/price")
SETS = {"digits": "digits", "m14": "MNIST-5k at 14x14", "m28": "MNIST-5k at 28x28"}
FIGURES = Path("docs/price")


def main() -> None:
    """Runs what is missing, writes files and figures, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/price"))
    parser.add_argument("--races", nargs="+", choices=list(RACES), default=list(RACES))
    parser.add_argument("--few", action="store_true", help="four contenders and two budgets in every race")
    parser.add_argument("--contenders", help="separated by commas; the file keeps the rows of others")
    parser.add_argument("--budgets", help="passes, separated by commas; the file keeps the rows of others")
    arguments = parser.parse_args()
    for race in arguments.races:
        path, choices = arguments.runs / race, CHOICES / f"{race}.json"
        flags = _flags(race, race in WIDE and not arguments.few, arguments.contenders, arguments.budgets)
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
    """Flags of `noiseless race`, for all of a race or for some contenders or budgets."""
    usual, few = (WIDE[race], None) if wide else FEW
    names = contenders or few
    flags = [*RACES[race], *(["--contenders", names] if names else []), "--budgets", budgets or usual]
    flags += ["--seeds", str(SEEDS), "--tune-at", TUNED_AT.get(race, "60")]
    choices = CHOICES / f"{race}.json"
    return flags + (["--choices", str(choices)] if choices.exists() else [])


def measured(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of results from a race's `table.csv`: accuracies in %, mean and sample standard deviation."""
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
    """Rows in the order of contenders and passes, new ones in the place of those with the same two."""
    by_run = {(row["contender"], row["passes"]): row for row in (*before, *new)}
    return [by_run[key] for key in sorted(by_run, key=lambda key: (list(CONTENDERS).index(key[0]), key[1]))]


def table(passes: int = 60) -> str:
    """Accuracies after a number of passes, in Markdown: the contenders that all races have, a line a race."""
    names = FEW[1].split(",")
    rows = []
    for race in RACES:
        by_name = {row["contender"]: row for row in load(race)["rows"] if row["passes"] == passes}
        rows.append([title(race), *(f"{by_name[n]['accuracy']:.2f} ± {by_name[n]['deviation']:.2f}" for n in names)])
    return "\n".join(lines(["set", *names], rows))


def figure(rows: list[dict[str, Any]], of: str) -> bytes:
    """Test error over passes, on a logarithmic axis where it spans much; bands: ± a standard deviation. A PNG."""
    series = []
    for look, name in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        of_one = [row for row in rows if row["contender"] == name]
        low, middle, high = (
            numbers(100 - row["accuracy"] + sign * row["deviation"] for row in of_one) for sign in (-1, 0, 1)
        )
        series.append(Series(name, [float(row["passes"]) for row in of_one], middle, look, low=low, high=high))
    axis = Axis("test error %", scale(y for line in series for y in line.y))
    over = View(Axis("passes", scale(float(row["passes"]) for row in rows)), series)
    label = f"test error % with a budget of passes, {of}"
    curves = Curves("test-error-over-passes", label, axis, {"passes": over}, legend=True)
    return drawing.encode(drawing.draw(curves, "passes"), "png")


def course(race: str) -> Course:
    """What all contenders of a race have in common."""
    flags = dict(zip(RACES[race][::2], RACES[race][1::2], strict=True))
    pixels = int(flags["--pixels"]) if "--pixels" in flags else None
    data = flags["--data"]
    return Course(data, extent(data, None, pixels), pixels, augment="--augment" not in flags)


def title(race: str) -> str:
    """A race's data in words."""
    base, _, unaugmented = race.partition("-")
    return f"{SETS[base]}, {'without' if unaugmented else 'fresh'} augmentation"


def provenance() -> dict[str, str]:
    """The revision of the repository and today's date, for what is measured now."""
    command = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    return {"revision": revision, "date": f"{datetime.now(UTC):%Y-%m-%d}"}


def load(name: str) -> dict[str, Any]:
    """A file of results."""
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
