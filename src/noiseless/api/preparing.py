"""Prepares an analysis of any module: its empirical risk, and a progress bar; the module is left as it was."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack

import torch
from torch import nn
from torch.utils.data import DataLoader

from noiseless.analysis import BatchNorm
from noiseless.api.progress import Bar, Counted
from noiseless.documented import field_texts
from noiseless.examples.selection import Selection
from noiseless.losses.terms import PerExample
from noiseless.objective import EmpiricalRisk, Execution
from noiseless.objective.space import borrowed

BLOCK = 128
"""number of examples in a block, unless it is given"""
P = ParamSpec("P")
R = TypeVar("R")


class Options(TypedDict, total=False):
    """Keyword arguments of all analyses."""

    block: int | None
    """examples that are forwarded together; None: the batch size of a `DataLoader`, else 128"""
    batch_norm: BatchNorm | None
    """`"block"` for `train()` mode, `"running"` for `eval()` mode; None: the module's mode"""
    norm_block: int | None
    """examples that batch norm in `train()` mode normalises together; None: the block"""
    autocast: torch.dtype | None
    """dtype of `torch.autocast`; None: no autocast"""
    execution: Execution | None
    """workers, chunk and compiler; None: this process alone, without a compiler"""
    progress: bool | None
    """True: a progress bar; False: none; None: one for long work in a terminal or a notebook"""


def with_options(function: Callable[P, R]) -> Callable[P, R]:
    """Lists the `Options` in the signature and the docstring of an analysis, for `help` and for checks of names."""
    signature = inspect.signature(function)
    *parameters, rest = signature.parameters.values()
    assert rest.kind is rest.VAR_KEYWORD
    texts = field_texts(Options)
    listed = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation.__forward_arg__)
        for name, annotation in Options.__annotations__.items()
    ]
    full = signature.replace(parameters=[*parameters, *listed])

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            full.bind(*args, **kwargs)
        except TypeError as error:  # a misspelt name, among others
            names = ", ".join(name for name in full.parameters)
            raise TypeError(f"{function.__name__}(): {error}; its arguments are {names}") from None
        return function(*args, **kwargs)

    call.__signature__ = full  # type: ignore[attr-defined]
    lines = "".join(f"        {name}: {texts[name]}.\n" for name in Options.__annotations__)
    call.__doc__ = (function.__doc__ or "").replace("        **options: see `Options`.\n", lines)
    return call


@dataclass(frozen=True)
class Prepared:
    """The risk of a module during an analysis."""

    risk: EmpiricalRisk
    bar: Bar
    batch_norm: BatchNorm | None

    @property
    def chunks(self) -> int:
        """Number of chunks in a sweep without Hessian products."""
        return len(self.risk.blocks.chunks(self.risk.execution.chunk))

    def common(self, passes: float) -> dict[str, Any]:
        """The fields that all results have."""
        return {
            "examples": self.risk.blocks.count,
            "block": self.risk.blocks.size,
            "training": self.risk.module.training if self.batch_norm is None else self.batch_norm == "block",
            "passes": passes,
        }


@contextmanager
def prepared(
    what: str, model: nn.Module, loss: PerExample, data: Any, least_blocks: int = 1, **options: Unpack[Options]
) -> Iterator[Prepared]:
    """A context in which a module's risk can be analysed. At its end the module is as before, also after an error.

    Args:
        what: name of the analysis, for the bar.
        model: any module.
        loss: as for `EmpiricalRisk`.
        data: as for `EmpiricalRisk`.
        least_blocks: smallest number of blocks, where the options have no `block`.
        **options: see `Options`.

    Yields:
        The risk, with its bar.
    """
    execution = options.get("execution") or Execution()
    selection = Selection.of(data)
    block = options.get("block")
    if block is None:
        size = data.batch_size if isinstance(data, DataLoader) and data.batch_size else BLOCK
        block = max(1, min(size, len(selection) // least_blocks))
    show = options.get("progress") if execution.workers.rank == 0 else False
    with borrowed(model), Bar(what, show) as bar:
        counted = replace(execution, workers=Counted(execution.workers, bar.advance))
        risk = EmpiricalRisk(
            model, loss, selection, block=block, norm_block=options.get("norm_block"),
            autocast=options.get("autocast"), execution=counted,
        )  # fmt: skip
        yield Prepared(risk, bar, options.get("batch_norm"))
