"""Checks and times this program on a GPU, in ten minutes; writes one JSON file with a verdict.

    make gpu                                            # the whole, on the GPU of this machine
    python benchmarks/gpu.py --device cpu --tiny        # the same program in a minute, on a CPU

Checks: the bits of the exact sum, parity with the CPU in float64, digests over orders and restarts, no wait for the
device in a sweep, deterministic operations. Times, images per second: ResNet-18 and the airbench network (speednet) in
float32 and bfloat16, beside a plain loop; then one full-batch step of CIFAR-10, or of as many random images where it
is not on this machine. The file is written anew after each part, so that a machine that goes away leaves what is done.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gpuchecks
import torch
from sweeps import random_images
from torch import Tensor, nn

from noiseless.cost.bench import Sweep, ours, plain_sweeps, wait
from noiseless.data.extents import is_local
from noiseless.objective import ExactSum, kernels
from noiseless.optim import take_step
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.run.build import build
from noiseless.run.devices import device_of

ROUNDS = 5
"""timed sweeps of each side, which take turns; one before them is not timed"""
NO_GPU = (
    "torch sees no GPU here, so nothing of it can be checked: run make gpu on a machine with one, or"
    " python benchmarks/gpu.py --device cpu --tiny for the same program on a CPU"
)


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    cases: tuple[tuple[str, int], ...]
    """models, and images of a block"""
    images: int
    """of a timed sweep"""
    chunks: tuple[int, ...]
    """numbers of blocks at once"""
    step_model: str
    step_images: int
    parameters: int
    """length of the timed exact sum"""


FULL = Size(
    (("resnet18", 128), ("speednet128", 1000), ("speednet256", 1000)), 4000, (1, 4), "resnet18", 50_000, 11_000_000
)
TINY = Size((("resnet2", 16),), 48, (1, 2), "resnet2", 64, 5_000)


def main() -> None:
    """Runs all parts, prints a line for each and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the program itself")
    parser.add_argument("--minutes", type=float, default=10.0, help="no part begins after this time")
    parser.add_argument("--data-dir", help="where CIFAR-10 may be; nothing is downloaded")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print(NO_GPU)
        sys.exit(0)
    device, size = device_of(given.device), TINY if given.tiny else FULL
    report: dict[str, Any] = {"machine": machine(device), "tiny": given.tiny, "parts": {}}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        name: partial(check, device, given.tiny) for name, check in gpuchecks.CHECKS.items()
    }
    with tempfile.TemporaryDirectory() as place:
        images = random_images(Path(place) / "images.npz", size.step_images)
        parts["time of the exact sum"] = partial(time_sum, device, size.parameters)
        for model, block in size.cases:
            for autocast in ("none", "bfloat16"):
                key = f"images per second, {model}, block {block}, {'float32' if autocast == 'none' else autocast}"
                parts[key] = partial(speed, images, device, model, block, autocast, size)
        parts["full-batch step"] = partial(step, images, device, size, given.data_dir)
        began = time.monotonic()
        for name, part in parts.items():
            report["parts"][name] = done = performed(part, began + 60 * given.minutes)
            report["verdict"] = verdict(report["parts"])
            given.out.write_text(json.dumps(report, indent=1) + "\n")
            print(f"{name}: {json.dumps(done)}", flush=True)
    print(f"{report['verdict']} Written to {given.out}.")
    sys.exit(0 if report["verdict"].startswith("All") else 1)


def performed(part: Callable[[], dict[str, Any]], until: float) -> dict[str, Any]:
    """What a part has found, with its seconds; an error of one part leaves the others as they are."""
    began = time.monotonic()
    if began > until:
        return {"passed": None, "why": "no time was left: give more --minutes"}
    try:
        found = part()
    except Exception as error:  # whatever the device raises is what there is to know
        found = {"passed": False, "error": f"{type(error).__name__}: {error}"}
    return found | {"seconds": round(time.monotonic() - began, 2)}


