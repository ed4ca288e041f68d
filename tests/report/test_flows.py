"""What a report shows of flows: an answer made by hand against figures worked out by hand."""

from __future__ import annotations

import pytest
from shown_runs import answer, figures, row, series, shown

from noiseless.report.contents import sections
from noiseless.report.summary import by_recipe


def flow(**values):
    defaults = {"loss": [1.0, 0.5], "distance": [0.0, 0.2], "share": [None, 0.25], "parted": None, "stopped": None}
    return defaults | {"mean_loss": [1.0, 0.6], "passes": 9.0, "eigenvalues": []} | values


def run_with_flows(path, **changes):
    run = shown(path, [row(0), row(1)])
    observed = {"loss": [1.0, 0.7], "mean_loss": [1.0, 0.65], "moved": [0.0, 0.8]}
    stable = flow(parted=1, stopped="from step 4 on, it grew")
    flows = {"central": flow(eigenvalues=[[1.9], [2.0, 1.5]]), "stable": stable}
    values = {"step": 3, "steps": 1, "observed": observed, "by_flow": flows}
    answer(run, "flow", "step-3-1", **(values | changes))
    return run


def test_losses_distances_and_eigenvalues_over_the_steps_of_the_run(tmp_path):
    by_id = figures(run_with_flows(tmp_path / "run"))
    losses = {line.name: line for line in series(by_id["flow-1-loss"])}
    assert list(losses) == [
        "run", "run, mean of three steps", "central flow, predicted mean", "central flow, loss on its path",
        "stable flow",
    ]  # fmt: skip
    assert all(list(line.x) == [3.0, 4.0] for line in losses.values())
    assert losses["run, mean of three steps"].y == [1.0, 0.65]
    assert losses["central flow, predicted mean"].y == [1.0, 0.6]
    distances = {line.name: line.y for line in series(by_id["flow-1-distance"])}
    assert distances["run, from the start"] == [0.0, 0.8]
    assert distances["stable flow, from the run"] == [0.0, 0.2]
    first, second = series(by_id["flow-1-eigenvalues"])
    assert (first.x, first.y) == ([3.0, 4.0], [1.9, 2.0])
    assert (second.x, second.y) == ([4.0], [1.5])  # it is followed from step 4 on
    assert [level.value for level in by_id["flow-1-eigenvalues"].levels] == [2.0]


def test_the_table_has_a_row_for_each_flow(tmp_path):
    run = run_with_flows(tmp_path / "run")
    (section,) = [section for section in sections(by_recipe([run])) if section.id == "flows"]
    central, stable = section.table.rows
    assert central == ("fb-regularized @3", "1", "central", "0.6", "0.65", "0.2", "25 %", "no", "9", "")
    assert stable[7:] == ("at step 4", "9", "stopped from step 4 on, it grew")


def test_without_a_central_flow_there_are_no_eigenvalues(tmp_path):
    assert "flow-1-eigenvalues" not in figures(run_with_flows(tmp_path / "run", by_flow={"stable": flow()}))


def test_an_answer_that_lacks_a_value_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"flow-step-3-1\.json lacks what a report needs"):
        figures(run_with_flows(tmp_path / "run", observed={}))
