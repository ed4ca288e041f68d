"""The command `sharpness` with other matrices than the Hessian, and blocks by layer or pattern."""

from __future__ import annotations

import pytest
import torch
from small_runs import call, copy, refused

from noiseless.analysis import GaussNewton, Restricted, diagonal, layer_parts, matching_part, top_eigenvalues
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers
from noiseless.objective.workers import Alone


@pytest.fixture(scope="module")
def state(finished):
    """The state after two steps."""
    return load_state(StateAddress.read(f"{finished.path}@2"), Alone())


def ask(directory, *flags):
    """The answer of the command, and what it has printed."""
    command = call("sharpness", f"{directory.path}@2", *flags)
    assert command.code == 0, command
    (answer,) = answers.read(directory, "sharpness")
    return answer, command.out


def test_layers_have_the_eigenvalues_and_traces_of_their_blocks(state, finished, tmp_path):
    run = copy(finished, tmp_path / "run")
    answer, printed = ask(run, "--of", "layer", "--curvature", "ggn", "--trace", 6, "--most", 1)
    assert answer.name == "step-2-layer-ggn"
    matrix = GaussNewton(state.risk, "ggn", "block")
    traces = diagonal(matrix, 6)
    layers = answer.values["layers"]
    assert [layer["name"] for layer in layers] == list(traces.layers)
    for number, (layer, part) in enumerate(zip(layers, layer_parts(state.risk.space).values(), strict=True)):
        if number in (0, 3, len(layers) - 1):
            top = top_eigenvalues(Restricted(matrix, part), 1, most=1)
            assert layer["largest"] == top.largest.values.tolist()
        assert layer["parameters"] == len(part)
        trace = traces.layers[layer["name"]]
        assert layer["trace"] == {"value": trace.value, "error": trace.error}
        assert layer["name"] in printed
    assert answer.values["trace"]["value"] == pytest.approx(sum(layer["trace"]["value"] for layer in layers), rel=1e-12)
    assert answer.values["largest"] == []
    assert answer.values["stability"] is None
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    assert len(rows) == len(layers)
    assert all(len(row) <= 80 for row in rows)


def test_a_pattern_is_the_block_of_its_parameters(state, finished, tmp_path):
    run = copy(finished, tmp_path / "run")
    name = list(layer_parts(state.risk.space))[-1]
    answer, printed = ask(run, "--of", f"{name}.*", "--curvature", "empirical-fisher", "--tolerance", 0.01)
    part = matching_part(state.risk.space, name)
    top = top_eigenvalues(Restricted(GaussNewton(state.risk, "empirical-fisher", "block"), part), 1, tolerance=0.01)
    assert answer.values["largest"] == top.largest.values.tolist()
    assert answer.values["layers"] is None
    assert answer.values["stability"] is None  # the steps do not follow this matrix
    assert f"block of {name}.*" in " ".join(printed.split())
    assert answer.name.startswith(f"step-2-{name}._-")
    assert torch.isfinite(torch.tensor(answer.values["largest"])).all()


def test_the_cost_of_other_products_is_estimated(finished, tmp_path):
    run = copy(finished, tmp_path / "run")
    command = call("sharpness", run.path, "--estimate", "--curvature", "fisher")
    assert "a Fisher product is 2.33 passes" in " ".join(command.out.split())


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--of", "layer9"), ("no parameter matches 'layer9'", "such as")),
        (("--of", "objectives"), ("no parameter matches 'objectives'", "or loss, objective or layer")),
        (("--of", ""), ("--of is empty", "layer")),
        (("--of", "objective", "--curvature", "ggn"), ("--curvature ggn", "--of objective")),
        (("--of", "layer", "--density"), ("--density", "pattern")),
        (("--curvature", "gnn"), ("gnn", "ggn")),
    ],
)
def test_flags_that_do_not_fit_are_refused(finished, flags, names):
    refused("sharpness", f"{finished.path}@2", *flags, names=names)
