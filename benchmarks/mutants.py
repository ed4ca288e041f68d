"""Mutation testing: which small changes of the source do the tests notice?

    python benchmarks/mutants.py                # a sample of 400; goes on where it was stopped
    python benchmarks/mutants.py --sample 20
    python benchmarks/mutants.py --again        # survivors are tested again, after tests have been added

The sample is seeded and drawn over places in the code, so that a file has its share of mutants; at each place one of
cosmic-ray's mutations is drawn. Left out are annotations, mutations that do not compile, arithmetic in place of
operations on bits and the reverse, and identity in place of equality and the reverse: nearly all of them are noticed at
once or change nothing. Each mutant is written into a copy of the source, and meets the tests of its room, those of the
file with its name first, until the first one fails. Tests that are marked slow (compiled code, jobs of several workers)
are run for the two files that they are about alone, and soak tests never: a mutant that only they would notice counts
as a survivor.

A mutant is killed by a test that fails, by a crash, or at its limits: three times the processor seconds of the room's
tests and twenty more, half an hour on the clock, 8 GiB of memory. The work so far is in build/mutants.jsonl, the result
in benchmarks/results/mutants.json.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mutantruns import Limits, Outcome, run_tests
from mutantsites import Mutant, sample

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "noiseless"
ROOMS = {
    "objective": "tests/objective",
    "optim": "tests/optim",
    "analysis": "tests/analysis",
    "keyed.py": "tests/test_keyed.py",
}
"""the tests that each room's mutants meet"""
SLOW = {"objective/compiled.py": (), "objective/workers.py": ("tests/run/test_workers.py",)}
"""files whose mutants meet slow tests, too, and those of these files first"""
RESULT = ROOT / "benchmarks" / "results" / "mutants.json"
STATE = ROOT / "build" / "mutants.jsonl"


def source_files() -> dict[str, str]:
    """The text of every file that is mutated, by its path below src/noiseless."""
    paths = [
        path for room in ROOMS for path in ([SOURCE / room] if room.endswith(".py") else (SOURCE / room).glob("*"))
    ]
    return {str(path.relative_to(SOURCE)): path.read_text() for path in sorted(paths) if path.suffix == ".py"}


def tests_of(file: str, seconds: dict[str, float]) -> list[str]:
    """The room's test files: those named after the source file first, then those that name it, the quick ones first."""
    place = ROOT / ROOMS[file.split("/")[0]]
    stem = Path(file).stem
    paths = [place] if place.suffix == ".py" else sorted(place.glob("test_*.py"))

    def order(path: Path) -> tuple[bool, bool, float]:
        return not path.stem.startswith(f"test_{stem}"), stem not in path.read_text(), seconds.get(path.name, 0.0)

    return [*SLOW.get(file, ()), *(str(path.relative_to(ROOT)) for path in sorted(paths, key=order))]


def digest(*texts: str) -> str:
    """A key of these texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class State:
    """What earlier calls have found, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, dict[str, Any]] = {entry["key"]: entry for entry in map(json.loads, lines)}

    def add(self, key: str, **values: object) -> dict[str, Any]:
        """Writes an entry, which replaces an earlier one of this key."""
        self.known[key] = entry = {"key": key, **values}
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        return entry


def baseline(room: str, state: State, copy: Path) -> dict[str, Any]:
    """The room's tests on the source as it is: they must pass, and their seconds give limits and order.

    Returns:
        An entry with `cpu`, the processor seconds, and `seconds` of each test file.

    Raises:
        SystemExit: if a test fails.
    """
    place = ROOT / ROOMS[room]
    tests = sorted(place.glob("*.py")) if place.is_dir() else [place]
    key = digest(room, *source_files().values(), *(path.read_text() for path in tests))
    if key in state.known:
        return state.known[key]
    print(f"{room}: its tests on the source as it is ...", flush=True)
    outcome = run_tests(copy, [ROOMS[room]], Limits())
    if outcome.result != "survived":
        raise SystemExit(f"{room}: {outcome.test or outcome.result} fails on the source as it is")
    return state.add(key, room=room, cpu=outcome.cpu, seconds=outcome.seconds)


