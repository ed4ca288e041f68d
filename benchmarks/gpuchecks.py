"""What has to hold on a device, each check as a function: `benchmarks/gpu.py` runs them.

A check returns what it has measured, with `passed`: True, False, or None where the device does not say.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from noiseless import keyed, models
from noiseless.files.checkpoint import digest
from noiseless.objective import (
    EmpiricalRisk,
    Evaluation,
    ExactSum,
    Execution,
    GradientPenalty,
    cross_entropy,
    kernels,
    resident,
)
from noiseless.objective.partial import Partial
from noiseless.objective.workers import Alone
from noiseless.run.devices import try_deterministic

RISK_LIMIT, PENALTY_LIMIT = 1e-10, 1e-7
"""largest relative differences of float64 gradients between two devices; a probe of length 0.01 divides by it"""
Found = dict[str, Any]


def sums(device: torch.device, tiny: bool) -> Found:
    """The exact sum on the device, by each of its loops, against the CPU's: equal bits."""
    length, rows, groups = (2_000, 3, 4) if tiny else (3_000_000, 4, 8)
    scale = keyed.uniform(0, "gpu scales", 0, torch.arange(length)).mul(40).exp2()
    terms = [_noise(rows * length, k).reshape(rows, length) * scale * 2.0 ** (9 * k) for k in range(groups)]
    for k, special in enumerate((math.inf, -math.inf, math.nan)):
        terms[k][1, k], terms[-1][0, 0] = special, math.inf
    weights = torch.tensor([128.0, 1.0, 3.0, 77.0], dtype=torch.float64)[:rows]
    expected = _summed(terms, weights, torch.device("cpu")).view(torch.int64)
    found: Found = {}
    for loops in dict.fromkeys(((kernels.largest, kernels.deposit), kernels.chosen(device))):
        with patch.object(kernels, "chosen", lambda device, loops=loops: loops), patch.object(resident, "stays", bool):
            value = _summed(terms, weights, device).cpu().view(torch.int64)
        name = loops[1].__module__.rpartition(".")[2]
        found[f"elements that differ, loops of {name}"] = int((value != expected).sum())
    return {"passed": not any(found.values()), **found, "elements": length}


def parity(device: torch.device, tiny: bool) -> Found:
    """Loss, gradient and statistics of the risk and the penalty in float64, on the device and on the CPU."""
    found: Found = {"passed": True}
    model, data = _problem(tiny, torch.float64)
    for name, limit in (("risk", RISK_LIMIT), ("penalty", PENALTY_LIMIT)):
        there, here = (_objective(model, data, where, name).evaluate() for where in (device, torch.device("cpu")))
        differences = {
            "loss": abs(there.loss - here.loss) / abs(here.loss),
            "gradient": _apart(there.gradient, here.gradient),
            "statistics": _apart(there.statistics, here.statistics),
        }
        found[name] = differences | {"limit": limit}
        found["passed"] &= all(value <= limit for value in differences.values())
    return found


def digests(device: torch.device, tiny: bool) -> Found:
    """A penalised float32 gradient: again, in another order of the chunks, and after a restart in mid-sweep."""
    model, data = _problem(tiny, torch.float32)

    def digest_of(workers: Alone, chunk: int = 1) -> tuple[str, Evaluation]:
        done = _objective(model, data, device, "penalty", workers, chunk).evaluate()
        numbers = torch.tensor([done.loss, done.penalty, float(done.hits or 0)], dtype=torch.float64)
        named = {"gradient": done.gradient, "statistics": done.statistics, "numbers": numbers}
        return digest({name: tensor.cpu() for name, tensor in named.items()}), done

    ways = {"in order": Alone(), "again": Alone(), "in another order": _Permuted(), "restarted": _Restarted()}
    found: Found = {way: digest_of(workers)[0] for way, workers in ways.items()}
    passed = len(set(found.values())) == 1
    (alone, one), (several, other) = digest_of(Alone()), digest_of(Alone(), 4)
    return {
        "passed": passed, **found, "four blocks at once have the same bits": alone == several,
        "four blocks at once, relative difference of the gradient": _apart(other.gradient, one.gradient),
    }  # fmt: skip


