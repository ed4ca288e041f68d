"""The command `sharpness` with other matrices than the Hessian, and blocks by layer or pattern."""

from __future__ import annotations

import pytest
from problems import perceptron, points
from small_runs import call, copy, refused, run, small_recipe
from torch import nn

from noiseless.analysis import GaussNewton, Restricted, diagonal, layer_parts, matching_part, top_eigenvalues
from noiseless.ask.layers import by_layer
from noiseless.ask.options import SharpnessOptions
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers
from noiseless.objective import EmpiricalRisk, cross_entropy
from noiseless.objective.workers import Alone


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of a linear model, which has one layer, `fc`."""
    path = tmp_path_factory.mktemp("runs") / "linear"
    return run(path, small_recipe(data, "fb", model="linear", steps=2), keep_every=1)


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


def test_layers_have_the_eigenvalues_and_traces_of_their_blocks():
    """Against the library, for a module of two layers, of which one has fewer parameters than eigenvalues are asked."""
    module = nn.Sequential(perceptron(), nn.Linear(3, 3, bias=False).double(), nn.LayerNorm(3).double())
    matrix = GaussNewton(EmpiricalRisk(module, cross_entropy, points(), block=6))
    options = SharpnessOptions(largest=5, smallest=2, trace=8, most=30)
    values = by_layer(matrix, matrix.space, options)
    traces, passes, products = diagonal(matrix, 8), 0.0, 0
    layers = values["layers"]
    assert [layer["name"] for layer in layers] == ["0.0", "0.2", "1", "2"] == list(traces.layers)
    assert [layer["parameters"] for layer in layers] == [16, 15, 9, 6]
    for layer, part in zip(layers, layer_parts(matrix.space).values(), strict=True):
        top = top_eigenvalues(Restricted(matrix, part), 5, min(2, len(part) - 5), most=30)
        assert layer["largest"] == top.largest.values.tolist()
        assert layer["largest_residuals"] == top.largest.residuals.tolist()
        assert layer["smallest"] == top.smallest.values.tolist()
        assert layer["converged"] == top.converged
        trace = traces.layers[layer["name"]]
        assert layer["trace"] == {"value": trace.value, "error": trace.error}
        passes, products = passes + top.passes, products + top.products
    assert len(layers[3]["smallest"]) == 1
    assert values["trace"] == {"value": traces.trace, "error": traces.trace_error}
    assert (values["passes"], values["products"]) == (pytest.approx(passes + traces.passes), products)


def test_the_command_saves_and_prints_layers(state, finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    answer, printed = ask(directory, "--of", "layer", "--curvature", "ggn", "--trace", 6)
    assert answer.name == "step-2-layer-ggn"
    (layer,) = answer.values["layers"]
    top = top_eigenvalues(GaussNewton(state.risk, "ggn", "block"), 1)
    assert layer["largest"] == [pytest.approx(top.largest.values.item(), rel=1e-5)]
    assert (answer.values["largest"], answer.values["stability"]) == ([], None)
    (row,) = [line for line in printed.splitlines() if line.startswith("│")]
    assert [word for word in row.split() if word not in "│±"][:2] == ["fc", f"{len(state.risk.space)}"]
    assert len(row) <= 80


def test_a_pattern_is_the_block_of_its_parameters(state, finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    answer, printed = ask(directory, "--of", "*.bias", "--curvature", "empirical-fisher")
    part = matching_part(state.risk.space, "*.bias")
    top = top_eigenvalues(Restricted(GaussNewton(state.risk, "empirical-fisher", "block"), part), 1)
    assert answer.values["largest"] == top.largest.values.tolist()
    assert (answer.values["layers"], answer.values["stability"]) == (None, None)  # steps do not follow this matrix
    assert "block of *.bias" in " ".join(printed.split())
    assert answer.name.startswith("step-2-_.bias-")


def test_the_edge_of_stability_is_that_of_the_hessian(finished, tmp_path):
    """Of a model that is linear in its parameters, both matrices are the same one; steps follow the Hessian."""
    directory = copy(finished, tmp_path / "run")
    hessian, printed = ask(directory)
    assert hessian.values["stability"] > 0 and "edge of stability" in printed
    other, printed = ask(copy(finished, tmp_path / "other"), "--curvature", "fisher")
    assert other.values["stability"] is None and "edge of stability" not in printed
    assert other.values["largest"] == pytest.approx(hessian.values["largest"], rel=1e-5)


def test_the_cost_of_other_products_is_estimated(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    command = call("sharpness", directory.path, "--estimate", "--curvature", "fisher")
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