def tested(mutant: Mutant, copy: Path, base: dict[str, Any]) -> Outcome:
    """Runs the room's tests on a mutant in a copy of the source, which is the source again afterwards."""
    target = copy / "noiseless" / mutant.file
    original = target.read_text()
    slow = mutant.file in SLOW
    limits = Limits(cpu=3 * base["cpu"] + (600 if slow else 20))
    try:
        _write(target, mutant.code)
        return run_tests(copy, tests_of(mutant.file, base["seconds"]), limits, slow)
    finally:
        _write(target, original)


def _write(target: Path, text: str) -> None:
    target.write_text(text)
    # compiled code is told by seconds and size, which a mutant may share with the source
    for compiled in target.parent.glob(f"__pycache__/{target.stem}.*"):
        compiled.unlink()


def report(mutants: list[Mutant], places: dict[str, int], entries: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The result as it is written: counts by file, and the survivors."""
    counts: dict[str, dict[str, int]] = {}
    for file in sorted(places):
        outcomes = [entry["result"] for mutant, entry in zip(mutants, entries, strict=True) if mutant.file == file]
        counts[file] = {
            "places": places[file],
            "mutants": len(outcomes),
            "killed": sum(o != "survived" for o in outcomes),
        }
    survivors = [
        {"file": m.file, "line": m.line, "operator": m.operator, "before": m.before, "after": m.after}
        for m, entry in zip(mutants, entries, strict=True)
        if entry["result"] == "survived"
    ]
    by_result = {name: sum(entry["result"] == name for entry in entries) for name in ("failed", "crashed", "limit")}
    return {
        "seed": seed,
        "mutants": len(mutants),
        "killed": len(mutants) - len(survivors),
        "killed_by": by_result,
        "files": counts,
        "survivors": sorted(survivors, key=lambda mutant: (mutant["file"], mutant["line"])),
    }


def main() -> None:
    """The command."""
    from noiseless.files.environment import git_revision  # not above: processes that test mutants import this file, too

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=400, help="number of mutants (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--again", action="store_true", help="test survivors again")
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file of the result")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.nice(10)
    state, revision = State(STATE), git_revision()
    mutants, places = sample(source_files(), args.sample, args.seed)
    with tempfile.TemporaryDirectory(prefix="noiseless-mutants-") as scratch, ThreadPoolExecutor(args.jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(args.jobs):
            copies.put(Path(scratch) / str(number))
            shutil.copytree(SOURCE, Path(scratch) / str(number) / "noiseless")
        used = {mutant.file.split("/")[0] for mutant in mutants}
        rooms = [room for room in ROOMS if room in used]
        bases = dict(zip(rooms, pool.map(lambda room: baseline(room, state, Path(scratch) / "0"), rooms), strict=True))

        def test(number: int, mutant: Mutant) -> dict[str, Any]:
            key = digest(mutant.file, mutant.code)
            entry = state.known.get(key)
            if entry is None or (args.again and entry["result"] == "survived"):
                copy = copies.get()
                try:
                    outcome = tested(mutant, copy, bases[mutant.file.split("/")[0]])
                finally:
                    copies.put(copy)
                entry = state.add(key, result=outcome.result, test=outcome.test, cpu=outcome.cpu)
                by = outcome.test or ""
                print(
                    f"{number + 1:4d} {mutant.file}:{mutant.line} {outcome.result} {outcome.cpu:.0f} s {by}", flush=True
                )
            if entry["result"] == "survived":
                print(f"     survives: {mutant.file}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
            return entry

        with contextlib.suppress(KeyboardInterrupt):
            entries = list(pool.map(test, range(len(mutants)), mutants))
            result = {"revision": revision} | report(mutants, places, entries, args.seed)
            args.output.write_text(json.dumps(result, indent=1) + "\n")
            print(f"{result['killed']} of {result['mutants']} killed: {args.output}")


if __name__ == "__main__":
    main()
