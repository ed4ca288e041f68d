"""The command `flow`, as a user calls it: an estimate, an answer with its report, and mistakes."""

from __future__ import annotations

import json

import pytest
import small_runs
from small_runs import call, refused, words

FLAGS = [
    *("--model", "linear", "--augment", "none", "--momentum", 0, "--schedule", "constant", "--warmup", 0, "--lr", 0.02),
    *("--steps", 8, "--block", 16, "--threads", 1, "--keep-every", 2, "--compile", "off"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow")
    data = small_runs.npz(path / "tiny.npz")
    assert call("train", "fb", "--data", data, *FLAGS, "--run-dir", path / "run").code == 0
    return path / "run"


def test_an_estimate_computes_nothing(run):
    shown = call("flow", f"{run}@2", "--steps", 3, "--estimate")
    assert shown.code == 0, shown.err
    assert "with one direction at the edge" in words(shown.out)
    assert not list((run / "analysis").glob("flow*"))


def test_an_answer_is_printed_saved_and_drawn(run):
    shown = call("flow", f"{run}@2", "--steps", 3)
    assert shown.code == 0, shown.err
    text = words(shown.out)
    for expected in ("central", "stable", "gradient flow and stable flow are one", "edge at 2", "passes"):
        assert expected in text
    values = json.loads((run / "analysis" / "flow-step-2-3.json").read_text())["found"]
    assert values["repeated"] == {"rows": 4, "equal": True}
    assert not list((run / "analysis").glob("*.partial"))
    assert call("report", run).code == 0
    assert "flow-1-distance" in (run / "report.html").read_text()
    only = call("flow", f"{run}@2", "--steps", 3, "--flows", "stable")
    assert only.code == 0, only.err
    assert (run / "analysis" / "flow-step-2-3-flows-stable.json").exists()


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--steps", 0), ("--steps", "at least 1")),
        (("--steps", 6), ("give --steps 5 or fewer",)),
        (("--substeps", 0), ("--substeps",)),
        (("--directions", 1), ("--directions",)),
        (("--tolerance", 2), ("--tolerance", "between 0 and 1")),
        (("--share", 0), ("--share",)),
        (("--flows", "rod"), ("--flows", "central")),
        (("--flows", "stable", "stable"), ("--flows", "once")),
    ],
)
def test_a_mistake_is_one_sentence(run, flags, names):
    refused("flow", f"{run}@2", *flags, names=names)
