"""The section about forks: its figures and its table, from answers written by hand."""

from __future__ import annotations

import pytest
from shown_runs import answer, figures, row, series, shown

from noiseless.report.contents import sections
from noiseless.report.summary import by_recipe


def forked(run, name="0-to-4-lr-0.2", **changes):
    """A fork at step 0 whose loss has a barrier of 2 in the middle."""
    values = {
        "step": 0, "until": 4, "changes": {"lr": [0.1, 0.2]}, "flip": None, "steps": [0, 1, 2, 4],
        "distance": [0.0, 0.5, 2.0, 8.0], "cosine": [None, 0.9, 0.5, -0.25], "points": [0.0, 0.5, 1.0],
        "line": {"loss": [1.0, 4.0, 3.0], "error": [0.1, 0.4, 0.2], "test_error": [0.2, None, 0.2]},
        "barriers": {"loss": {"height": 2.0}, "error": {"height": 0.25}, "test_error": None},
        "images": {"only_first": 3, "only_second": 1}, "passes": 8.5,
    }  # fmt: skip
    answer(run, "fork", name, **(values | changes))


def test_a_fork_is_drawn_over_its_steps_and_on_its_line(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    forked(run)
    drawn = figures(run)
    (distance,) = series(drawn["fork-distance"], "place")
    assert (distance.x, distance.y) == ([0, 1, 2, 4], [0.0, 0.5, 2.0, 8.0])
    assert distance.name.endswith("@0: lr 0.2")
    assert drawn["fork-distance"].y.scale == "log"
    (cosine,) = series(drawn["fork-cosine"], "place")
    assert (cosine.x, cosine.y) == ([1, 2, 4], [0.9, 0.5, -0.25])
    assert drawn["fork-cosine"].y.scale == "linear"
    (loss,) = series(drawn["fork-line-loss"], "place")
    assert (loss.x, loss.y) == ([0.0, 0.5, 1.0], [1.0, 4.0, 3.0])
    assert series(drawn["fork-line-test-error"], "place")[0].gaps == [0.5]
    (section,) = [section for section in sections(by_recipe([run])) if section.id == "forks"]
    assert section.table.rows[0][1:] == ("lr 0.2", "4", "8", "-0.25", "2", "0.25", "-", "3", "1", "8.5")


def test_forks_of_several_seeds_are_a_mean_and_several_changes_are_lines(tmp_path):
    runs = [shown(tmp_path / str(seed), [row(0)], seed=seed) for seed in range(2)]
    forked(runs[0])
    forked(runs[1], distance=[0.0, 1.5, 4.0, 10.0])
    flip = {"name": "fc.weight", "index": [0, 1], "bit": 3}
    forked(runs[0], "0-to-4-flip", changes={}, flip=flip, line={"loss": [], "error": [], "test_error": []}, images=None)
    lines = series(figures(*runs)["fork-distance"], "place")
    by_name = {line.name.partition(": ")[2]: line for line in lines}
    assert by_name["lr 0.2"].y == [0.0, 1.0, 3.0, 9.0]
    assert by_name["bit 3 of fc.weight[0, 1]"].y == [0.0, 0.5, 2.0, 8.0]
    assert len(series(figures(*runs)["fork-line-loss"], "place")) == 1  # equal ends have no line
    forked(runs[0], "0-to-4-wrong", barriers={})
    with pytest.raises(ValueError, match=r"fork-0-to-4-wrong\.json lacks what a report needs"):
        figures(*runs)
