"""Makes the tables and figures of docs/gallery.md: the ladder's final models with sharpness, noise and landscapes.

.venv/bin/python benchmarks/gallery.py [--runs DIR] [--seeds 3] [--sets digits mnist-5k]
Finished runs and analyses are kept. Takes about an hour on two cores.
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
"""prefixes of the names of the report's figures that the page shows"""
QUESTIONS: tuple[tuple[str, str, list[str]], ...] = (
    ("sharpness", "sharpness-step-*.json", []),
    ("noise", "noise-step-*.json", []),
    ("landscape", "landscape-*.json", ["--points", "21", "--range", "1", "--seed", "0"]),
)
"""(command, pattern of its result files, its flags)"""


def main() -> None:
    """Executes the missing runs and analyses, and writes figures and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    args = parser.parse_args()
    for data in args.sets:
        place = args.runs / data
        _noiseless("reproduce", "--data", data, "--seeds", args.seeds, "--run-dir", place, *SETS[data])
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
    """Key that sorts runs by their row of the ladder, then by seed."""
    recipe = json.loads((run / "config.json").read_text())["recipe"]
    return list(LADDER).index(recipe["name"]), recipe["seed"]


def _noiseless(*arguments: object) -> None:
    print("noiseless", *arguments, flush=True)
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "noiseless", *(str(argument) for argument in arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
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
    for name, seed_rows in rows.items():
        cells = [f"{seed_rows[0]['passes']:g}"]
        for key, digits in (("accuracy", 2), ("loss", 4), ("sharpness", 2), ("variance", 3), ("rise", 2)):
            cells.append(_spread([row[key] for row in seed_rows], digits))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"n = {len(next(iter(rows.values())))} seeds a row."])


def _figures(run: Path) -> dict[str, float]:
    """Numbers of a run for the table, from its record and its analyses."""
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
