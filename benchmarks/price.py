"""What full-batch training costs: the races of docs/price.md, their tables and figures put into the page.

.venv/bin/python benchmarks/price.py [--runs DIR] [--races digits m14 ...] [--few]
What is there already is not computed again. The races take hours on two cores: `noiseless race ... --plan-only` tells
how many. What tuning has chosen in a race is kept in benchmarks/choices, and taken from there;
without that file, the race is tuned anew. The table of bars is written once, when all that was asked for has ended.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import paired
from pages import DOCS, put

RACES: dict[str, list[str]] = {
    "digits": ["--data", "digits"],
    "digits-noaug": ["--data", "digits", "--augment", "none"],
    "m14": ["--data", "mnist-5k", "--pixels", "14"],
    "m14-noaug": ["--data", "mnist-5k", "--pixels", "14", "--augment", "none"],
    "m28": ["--data", "mnist-5k"],
    "m28-noaug": ["--data", "mnist-5k", "--augment", "none"],
}
"""name -> the course, as `noiseless race` is asked for it"""
WIDE = {"digits": ["--budgets", "15,30,60,120"], "m14": ["--budgets", "15,30,60,120"]}
"""races of all contenders, whose figures the page shows"""
FEW = ["--contenders", "sgd,adamw,muon,fb-fast", "--budgets", "30,60"]
TUNED_AT = {"m28": "30", "m28-noaug": "30"}
"""budget at which the settings of races on large images are chosen; of others at 60"""
CHOICES = Path("benchmarks/choices")
"""what tuning has chosen, a file a race"""
KEPT = ("Test accuracy", "Points", "Settings")
"""beginnings of the titles of a race's tables that the page has"""
MINI_BATCH = ("sgd", "adamw", "muon")
SETS = {"digits": "digits", "m14": "MNIST-5k at 14x14", "m28": "MNIST-5k at 28x28"}
BARS = {"at 60 than sgd": 0.0, "at 60 than the best mini-batch contender": -0.1, "at 30 than sgd at 60": -0.2}
"""what `fb-fast` is to have more at least, in points of test accuracy (means)"""
FIGURES = ("test-error-over-passes", "test-error-over-seconds")


def main() -> None:
    """Runs what is missing, writes tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/price"))
    parser.add_argument("--races", nargs="+", choices=list(RACES), default=list(RACES))
    parser.add_argument("--few", action="store_true", help="four contenders and two budgets in every race")
    asked = parser.parse_args()
    for name in asked.races:
        wide = name in WIDE and not asked.few
        place, known = asked.runs / name, CHOICES / f"{name}.json"
        flags = [*RACES[name], *(WIDE[name] if wide else FEW), "--seeds", "5", "--tune-at", TUNED_AT.get(name, "60")]
        if known.exists():
            flags += ["--choices", str(known)]
        command = [sys.executable, "-m", "noiseless", "race", *flags, "--run-dir", str(place)]
        print(f"noiseless race {' '.join(flags)}", flush=True)
        if code := subprocess.run(command, check=False).returncode:  # noqa: S603
            sys.exit(code)  # it has said why
        if not known.exists():
            shutil.copy(place / "choices.json", known)
        tables = _tables((place / "table.md").read_text())
        put(DOCS / "price.md", name, f"`noiseless race {' '.join(flags)}`\n\n{tables}")
        if wide:
            for figure in FIGURES:
                (DOCS / "price").mkdir(exist_ok=True)
                shutil.copy(place / f"{figure}.png", DOCS / "price" / f"{name}-{figure}.png")
    put(DOCS / "price.md", "bars", _bars(asked.runs))


def _bars(runs: Path) -> str:
    """Which bars the recipe meets, in the races that have ended."""
    lines = [
        "| set | " + " | ".join(f"{name} (bar {bar:g})" for name, bar in BARS.items()) + " |",
        "| --- |" + " --- |" * len(BARS),
    ]
    for name in RACES:
        base, _, unaugmented = name.partition("-")
        cells = ["not run to its end yet"] * len(BARS)
        if (runs / name / "table.md").exists():
            more = zip(_more(runs / name), BARS.values(), strict=True)
            cells = [
                f"{'met' if points >= bar else '**missed**'} ({points:+.2f} ± {error:.2f})"
                for (points, error), bar in more
            ]
        lines.append(f"| {SETS[base]}, {'without' if unaugmented else 'fresh'} augmentation | {' | '.join(cells)} |")
    return "\n".join(lines)


def _more(race: Path) -> list[tuple[float, float]]:
    """What `fb-fast` has more, in points, in the order of `BARS`, each with its standard error."""
    half, whole = (paired.hits(race / f"fb-fast-{budget}") for budget in (30, 60))
    mini = {name: paired.hits(race / f"{name}-60") for name in MINI_BATCH}
    best = max(mini.values(), key=lambda found: found.mean().item())
    return [paired.difference(*pair) for pair in ((whole, mini["sgd"]), (whole, best), (half, mini["sgd"]))]


def _tables(text: str) -> str:
    """The kept tables with their titles, of a race's file."""
    parts = re.findall(r"^([A-Z][^\n]*:)\n\n((?:\|[^\n]*\n)+)", text, flags=re.MULTILINE)
    return "\n".join(f"{title}\n\n{table}" for title, table in parts if title.startswith(KEPT))


if __name__ == "__main__":
    main()
