"""Compares a case by the program with the oracle: a row of errors, or of the sentences with which it is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from module_cases.case import Case, Column, wide
from module_cases.oracle import Plain
from noiseless import EmpiricalRisk, Execution, GradientPenalty
from noiseless.objective.base import Objective

LR, STRENGTH, EPS = 4.0, 0.5, 1e-2
SCALE = LR / 4 * STRENGTH
"""what the penalty's gradient multiplies H_b g_b with"""
COLUMNS: tuple[Column, ...] = ("value", "gradient", "exact", "central", "product")
# Rounding of float64 (1e-16) grows in deep nets with small norm blocks by up to 1e5 (the condition of batch norm's
# backward), and by 1e2 more in second derivatives. The oracle's differences have an error of 1e-12 / 1e-4.
TOLERANCES: dict[Column, float] = {"value": 1e-11, "gradient": 1e-9, "exact": 1e-8, "central": 1e-8, "product": 1e-8}
DIFFERENCE = 1e-6
TIMES_PLAIN = 5.0
"""largest error in float32, in units of that of plain autograd in float32: one draw of rounding beside another"""


@dataclass
class Row:
    """The largest relative errors of a case."""

    case: Case
    errors: dict[Column, float] = field(default_factory=dict)
    refusals: dict[Column, str] = field(default_factory=dict)
    float32: float | None = None
    plain_float32: float = 0.0
    """the error of plain autograd in float32"""
    difference: float | None = None
    """between the products and differences of the oracle's gradient"""
    alone: bool = False
    """whether blocks are not computed together, which a warning says"""

    def problems(self) -> list[str]:
        """What is not as it should be, in words."""
        found = []
        for column in COLUMNS:
            words, told = self.case.refused.get(column), self.refusals.get(column)
            limit = TOLERANCES[column] * self.case.rounding
            if column in ("exact", "product") and not self.case.doubly:
                limit = DIFFERENCE
            if words is None and told is not None:
                found.append(f"{column} is refused: {told}")
            elif words is not None and (told is None or words not in told or "\n" in told):
                found.append(f"{column} is not refused with {words!r}, but: {told or self.errors.get(column)}")
            elif words is None and "value" not in self.refusals and not self.errors[column] <= limit:
                found.append(f"{column} is off by {self.errors[column]:.1e}")
        if self.float32 is not None and not self.float32 <= max(self.case.float32, TIMES_PLAIN * self.plain_float32):
            found.append(f"in float32 it is off by {self.float32:.1e}")
        if self.difference is not None and self.case.smooth and not self.difference <= DIFFERENCE:
            found.append(f"products are {self.difference:.1e} from differences of the gradient")
        return found


def compare(case: Case) -> Row:
    """Value, gradient, penalised gradients (exact and central) and Hessian products, for chunks of 1 and 2 blocks."""
    row = Row(case)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for chunk in (1, 2):
            risk = _told(row, "value", lambda chunk=chunk: _risk(case, True, chunk))
            if risk is None:
                return row
            if chunk == 1:
                plain = Plain(case)
                theta = torch.cat([p.detach().reshape(-1) for p in plain.parameters])
                assert torch.equal(risk.space.theta.detach(), theta)
                value, gradient = float(plain.mean(plain.loss)), plain.mean(plain.gradient)
            if _told(row, "value", partial(_of_risk, row, risk, value, gradient)) is None:
                return row
            methods: tuple[Column, ...] = ("exact", "central") if chunk == 1 else ("central",) if case.smooth else ()
            for method in methods:
                _told(row, method, partial(_of_penalty, row, risk, plain, method))
        _told(row, "product", partial(_of_product, row, _risk(case, True, 1), plain))
        single = _risk(case, False, 1).evaluate()
        of_gradient = _apart(single.gradient.double(), gradient)
        row.float32 = max(abs(single.loss - value) / max(1.0, abs(value)), of_gradient)
        if row.float32 > case.float32:
            in_float32 = Plain(case, double=False)
            row.plain_float32 = _apart(in_float32.mean(in_float32.gradient).double(), gradient)
    row.alone = any("one at a time" in str(warning.message) for warning in caught)
    return row


def _risk(case: Case, double: bool, chunk: int) -> EmpiricalRisk:
    module, data = (case.module().double(), wide(case.data)) if double else (case.module(), case.data)
    loss = case.loss_in(torch.float64 if double else torch.float32)
    return EmpiricalRisk(module, loss, data, block=case.block, execution=Execution(chunk=chunk))


def _of_risk(row: Row, risk: EmpiricalRisk, value: float, gradient: Tensor) -> bool:
    evaluation = risk.evaluate()
    for loss in (evaluation.loss, risk.measure().loss):
        _note(row, "value", abs(loss - value) / max(1.0, abs(value)))
    _note(row, "gradient", _apart(evaluation.gradient, gradient))
    return True


def _of_penalty(row: Row, risk: EmpiricalRisk, plain: Plain, method: Column) -> None:
    penalty: Objective = GradientPenalty(risk, STRENGTH, lr=LR, method=method, eps=EPS)  # type: ignore[arg-type]
    found = penalty.evaluate().gradient
    _note(row, method, _apart(found, plain.penalised(method, SCALE, EPS)))


def _of_product(row: Row, risk: EmpiricalRisk, plain: Plain) -> None:
    case = row.case
    V = torch.randn(
        2 if case.smooth else 1, len(risk.space), generator=torch.Generator().manual_seed(8), dtype=torch.float64
    )
    V = V / V.norm(dim=1, keepdim=True)
    found = risk.hvp(V)
    for v, product in zip(V, found, strict=True):
        _note(row, "product", _apart(product, plain.mean(lambda block, v=v: plain.product(block, v))))
    if case.smooth:
        row.difference = _apart(found[0], plain.difference(V[0]))


def _apart(one: Tensor, other: Tensor) -> float:
    """The error as a share of what is right, or of 1e-3 where that is smaller."""
    return float((one - other).norm()) / max(float(other.norm()), 1e-3)


def _note(row: Row, column: Column, error: float) -> None:
    row.errors[column] = max(row.errors.get(column, 0.0), error, key=lambda e: (e != e, e))  # nan is the largest


def _told(row: Row, column: Column, call: Callable[[], Any]) -> Any:
    """What a call returns; None if it is refused, which the row notes."""
    try:
        return call()
    except ValueError as error:
        row.refusals[column] = str(error)
        return None
