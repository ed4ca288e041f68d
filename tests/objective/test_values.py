"""The classes of noiseless.objective: frozen values, objects compared by identity, abstract interfaces."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import noiseless.objective
from noiseless.objective.base import Objective, Wrapper
from noiseless.objective.risk import Blockwise
from noiseless.objective.workers import Workers


def dataclasses_of(package):
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(package.__path__, package.__name__ + ".")]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return [c for c in classes if dataclasses.is_dataclass(c) and c.__module__.startswith(package.__name__)]


def test_values_are_frozen():
    """All but the objectives, whose fields may be set, and the partial sum."""
    mutable = {c.__name__ for c in dataclasses_of(noiseless.objective) if not c.__dataclass_params__.frozen}
    assert mutable == {"EmpiricalRisk", "GradientPenalty", "SharpnessAware", "BlockClip", "Partial"}


def test_what_holds_a_module_or_examples_is_compared_by_identity():
    by_identity = {c.__name__ for c in dataclasses_of(noiseless.objective) if not c.__dataclass_params__.eq}
    assert by_identity == {
        "EmpiricalRisk", "GradientPenalty", "SharpnessAware", "BlockClip", "Selection", "Execution",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("interface", "names"),
    [
        (Objective, {"wrapped", "over", "exact", "passes", "sweeps", "evaluate", "hvp", "hvp_passes", "accept"}),
        (Wrapper, {"wrapped", "over", "exact", "evaluate"}),
        (Blockwise, {"wrapped", "over", "exact", "passes", "sweeps", "hvp", "hvp_passes", "accept", "by_block"}),
        (Workers, {"begin", "share", "combine", "any", "exchange"}),
    ],
)
def test_an_interface_requires_its_methods(interface, names):
    assert interface.__abstractmethods__ == names
    with pytest.raises(TypeError, match="abstract"):
        interface()
