"""What full-batch training costs: the races of docs/price.md, their tables and figures put into the page.

.venv/bin/python benchmarks/price.py [--runs DIR] [--races digits m14 ...]
What is there already is not computed again. The races take hours on two cores: `noiseless race ... --plan-only` tells
how many.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pages import DOCS, put

FEW = ["--contenders", "sgd,adamw,muon,fb-fast", "--budgets", "30,60"]
RACES: dict[str, list[str]] = {
    "digits": ["--data", "digits", "--budgets", "15,30,60,120,300"],
    "digits-noaug": ["--data", "digits", "--augment", "none", *FEW],
    "m14": ["--data", "mnist-5k", "--pixels", "14", "--budgets", "15,30,60,120"],
    "m14-noaug": ["--data", "mnist-5k", "--pixels", "14", "--augment", "none", *FEW],
    "m28": ["--data", "mnist-5k", *FEW],
    "m28-noaug": ["--data", "mnist-5k", "--augment", "none", *FEW],
}
"""name -> what `noiseless race` is asked"""
COMMON = ["--seeds", "5", "--tune-at", "60"]
KEPT = ("Test accuracy", "Points", "Settings")
"""beginnings of the titles of a race's tables that the page has"""
FIGURES = ("test-accuracy-over-passes", "test-accuracy-over-seconds")


def main() -> None:
    """Runs what is missing, writes tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/price"))
    parser.add_argument("--races", nargs="+", choices=list(RACES), default=list(RACES))
    asked = parser.parse_args()
    for name in asked.races:
        place, flags = asked.runs / name, [*RACES[name], *COMMON]
        command = [sys.executable, "-m", "noiseless", "race", *flags, "--run-dir", str(place)]
        print(f"noiseless race {' '.join(flags)}", flush=True)
        subprocess.run(command, check=True)  # noqa: S603
        tables = _tables((place / "table.md").read_text())
        put(DOCS / "price.md", name, f"`noiseless race {' '.join(flags)}`\n\n{tables}")
        if "--contenders" not in flags:
            for figure in FIGURES:
                (DOCS / "price").mkdir(exist_ok=True)
                shutil.copy(place / f"{figure}.png", DOCS / "price" / f"{name}-{figure}.png")


def _tables(text: str) -> str:
    """The kept tables with their titles, of a race's file."""
    parts = re.findall(r"^([A-Z][^\n]*:)\n\n((?:\|[^\n]*\n)+)", text, flags=re.MULTILINE)
    return "\n".join(f"{title}\n\n{table}" for title, table in parts if title.startswith(KEPT))


if __name__ == "__main__":
    main()
