"""The report's section on the edge of stability: answers made by hand against figures worked out by hand."""

from __future__ import annotations

from shown_runs import answer, edge, figures, row, shown

from noiseless.report.contents import sections
from noiseless.report.summary import by_recipe


def _series(figure):
    return {s.name: (s.x, s.y, s.kind) for s in figure.view("step").series}


def test_each_followed_eigenvalue_has_its_line_and_the_edge_is_dashed(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    edge(run, "step-0")
    by_id = figures(run)
    assert _series(by_id["edge-1"]) == {
        "eigenvalue 1": ([0, 1, 2], [9.0, 21.0, 6.0], "line"),
        "eigenvalue 2": ([0, 1], [4.0, 5.0], "line"),
        "eigenvalue 3": ([2], [22.0], "line"),
        "edge": ([0, 1, 2], [20.0, 20.0, None], "threshold"),
        "batch sharpness": ([0, 1, 2], [1.0, 2.0, 3.0], "thin"),
    }
    assert _series(by_id["edge-1-loss"]) == {
        "training loss": ([0, 1, 2], [1.0, 2.0, 0.5], "line"), "catapults": ([1], [2.0], "points"),
    }  # fmt: skip
    (section,) = [section for section in sections(by_recipe([run])) if section.id == "edge"]
    assert section.table.rows[0][1:9] == ("SGD", "loss", "0 to 2", "3", "1.05", "1", "1", "3 of 3")


def test_a_sharpness_in_spectral_norms_has_one_line(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    edge(run, "step-0", measure="spectral", edge=[20.0, 20.0, 18.0])
    assert _series(figures(run)["edge-1"]) == {
        "sharpness": ([0, 1, 2], [9.0, 21.0, 22.0], "line"), "edge": ([0, 1, 2], [20.0, 20.0, 18.0], "threshold"),
    }  # fmt: skip


def test_the_causes_of_a_change_of_the_sharpness_have_their_lines(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    causes = [{"gradient drift": 0.5, "decay": -0.1}, {"gradient drift": 0.25, "decay": -0.2}]
    answer(run, "sharpen", "step-3", step=3, steps=[3, 4], causes=causes, change=[0.4, 0.1])
    assert _series(figures(run)["sharpen-1"]) == {
        "gradient drift": ([3, 4], [0.5, 0.25], "line"),
        "decay": ([3, 4], [-0.1, -0.2], "line"),
        "actual change": ([3, 4], [0.4, 0.1], "threshold"),
    }
