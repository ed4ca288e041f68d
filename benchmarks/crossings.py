"""Counts how often a step of a run calls from one source file into another: a measure of how hard it is to read.

    python benchmarks/crossings.py [RECIPE ...]

Only calls between files of this program are counted, in the third step of a run on digits.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import noiseless
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.run.build import build
from noiseless.run.train import Progress, train

SOURCE = str(Path(noiseless.__file__).parent)
COUNTED = 2
"""step whose calls are counted, from 0"""


def crossings(name: str) -> Counter[tuple[str, str]]:
    """Counts calls from file to file in one step of a recipe on digits.

    Args:
        name: of the recipe.

    Returns:
        (file of the caller, file of the called function) -> number of calls.
    """
    config = Config(
        with_flags(row(name), steps=COUNTED + 2), Settings(threads=1, compile="off", checkpoint_seconds=1e9)
    )
    counted: Counter[tuple[str, str]] = Counter()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        caller = frame.f_back
        if event != "call" or caller is None:
            return
        into, source = frame.f_code.co_filename, caller.f_code.co_filename
        if into != source and into.startswith(SOURCE) and source.startswith(SOURCE):
            counted[source.removeprefix(SOURCE), into.removeprefix(SOURCE)] += 1

    def on_row(row: dict[str, Any]) -> None:
        if row["step"] == COUNTED - 1:
            sys.setprofile(profile)
        else:
            sys.setprofile(None)

    with tempfile.TemporaryDirectory() as folder:
        experiment = build(config, run_dir=Path(folder) / "run")
        directory = RunDirectory(Path(folder) / "run")
        with directory.created(
            experiment.config, environment(experiment.config, experiment.data_sha256, ["crossings"])
        ):
            train(experiment, directory, Progress(on_row=on_row))
    return counted


def main(names: list[str]) -> None:
    """Prints the most frequent pairs of files for each recipe, and the number of all calls."""
    for name in names or ["fb", "fb-practice", "aggregated"]:
        counted = crossings(name)
        for (source, into), calls in counted.most_common(12):
            print(f"  {calls:5}  {source} -> {into}")
        print(f"{name}: {counted.total()} calls between files in a step")


if __name__ == "__main__":
    main(sys.argv[1:])
