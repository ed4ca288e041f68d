"""The module's mode during a measurement: as in training, as in evaluation, or its present mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from torch import nn

from noiseless.errors import UnknownNameError

BatchNorm = Literal["block", "running"]
"""`"block"`: `train()` mode, with batch norm by the statistics of each norm block and keyed dropout, as in training;
`"running"`: `eval()` mode, with batch norm by its running statistics and without dropout, as in evaluation"""


@contextmanager
def module_mode(module: nn.Module, batch_norm: BatchNorm | None) -> Iterator[None]:
    """Sets a module's mode within a `with` block, and restores the mode of each of its submodules at the end.

    Args:
        module: the model.
        batch_norm: see `BatchNorm`; None: changes nothing.

    Yields:
        Nothing.

    Raises:
        UnknownNameError: for an unknown mode.
    """
    if batch_norm is None:
        yield
        return
    if batch_norm not in get_args(BatchNorm):
        raise UnknownNameError("batch-norm mode", batch_norm, get_args(BatchNorm))
    modes = [(part, part.training) for part in module.modules()]
    module.train(batch_norm == "block")
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
