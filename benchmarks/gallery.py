"""The gallery: the ladder's final models side by side, with sharpness, gradient variance and landscapes.

Makes the tables and figures of docs/gallery.md from real runs:
.venv/bin/python benchmarks/gallery.py [--runs DIR] [--seeds 3] [--sets digits mnist-5k]
What is there already is not computed again. About an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from pages import DOCS, put

from noiseless.recipes.ladder import LADDER

SETS: dict[str, list[str]] = {
    "digits": [],
    "mnist-5k": ["--pixels", "14"],
}
"""data set -> further arguments of `noiseless reproduce`"""
FIGURES = ("test-accuracy", "sharpness", "landscape")
"""beginnings of the names of the report's figures that the page shows"""
QUESTIONS: tuple[tuple[str, str, list[str]], ...] = (
    ("sharpness", "sharpness-step-*.json", []),
    ("noise", "noise-step-*.json", []),
    ("landscape", "landscape-*.json", ["--points", "21", "--range", "1", "--seed", "0"]),
)
"""command, the files of its answers, its flags"""


def main() -> None:
    """Computes what is missing, writes figures and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    asked = parser.parse_args()
    for data in asked.sets:
        place = asked.runs / data
        _noiseless("reproduce", "--data", data, "--seeds", asked.seeds, "--run-dir", place, *SETS[data])
        runs = sorted((path.parent for path in place.rglob("model.safetensors")), key=_order)
        for run in runs:
            for command, files, flags in QUESTIONS:
                if not list(run.glob(f"analysis/{files}")):
                    _noiseless(command, run, *flags)
        figures = DOCS / "gallery" / data
        _noiseless("report", *runs, "-o", place / "gallery.html", "--figures", figures)
        for path in figures.iterdir():
            if not (path.suffix == ".png" and path.name.startswith(FIGURES)):
                path.unlink()
        put(DOCS / "gallery.md", data, _table(runs))


def _order(run: Path) -> tuple[int, int]:
    """Of the rows as in the ladder, then of the seeds."""
    recipe = json.loads((run / "config.json").read_text())["recipe"]
    return list(LADDER).index(recipe["name"]), recipe["seed"]


def _noiseless(*arguments: object) -> None:
    print("noiseless", *arguments, flush=True)
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "noiseless", *(str(each) for each in arguments)], check=True, stdout=subprocess.DEVNULL
    )


def _table(runs: list[Path]) -> str:
    """A line for each row of the ladder: mean ± sample standard deviation over its seeds."""
    rows: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        name = json.loads((run / "config.json").read_text())["recipe"]["name"]
        rows.setdefault(name, []).append(_figures(run))
    lines = [
        "| row | passes | test accuracy % | training loss | sharpness | tr(Sigma) | rise at distance 1 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in rows.items():
        cells = [f"{found[0]['passes']:g}"]
        for key, digits in (("accuracy", 2), ("loss", 4), ("sharpness", 2), ("variance", 3), ("rise", 2)):
            cells.append(_spread([each[key] for each in found], digits))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"n = {len(next(iter(rows.values())))} seeds a row."])


def _figures(run: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    answers = {
        kind: json.loads(next(run.glob(f"analysis/{files}")).read_text())["found"] for kind, files, _ in QUESTIONS
    }
    loss = answers["landscape"]["loss"]
    return {
        "passes": rows[-1]["passes"],
        "accuracy": 100 * rows[-1]["test_accuracy"],
        "loss": rows[-1]["train_loss"],
        "sharpness": answers["sharpness"]["largest"][0],
        "variance": answers["noise"]["covariance_trace"],
        "rise": (loss[0] + loss[-1]) / 2 - loss[len(loss) // 2],
    }


def _spread(values: list[float], digits: int) -> str:
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
