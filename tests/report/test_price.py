"""Results of a race: differences by hand, unfinished and non-finite runs, figures over passes and seconds."""

import io
import math

import pytest
from rich.console import Console

from noiseless.report.looks import colour
from noiseless.report.price import Result, figures, prices, table, write
from noiseless.report.summary import Run
from noiseless.study.contenders import USUAL


def result(contender, budget, accuracies, group="aggregated", planned=2, losses=None, at_edge=""):
    """A result whose runs have these test accuracies, and took a tenth of a second a pass."""
    runs = [
        Run(None, None, rows=[{"seconds": budget / 20, "passes": budget / 2},
                              {"seconds": budget / 20, "passes": budget, "test_accuracy": accuracy, "test_loss": loss}])
        for accuracy, loss in zip(accuracies, losses or [0.5] * len(accuracies), strict=True)
    ]  # fmt: skip
    return Result(contender, group, budget, "lr 0.1 decay 0 block 8", at_edge, runs, planned)


RACE = [
    result("sgd", 30, [0.90, 0.92], "mini-batch"),
    result("sgd", 60, [0.94, 0.96], "mini-batch", at_edge="largest decay"),
    result("muon", 60, [0.955, 0.965], "mini-batch"),
    result("aggregated", 30, [0.93, 0.95]),
    result("aggregated", 60, [0.96, 0.97]),
]


def test_points_over_mini_batch_contenders_by_hand():
    # at 30 passes 94 against sgd's 91, the only other; sgd at 60 has 95. At 60 passes 96.5 against 95, and muon's 96
    assert prices(RACE) == [
        ("aggregated", "30", "+3.00", "+3.00", "-1.00"),
        ("aggregated", "60", "+1.50", "+0.50", "-"),
    ]


def test_without_anything_to_compare_with_there_is_no_line():
    assert prices([result("aggregated", 30, [0.9]), result("sgd", 30, [], "mini-batch")]) == []


def test_the_files_hold_means_spreads_and_marks(tmp_path):
    text = write(tmp_path, RACE, "Race", "How.", "noiseless race")[0].read_text()
    # the standard deviation of 94 and 96 is sqrt(2)
    assert "| sgd | 91.00 ± 1.41 | 95.00 ± 1.41 |" in text
    assert "| muon | - | 96.00 ± 0.71 |" in text
    assert "| sgd | 3.0 ± 0.0 | 6.0 ± 0.0 |" in text  # seconds
    assert "| sgd | lr 0.1 decay 0 block 8 | lr 0.1 decay 0 block 8 (largest decay) |" in text
    assert "lr 0.1 decay 0 block 8,largest decay,2,0.95," in (tmp_path / "table.csv").read_text()
    assert "n = 2 seeds" in text


def test_unfinished_runs_are_counted_and_in_no_mean(tmp_path):
    race = [result("sgd", 30, [0.9], "mini-batch"), result("aggregated", 30, []), result("aggregated", 60, [0.9, 0.8])]
    text = write(tmp_path, race, "Race", "How.", "noiseless race")[0].read_text()
    assert "| sgd | 90.00 (1 of 2) | - |" in text
    assert "| aggregated | - (0 of 2) | 85.00 ± 7.07 |" in text
    assert [len(series.x) for series in figures(race, "x")[0].view("passes").series] == [1, 1]


def test_a_loss_that_is_not_finite_is_a_gap(tmp_path):
    race = [result("sgd", 30, [0.9, 0.8], "mini-batch", losses=[0.1, None])]
    assert math.isnan(race[0].mean("test_loss"))
    error, _, loss, _ = figures(race, "x")
    assert error.view("passes").series[0].y == [pytest.approx(15.0)]
    assert loss.view("passes").series[0].y == [None]
    assert "nan" in write(tmp_path, race, "Race", "How.", "noiseless race")[0].read_text()


def test_curves_are_over_passes_and_seconds_with_the_range_of_the_seeds():
    over_passes, over_seconds = figures(RACE, "x")[:2]
    series = {curve.name: curve for curve in over_passes.view("passes").series}
    assert list(series) == ["sgd", "muon", "aggregated"]
    assert series["sgd"].x == [30, 60]
    assert series["sgd"].low == pytest.approx([8, 4])
    assert series["sgd"].high == pytest.approx([10, 6])
    assert {curve.name: curve.x for curve in over_seconds.view("seconds").series}["aggregated"] == pytest.approx([3, 6])


def test_each_of_the_usual_contenders_has_another_colour():
    (over_passes, *_) = figures([result(name, 30, [0.9]) for name in USUAL], "x")
    assert len({colour(curve.look) for curve in over_passes.view("passes").series}) == len(USUAL)


def test_five_budgets_fit_into_a_terminal():
    many = [result("fb-regularized", budget, [0.9, 0.95]) for budget in (15, 30, 60, 120, 300)]
    shown = io.StringIO()
    Console(width=80, file=shown).print(table(many, "Race"))
    (line,) = [line for line in shown.getvalue().splitlines() if "fb-regularized" in line]
    assert line.count("92.50 ±3.54") == 5
