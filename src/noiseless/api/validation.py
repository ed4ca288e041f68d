"""Evaluates a user's model on validation data, in `eval()` mode. For `fit`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis import module_mode
from noiseless.examples.trees import called, mapped, parted
from noiseless.files.predictions import Predictions
from noiseless.objective import EmpiricalRisk, Measurement
from noiseless.run.evaluate import Tested


def measured(risk: EmpiricalRisk) -> Measurement:
    """Loss, hits and metrics in `eval()` mode."""
    with module_mode(risk.module, "running"):
        return risk.measure()


@dataclass(frozen=True)
class Validation:
    """The validation data of a run."""

    risk: EmpiricalRisk
    """over these data; one process computes it alone"""
    predicts: bool
    """whether predictions are recorded, too"""

    def __call__(self) -> Tested:
        """What the run records of an evaluation."""
        result = measured(self.risk)
        columns = {"test_loss": result.loss}
        columns |= {} if result.accuracy is None else {"test_accuracy": result.accuracy}
        columns |= {f"test_{name}": value for name, value in result.metrics.items()}
        return Tested(columns, predictions(self.risk) if self.predicts and result.hits is not None else None)


@torch.no_grad()
def predictions(risk: EmpiricalRisk) -> Predictions | None:
    """The predicted and the right class of each example, for comparisons of runs.

    Args:
        risk: over the examples.

    Returns:
        The classes; None where the module does not return class scores `[n, classes]` for targets `[n]`.
    """
    device, predicted, targets = risk.space.device, [], []
    with module_mode(risk.module, "running"):
        for numbers in risk.selection.numbers.split(risk.blocks.size):
            inputs, target = mapped(lambda t: t.to(device), parted(risk.selection.examples.take(numbers)))
            output = called(risk.module, inputs)
            if not (_has_dimensions(output, 2) and _has_dimensions(target, 1)):
                return None
            predicted.append(output.argmax(1).cpu())
            targets.append(target.cpu())
    return Predictions(torch.cat(predicted).numpy(), torch.cat(targets).numpy())


def _has_dimensions(value: object, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim == count
