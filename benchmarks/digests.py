"""Writes digests of short runs, which show whether a change of the code has changed a bit of any result.

    python benchmarks/digests.py before.json      # at the revision before
    python benchmarks/digests.py after.json       # at the revision after
    diff before.json after.json

Each recipe is trained for a few steps on digits: by one worker, by two workers, and killed and resumed; then with other
flags. A line has the digests of the final parameters and of the record without its seconds. Bits depend on the
processor, so compare files of one machine only. Takes five minutes on two cores.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECIPES = ("sgd", "fb", "fb-longer", "fb-clipped", "fb-regularized", "fb-strong", "fb-practice", "aggregated")
COMMON = ("--images", "256", "--threads", "1", "--compile", "off", "--evaluate-every", "2", "--checkpoint-seconds", "0")
STEPS = 6
VARIANTS = {
    "fb blocks": "fb --block 64 --norm-block 16",
    "fb uneven": "fb --block 60 --chunk 2",
    "fb chunk": "fb-strong --chunk 4",
    "fb chunk compiled": "fb-strong --chunk 4 --compile on",
    "fb bfloat16": "fb-strong --autocast bfloat16",
    "fb published": "fb-regularized --compat published --drop-last",
    "fb central": "fb-regularized --penalty-method central",
    "fb exact penalty": "fb-regularized --penalty-method exact",
    "fb full penalty": "fb --full-penalty 0.5",
    "fb sam": "fb-clipped --sam 0.05",
    "fb max-up": "fb --max-up 2",
    "fb copies": "fb --copies 2 --first-clean",
    "fb ema": "fb --ema 0.9 --statistics ema",
    "fb policy": "fb --policy rand --label-smoothing 0.1",
    "fb clips": "fb --block-clip 0.1 --agc 0.02 --layer-rate lars",
    "fb noise": "fb --additive-noise 0.001 --multiplicative-noise 0.1",
    "fb norm bias": "fb --norm-bias 0.01 --norm-target 10",
    "fb group norm": "fb --norm group --model resnet8",
    "fb densenet": "fb --model densenet121 --images 64 --steps 2",
    "fb lbfgs": "fb --optimizer DampedLBFGS --line-search wolfe --weight-decay 0 --augment none",
    "fb armijo": "fb --line-search armijo --augment none --momentum 0",
    "fb muon": "fb --optimizer Muon --lr 0.02",
    "fb adamw": "fb --optimizer AdamW --lr 0.01",
    "fb fista": "fb --optimizer FISTA --lr 0.1 --weight-decay 0",
    "switch": "sgd --regime switch --switch 3",
    "sgd replacement": "sgd --replacement --rate-by update",
    "aggregated plain": "aggregated --parts 3 --optimizer SGD --optimizer-options= --norm-block 8 --shuffle False",
    "speednet": "fb --model speednet128 --images 64 --pixels 32 --steps 2",
    "asked": "fb-strong --sharpness-every 3 --noise-every 3 --layers-every 3",
}


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "noiseless", *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _output(words: list[str]) -> str:
    """Standard output of a command; raises if it fails."""
    finished = subprocess.run(words, env=_environment(), capture_output=True, text=True, check=False)  # noqa: S603
    if finished.returncode:
        raise RuntimeError(f"{' '.join(words[3:])}: exit {finished.returncode}\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def _digest(run: Path) -> str:
    """First digits of two digests: of the parameters, by `noiseless digest`, and of the record without seconds."""
    parameters = _output(_command("digest", str(run))).split()[0]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = json.dumps([{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows], sort_keys=True)
    return f"{parameters[:16]} {hashlib.sha256(record.encode()).hexdigest()[:16]}"


def _train(run: Path, flags: str, *more: str) -> str:
    """Digest of a run with a recipe and flags."""
    recipe, *rest = flags.split()
    _output(_command("train", recipe, "--steps", str(STEPS), *COMMON, *rest, *more, "--run-dir", str(run)))
    return _digest(run)


def _kill_and_resume(run: Path, recipe: str) -> str:
    """Digest of a run that is killed (SIGKILL) after two rows and then resumed."""
    words = _command("train", recipe, "--steps", str(STEPS), *COMMON, "--run-dir", str(run))
    process = subprocess.Popen(words, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    rows = run / "metrics.jsonl"
    while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") >= 2):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _output(_command("resume", str(run)))
    return _digest(run)


def main(target: str) -> None:
    """Writes the digests to a file; exits with 1 if a run fails, or if two workers or a kill change a bit."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        place = Path(folder)
        jobs = {}
        for recipe in RECIPES:
            jobs[f"{recipe}: one worker"] = pool.submit(_train, place / f"{recipe}-1", recipe)
            jobs[f"{recipe}: two workers"] = pool.submit(_train, place / f"{recipe}-2", recipe, "--workers", "2")
            jobs[f"{recipe}: killed"] = pool.submit(_kill_and_resume, place / f"{recipe}-k", recipe)
        for number, (name, flags) in enumerate(VARIANTS.items()):
            jobs[name] = pool.submit(_train, place / f"variant-{number}", flags)
        lines, failed = {}, []
        for name, job in jobs.items():
            try:
                lines[name] = job.result()
            except RuntimeError as error:
                failed.append(str(error))
    Path(target).write_text(json.dumps(lines, indent=1) + "\n")
    print(*failed, sep="\n")
    for recipe in RECIPES:
        ways = {lines.get(f"{recipe}: {way}") for way in ("one worker", "two workers", "killed")}
        if len(ways) != 1:
            print(f"{recipe}: one worker, two workers and a killed run differ")
            failed.append(recipe)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(*sys.argv[1:])
