"""The ledger: one small file for each finished run, `benchmarks/results/cifar/NAME.json`.

A file holds what a run was and what came out: recipe, revision, digest of the parameters, thinned metrics, accuracy,
predictions, processor, seconds. What has a file is never run again.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cifararms import Run

from noiseless.files import checkpoint, predictions
from noiseless.files.atomic import write_bytes
from noiseless.files.directory import RunDirectory
from noiseless.recipes.flags import FLAGS
from noiseless.recipes.recipe import Recipe

ROWS = 200
"""most rows of the metrics in a file"""
COLUMNS = ("step", "passes", "lr", "train_loss", "train_accuracy", "gradient_norm", "parameter_norm")
LARGEST = 50_000
"""bytes of a file"""
GONE = {"block_orthogonal": False, "input_moments": 1}
"""flags of the revision that ran first which exist no more, with the values that switch them off"""
RENAMED = {"trust": "trust_coefficient"}
"""flags of the revision that ran first which have another name now"""
RESOLVED = ("mean", "std", "norm_block", "horizon", "shuffle")
"""flags that an arm may leave open, and a run does not"""


class Ledger:
    """The files of a directory."""

    def __init__(self, path: Path):
        self.path = path

    def results(self) -> dict[str, float]:
        """Accuracy by run name, of all finished runs."""
        return {file.stem: json.loads(file.read_text())["accuracy"] for file in sorted(self.path.glob("*.json"))}

    def entry(self, name: str) -> dict[str, Any]:
        """What the ledger has of a run."""
        entry: dict[str, Any] = json.loads((self.path / f"{name}.json").read_text())
        return entry

    def differing(self, run: Run) -> list[str]:
        """Flags with which the ledger has a run other than the arm has it now; none where it is the same run."""
        there = recipe_flags(self.entry(run.name)["recipe"])
        expected, default = (
            recipe_flags(json.loads(json.dumps(asdict(recipe)))) for recipe in (run.recipe, Recipe())
        )  # a flag that a file lacks is one that came after its revision, which had the default's behaviour
        there = default | there
        return [
            flag for flag in sorted(expected.keys() | there.keys())
            if there.get(flag) != expected.get(flag) and not (expected.get(flag) is None and flag in RESOLVED)
        ]  # fmt: skip

    def add(self, run: Run, directory: RunDirectory) -> Path:
        """Writes the file of a run that has ended.

        Args:
            run: the run.
            directory: of it.

        Returns:
            The file's path.

        Raises:
            ValueError: if the file would be larger than 50 kB.
        """
        rows = directory.rows()
        recorded = json.loads((directory.path / "environment.json").read_text())
        thinned = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(int))]
        entry: dict[str, Any] = {
            "run": run.name,
            "arm": run.arm,
            "evaluated_on": "5,000 held-out training images" if run.trial else "10,000 test images",
            "accuracy": rows[-1]["test_accuracy"],
            "loss": rows[-1]["test_loss"],
            "train_loss": rows[-1]["train_loss"],
            "passes": rows[-1]["passes"],
            "seconds": round(sum(row["seconds"] for row in rows)),
            "digest": checkpoint.digest(directory.state()),
            "ended": datetime.fromtimestamp(directory.model.stat().st_mtime, UTC).isoformat(timespec="seconds"),
            **{name: recorded[name] for name in ("git_revision", "processor", "packages", "threads", "data_sha256")},
            "recipe": asdict(directory.config().recipe),
            "metrics": {name: [_short(row[name]) for row in thinned] for name in COLUMNS},
        }
        if not run.trial:
            predicted, _ = predictions.read(directory.path)
            entry["predictions"] = packed(predicted)
        data = (json.dumps(entry, separators=(",", ":")) + "\n").encode()
        if len(data) > LARGEST:
            raise ValueError(f"the ledger's file of {run.name} would have {len(data)} bytes, more than {LARGEST}")
        self.path.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path / f"{run.name}.json", data)
        return self.path / f"{run.name}.json"


def recipe_flags(recipe: dict[str, Any]) -> dict[str, Any]:
    """The flags of a file's recipe with their values; files of the revision that ran first have no parts."""
    if not isinstance(recipe["data"], dict):
        kept = {flag: value for flag, value in recipe.items() if flag not in GONE or value != GONE[flag]}
        return {RENAMED.get(flag, flag): value for flag, value in kept.items()}
    parts = {name: recipe[flag.part] if flag.part else recipe for name, flag in FLAGS.items()}
    return {name: parts[name][flag.field] for name, flag in FLAGS.items() if flag.field in parts[name]}


def packed(labels: np.ndarray[Any, Any]) -> str:
    """Labels below 256 as text: bytes, deflated, in base 64."""
    assert labels.max() < 256
    return base64.b64encode(zlib.compress(labels.astype(np.uint8).tobytes(), 9)).decode()


def unpacked(text: str) -> np.ndarray[Any, Any]:
    """The labels that `packed` made text of, uint8."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def _short(value: float | None) -> float | None:
    """Six significant digits."""
    return value if value is None else float(f"{value:.6g}")
