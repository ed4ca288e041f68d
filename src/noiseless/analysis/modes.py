"""The mode in which a question finds the module: as it stands, as in training, or as in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from torch import nn

from noiseless.errors import UnknownNameError

BatchNorm = Literal["block", "running"]
"""`"block"`: `train()` mode, with batch norm by the statistics of each norm block and keyed dropout, as in training;
`"running"`: `eval()` mode, with batch norm by its running statistics and without dropout, as in tests"""


@contextmanager
def module_mode(module: nn.Module, batch_norm: BatchNorm | None) -> Iterator[None]:
    """Puts a module into a mode for a while; afterwards each of its parts is in the mode in which it was.

    Args:
        module: the model.
        batch_norm: see `BatchNorm`; None: each part stays in its mode.

    Yields:
        Nothing.

    Raises:
        UnknownNameError: for another mode.
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