def verdict(parts: dict[str, dict[str, Any]]) -> str:
    """One sentence: which parts have failed."""
    failed = [name for name, found in parts.items() if found["passed"] is False]
    if failed:
        return f"Failed: {', '.join(failed)}."
    return f"All {sum(found['passed'] is True for found in parts.values())} parts passed."


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers are of."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu", "torch": torch.__version__,
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "memory": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "loops of the exact sum": kernels.chosen(device)[1].__module__.rpartition(".")[2],
        "python": platform.python_version(), "platform": platform.platform(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def time_sum(device: torch.device, length: int) -> dict[str, Any]:
    """Milliseconds of adding one block gradient to an exact sum, and to a plain float64 sum."""
    term, weight = torch.randn(1, length, device=device), torch.ones(1, dtype=torch.float64, device=device)
    exact, plain = ExactSum(length, device), torch.zeros(length, dtype=torch.float64, device=device)
    exact.add(term, weight)  # so that the timed ones go into bins

    def milliseconds(add: Callable[[], object]) -> float:
        times = []
        for _ in range(ROUNDS + 1):
            wait()
            began = time.perf_counter()
            add()
            wait()
            times.append(1e3 * (time.perf_counter() - began))
        return median(times[1:])

    found = {"exact": milliseconds(lambda: exact.add(term, weight)), "plain": milliseconds(lambda: plain.add_(term[0]))}
    return {"passed": True, "parameters": length, **found}


class Autocast(nn.Module):
    """A model as a plain loop in bfloat16 has it: under autocast, in channels-last format."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores in float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(x).float()


def speed(images: str, device: torch.device, model: str, block: int, autocast: str, size: Size) -> dict[str, Any]:
    """Images per second of sweeps in turns with a plain loop of the same blocks; medians over the rounds."""
    recipe = with_flags(row("fb-regularized", "paper"), data=images, model=model, block=block, autocast=autocast)
    count = max(1, size.images // block) * block
    sides: dict[str, Sweep] = {}
    for chunk in size.chunks if autocast == "none" else (1,):
        sides[f"chunk {chunk}"] = ours(Config(recipe, Settings(device=str(device), chunk=chunk, compile="off")), count)
    sides["plain loop"] = plain(Config(recipe, Settings(device=str(device), compile="off")), count)
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS + 1):
        for name, sweep in sides.items():
            for penalised in (False, True):
                seconds.setdefault(f"{'penalised' if penalised else 'risk'}, {name}", []).append(sweep(penalised))
    return {"passed": True} | {name: round(count / median(times[1:]), 1) for name, times in seconds.items()}


def plain(config: Config, images: int) -> Sweep:
    """The sweeps of a plain loop, in the recipe's precision."""
    experiment = build(config)
    x, y = experiment.train.take(torch.arange(images))
    model = experiment.model.train()
    return plain_sweeps(Autocast(model) if config.recipe.model.autocast != "none" else model, x, y, config.recipe)


def step(images: str, device: torch.device, size: Size, data_dir: str | None) -> dict[str, Any]:
    """Seconds and peak memory of one step of full-batch gradient descent, after one that is not timed."""
    place = None if data_dir is None else Path(data_dir)
    data = "cifar10" if size is FULL and is_local("cifar10", place) else images
    recipe = with_flags(row("fb-clipped", "paper"), data=data, model=size.step_model, block=min(128, size.step_images))
    experiment = build(Config(recipe, Settings(device=str(device), compile="off", data_dir=data_dir)))
    experiment.model.train()
    seconds = []
    for number in range(2):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for objective in experiment.regime.objectives(number):
            take_step(experiment.optimizer, objective, experiment.transform, number=number)
        wait()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {
        "passed": True, "data": data if data == "cifar10" else "random images", "images": len(experiment.train),
        "seconds of a step": seconds[-1], "images per second": len(experiment.train) / seconds[-1], "peak bytes": peak,
    }  # fmt: skip


if __name__ == "__main__":
    main()
