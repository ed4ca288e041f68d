"""What the classes of the room are: frozen values, objects that are compared by identity, abstract interfaces."""

from __future__ import annotations

import pytest
from values import by_identity, mutable

from noiseless import examples, objective
from noiseless.objective.base import Objective, Wrapper
from noiseless.objective.risk import Blockwise
from noiseless.objective.workers import Workers


def test_values_are_frozen():
    """All but the objectives, whose fields may be set, and the partial sum."""
    assert mutable(objective) == {"EmpiricalRisk", "GradientPenalty", "SharpnessAware", "BlockClip", "Partial"}


def test_what_holds_a_module_or_examples_is_compared_by_identity():
    assert by_identity(objective) == {"EmpiricalRisk", "GradientPenalty", "SharpnessAware", "BlockClip", "Execution"}
    assert by_identity(examples) == {"Selection"}


@pytest.mark.parametrize(
    ("interface", "names"),
    [
        (Objective, {"wrapped", "over", "exact", "passes", "sweeps", "evaluate", "hvp", "hvp_passes", "accept"}),
        (Wrapper, {"wrapped", "over", "exact", "evaluate"}),
        (Blockwise, {"wrapped", "over", "exact", "passes", "sweeps", "hvp", "hvp_passes", "accept", "by_block"}),
        (Workers, {"begin", "close", "share", "combine", "any", "exchange", "fail"}),
    ],
)
def test_an_interface_asks_for_its_methods(interface, names):
    assert interface.__abstractmethods__ == names
    with pytest.raises(TypeError, match="abstract"):
        interface()
