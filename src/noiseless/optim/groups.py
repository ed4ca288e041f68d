"""Parameter groups of an optimizer: learning rates by layer, and no decay on biases and norms. Step 7 of a step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from noiseless.optim.registry import OptimizerEntry

LR_FACTOR = "lr_factor"
"""key of a group under which it holds its learning rate in units of the schedule's; without it, it is 1"""


def is_small(name: str, dimensions: int) -> bool:
    """Whether a parameter is a bias or of a norm, by timm's rule: fewer than two dimensions, or called `bias`."""
    return dimensions < 2 or name.rpartition(".")[2] == "bias"


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], factors: Mapping[str, float], decay_biases: bool
) -> list[dict[str, Any]]:
    """The parameters in groups that share a learning rate and a decay.

    Args:
        named: trainable parameters with their names.
        factors: of the learning rate, by name; 1 where there is none.
        decay_biases: whether small parameters (see `is_small`) are in groups with the others; else they are in groups
            of `weight_decay` 0.

    Returns:
        Groups for an optimizer of torch. Those with decay come first; groups with a factor other than 1 hold it.
    """
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, p in named:
        small, factor = not decay_biases and is_small(name, p.ndim), factors.get(name, 1.0)
        group: dict[str, Any] = {"params": []}
        group |= {"weight_decay": 0.0} if small else {}
        group |= {LR_FACTOR: factor} if factor != 1 else {}
        groups.setdefault((small, factor), group)["params"].append(p)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rates of all parameter groups: `lr`, times the factor of a group that has one."""
    for group in optimizer.param_groups:
        factor = group.get(LR_FACTOR)
        group["lr"] = lr if factor is None else lr * factor


def refuse_several_rates(entry: OptimizerEntry, factors: Collection[float]) -> None:
    """Raises for different learning rates of an optimizer that needs one rate for all parameters.

    Args:
        entry: of the optimizer.
        factors: of the learning rates.

    Raises:
        ValueError: naming the optimizer.
    """
    if entry.one_rate and len(set(factors)) > 1:
        raise ValueError(
            f"{entry.kind.__name__} learns from its steps what the curvature along all parameters is, so it needs one"
            " learning rate for all of them: give it one, or use an optimizer such as SGD, AdamW or Muon"
        )
