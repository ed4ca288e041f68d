"""Value, gradient, penalised gradient and Hessian product of many modules, against plain autograd through the module.

docs/modules.md has the table: benchmarks/modules.py writes it.
"""

from __future__ import annotations

import pytest
from module_cases import CASES, QUICK
from module_cases.case import Case
from module_cases.compare import compare


@pytest.mark.parametrize("case", [case for case in CASES if case.name in QUICK], ids=lambda case: case.name)
def test_a_few_modules_are_right_or_refused(case: Case) -> None:
    assert compare(case).problems() == []


@pytest.mark.soak
@pytest.mark.parametrize("case", [case for case in CASES if case.name not in QUICK], ids=lambda case: case.name)
def test_modules_are_right_or_refused(case: Case) -> None:
    assert compare(case).problems() == []


def test_there_are_at_least_120_modules_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 120
    assert {case.name for case in CASES} >= QUICK
