"""What portable arithmetic costs: a sweep's CPU time with it and without, in turn, on one thread; and its errors.

    python benchmarks/portable_cost.py --model resnet8 --side 32 --rounds 5

Keyed noise as images: the time does not depend on the values. The ordinary sweep is not compiled.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time

import torch

from noiseless import keyed, models
from noiseless.losses.classification import cross_entropy
from noiseless.objective import EmpiricalRisk, Execution
from noiseless.run.speed import keep_memory

EXAMPLES = 128
"""one block"""


def main() -> None:
    """Prints the times, their ratio, and the relative L2 errors of the gradients against float64, as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    shape = (EXAMPLES, 3, given.side, given.side)
    x = keyed.normal(0, "cost", 0, torch.arange(torch.Size(shape).numel())).float().reshape(shape)
    model = models.build(given.model, 3, 10, models.Form(), 0, {}, (given.side, given.side))
    risks = {
        kind: EmpiricalRisk(
            model, cross_entropy, (x, torch.arange(EXAMPLES) % 10), portable=kind == "portable",
            execution=Execution(check=False),
        )
        for kind in ("ordinary", "portable")
    }  # fmt: skip
    exact = EmpiricalRisk(copy.deepcopy(model).double(), cross_entropy, (x.double(), torch.arange(EXAMPLES) % 10))
    reference = exact.evaluate().gradient
    errors = {
        kind: float((risk.evaluate().gradient.double() - reference).norm() / reference.norm())
        for kind, risk in risks.items()
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in risks}
    for number in range(given.rounds + 1):
        for kind, risk in risks.items():
            began = time.process_time()
            risk.evaluate()
            if number:  # the first round allocates
                seconds[kind].append(round(time.process_time() - began, 3))
    ratios = [p / o for p, o in zip(seconds["portable"], seconds["ordinary"], strict=True)]
    spread = {"median": statistics.median(ratios), "smallest": min(ratios), "largest": max(ratios)}
    result = {"model": given.model, "side": given.side, "seconds": seconds, "ratio": spread, "gradient errors": errors}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