def waits(device: torch.device, tiny: bool) -> Found:
    """Whether CUDA is waited for between the first and last chunk of a sweep; torch itself reports each time."""
    if device.type != "cuda":
        return {"passed": None, "why": "a CPU is not waited for; tests/objective/test_waiting.py counts there"}
    model, data = _problem(tiny, torch.float32)
    for name in ("risk", "penalty"):
        try:
            _objective(model, data, device, name, _Unwaiting()).evaluate()
        except (RuntimeError, ValueError) as error:
            torch.cuda.set_sync_debug_mode("default")
            return {"passed": False, "objective": name, "error": str(error)}
    return {"passed": True}


def deterministic(device: torch.device, tiny: bool) -> Found:
    """Which models of each family have an operation without a deterministic form, which a run would refuse."""
    names = ("resnet2",) if tiny else ("resnet18", "densenet121", "vgg16", "nfnet18", "speednet128", "pyramidnet110")
    refused, data = {}, (_noise(8 * 3 * 32**2, 1).reshape(8, 3, 32, 32), torch.arange(8) % 10)
    known = [name for name in names if name in models.names()]
    for name in known:
        risk = EmpiricalRisk(models.build(name, 3, 10).to(device), cross_entropy, data, block=4)
        try:
            try_deterministic(risk)
        except ValueError as error:
            refused[name] = str(error)
    return {"passed": not refused, "models": known, "refused": refused}


CHECKS: dict[str, Callable[[torch.device, bool], Found]] = {
    "exact sum": sums, "parity with the CPU in float64": parity, "digests": digests,
    "nothing waits for the device": waits, "deterministic operations": deterministic,
}  # fmt: skip


def _summed(terms: list[Tensor], weights: Tensor, device: torch.device) -> Tensor:
    total = ExactSum(terms[0].shape[1], device)
    for group in terms:
        total.add(group.to(device), weights[: len(group)])
    return total.value()


def _noise(count: int, step: int) -> Tensor:
    return keyed.normal(0, "gpu", step, torch.arange(count)).float()


def _problem(tiny: bool, dtype: torch.dtype) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A ResNet and images of a pattern with noise: some blocks, the last one short."""
    count, side = (40, 8) if tiny else (1000, 32)
    y = torch.arange(count) % 10
    x = _noise(count * 3 * side**2, 2).reshape(count, 3, side, side) + y[:, None, None, None] / 5
    return models.build("resnet2" if tiny else "resnet8", 3, 10).to(dtype), (x.to(dtype), y)


def _objective(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    device: torch.device,
    name: str,
    workers: Alone | None = None,
    chunk: int = 1,
) -> EmpiricalRisk | GradientPenalty:
    """The risk or the penalty over blocks of a 13th of the data, on a device."""
    x, y = (t.to(device) for t in data)
    risk = EmpiricalRisk(
        copy.deepcopy(model).to(device).train(), cross_entropy, (x, y), block=len(y) // 13,
        execution=Execution(workers or Alone(), chunk),
    )  # fmt: skip
    return risk if name == "risk" else GradientPenalty(risk, 0.5, lr=0.1)


def _apart(one: Tensor, other: Tensor) -> float:
    """L2 norm of the difference, relative to that of the second."""
    a, b = one.double().cpu(), other.double().cpu()
    return float((a - b).norm() / b.norm())


class _Permuted(Alone):
    def share(self, partial: Partial) -> Iterator[int]:
        yield from list(super().share(partial))[::-1]


class _Restarted(Alone):
    """Its sums go to files' tensors and back after a third and two thirds of the chunks, as when a run is killed."""

    def share(self, partial: Partial) -> Iterator[int]:
        numbers = list(super().share(partial))
        for place, number in enumerate(numbers):
            yield number
            if place in (len(numbers) // 3, 2 * len(numbers) // 3):
                kept = partial.filled({name: tensor.cpu().clone() for name, tensor in partial.tensors().items()})
                assert kept is not None
                partial.vectors, partial.scalars, partial.done = kept.vectors, kept.scalars, kept.done


class _Unwaiting(Alone):
    """Lets torch raise an error where CUDA is waited for, between the first and the last chunk."""

    def share(self, partial: Partial) -> Iterator[int]:
        first, *others = super().share(partial)
        yield first
        torch.cuda.set_sync_debug_mode("error")
        yield from others
        torch.cuda.set_sync_debug_mode("default")
