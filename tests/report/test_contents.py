"""What a report shows, as plain values: hand-made rows and answers against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_runs import figures, row, series, shown

from noiseless.report.contents import sections
from noiseless.report.figures import Axis, Curves, Level, Series, View, scale
from noiseless.report.seeds import joined
from noiseless.report.summary import by_recipe


def test_a_run_without_analyses_has_curves_and_nothing_else(tmp_path):
    run = shown(tmp_path / "run", [row(0), row(1, test_loss=1.0, test_accuracy=0.75)])
    assert [section.id for section in sections(by_recipe([run]))] == ["curves"]
    by_id = figures(run)
    # the penalty is 0 throughout: there is none
    expected = ["test-accuracy", "test-error", "train-loss", "test-loss", "gradient-norm", "lr", "parameter-norm"]
    expected.append("train-accuracy")
    assert list(by_id) == expected
    (accuracy,) = series(by_id["test-accuracy"])
    assert (accuracy.x, accuracy.y) == ([2.0], [75.0])  # where it was measured, in per cent
    (error,) = series(by_id["test-error"])
    assert error.y == [25.0]
    assert by_id["train-loss"].y.scale == "linear"  # from 1 to 0.5


def test_seeds_are_a_mean_with_their_range_over_steps_and_over_passes(tmp_path):
    first = shown(tmp_path / "0", [row(0, passes=2.0, train_loss=1.0), row(1, passes=4.0, train_loss=0.5)])
    second = shown(tmp_path / "1", [row(0, passes=2.0, train_loss=3.0), row(1, passes=4.0, train_loss=0.7)], seed=1)
    figure = figures(first, second)["train-loss"]
    (steps,), (passes,) = series(figure), series(figure, "passes")
    assert (steps.x, passes.x) == ([1.0, 2.0], [2.0, 4.0])
    assert steps.y == passes.y == [2.0, pytest.approx(0.6)]
    assert (steps.low, steps.high) == ([1.0, 0.5], [3.0, 0.7])
    assert (steps.kind, steps.look, steps.name) == ("line", 0, "fb-regularized")


def test_a_value_that_is_not_finite_is_a_gap_and_no_mean_of_the_others(tmp_path):
    first = shown(tmp_path / "0", [row(0), row(1, train_loss=None), row(2)])
    second = shown(tmp_path / "1", [row(0), row(1), row(2)], seed=1)
    (mean,) = series(figures(first, second)["train-loss"])
    assert mean.y == [1.0, None, pytest.approx(1 / 3)]
    assert mean.gaps == [2.0]
    assert mean.lone("log") == [0, 2]  # two values that no line shows
    assert mean.band("log", 0.1) == []  # no part of it has two places


def test_a_band_ends_where_the_smallest_seed_is_and_at_the_smallest_value_if_that_is_zero():
    for kind in ("line", "points"):
        series = Series("a", [1.0, 2.0], [10.0, 10.0], kind=kind, low=[0.5, 0.0], high=[20.0, 30.0])
        figure = Curves("x", "x", Axis("y", "log"), {"": View(Axis("x"), [series])})
        assert figure.floor() == 0.5
        if kind == "line":
            assert series.band("log", 0.5) == [([1.0, 2.0], [0.5, 0.5], [20.0, 30.0])]
            assert series.band("linear", 0.5) == [([1.0, 2.0], [0.5, 0.0], [20.0, 30.0])]
        else:
            assert series.bars("log", 0.5) == [(9.5, 10.0), (9.5, 20.0)]
            assert series.bars("linear", 0.5) == [(9.5, 10.0), (10.0, 20.0)]


def test_zero_has_no_logarithm_and_is_no_gap(tmp_path):
    run = shown(tmp_path / "0", [row(0, test_accuracy=0.5), row(1, test_accuracy=0.95), row(2, test_accuracy=1.0)])
    figure = figures(run)["test-error"]
    (error,) = series(figure)
    assert figure.y.scale == "log"
    assert error.y == [50.0, pytest.approx(5.0), 0.0]
    assert (error.gaps, error.below("log"), error.below("linear")) == ([], [3.0], [])
    assert error.drawn("log") == [50.0, pytest.approx(5.0), None]
    perfect = shown(tmp_path / "1", [row(0, test_accuracy=1.0)])
    assert figures(perfect)["test-error"].y.scale == "linear"


def test_steps_beyond_the_shortest_seed_are_a_separate_line(tmp_path):
    long = shown(tmp_path / "0", [row(k) for k in range(4)])
    short = shown(tmp_path / "1", [row(k) for k in range(2)], seed=1)  # stopped after perfect steps
    mean, rest = series(figures(long, short)["train-loss"])
    assert (mean.kind, mean.x) == ("line", [1.0, 2.0])
    assert (rest.kind, rest.x) == ("thin", [2.0, 3.0, 4.0])


def test_a_run_that_has_not_ended_is_in_no_mean(tmp_path):
    finished = shown(tmp_path / "0", [row(k) for k in range(4)])
    stopped = shown(tmp_path / "1", [row(0, train_loss=9.0)], ended=False, seed=1)
    mean, unfinished = series(figures(finished, stopped)["train-loss"])
    assert (mean.y, mean.low) == ([1.0, 0.5, pytest.approx(1 / 3), 0.25], None)
    assert (unfinished.name, unfinished.kind, unfinished.y) == ("fb-regularized, seed 1, unfinished", "thin", [9.0])


def test_seeds_with_different_passes_are_joined_over_steps_alone(tmp_path):
    """With a line search, seeds have values at different passes: there is no mean over passes."""
    first = shown(tmp_path / "0", [row(0, passes=2.0), row(1, passes=5.0)])
    second = shown(tmp_path / "1", [row(0, passes=3.0), row(1, passes=5.0)], seed=1)
    figure = figures(first, second)["train-loss"]
    assert [s.kind for s in series(figure)] == ["line"]
    assert [(s.kind, s.x) for s in series(figure, "passes")] == [("thin", [2.0, 5.0]), ("thin", [3.0, 5.0])]


def test_clips_are_levels_of_the_gradient_norm(tmp_path):
    def levels(*clips):
        rows = [row(0)]
        runs = [
            shown(tmp_path / f"{k}-{clip}", rows, name=f"r{k}", clip=clip, clip_type=kind)
            for k, (clip, kind) in enumerate(clips)
        ]
        return figures(*runs)["gradient-norm"].levels

    assert levels((0.25, "l2"), (0.25, "l2"), (None, "l2")) == [Level(0.25, "clip 0.25", None)]
    assert levels((0.5, "l2"), (0.25, "l2")) == [Level(0.25, "clip 0.25", 1), Level(0.5, "clip 0.5", 0)]
    assert levels((0.25, "max")) == []  # a clip of the largest element is no line among L2 norms


def test_a_recipe_without_penalty_is_not_in_its_panel(tmp_path):
    with_one = shown(tmp_path / "0", [row(0, penalty=0.5)], name="a", penalty=0.5)
    without = shown(tmp_path / "1", [row(0)], name="b")
    assert [s.name for s in series(figures(with_one, without)["penalty"])] == ["a"]


@pytest.mark.parametrize(
    ("values", "ratio", "expected"),
    [
        ([1.0, 6.0], 5, "log"), ([1.0, 5.0], 5, "linear"), ([0.0, 2.0, None, 11.0], 5, "log"),
        ([2.0, 0.0], 5, "linear"), ([0.0, -1.0], 5, "linear"), ([None], 5, "linear"), ([], 5, "linear"),
        ([1.0, 10.0], 20, "linear"),
    ],
)  # fmt: skip
def test_a_scale_is_logarithmic_above_a_ratio_of_positive_values(values, ratio, expected):
    assert scale(values, ratio) == expected


values = st.one_of(st.none(), st.floats(-1e6, 1e6))


@given(st.lists(st.lists(values, min_size=5, max_size=5), min_size=2, max_size=4))
def test_a_mean_lies_in_its_band_and_gaps_are_of_any_seed(seeds):
    measured = [seed for seed in seeds if any(y is not None for y in seed)]
    lines = joined("r", 0, [dict(enumerate(y for y in seed)) for seed in seeds])
    if len(measured) < 2:
        return
    (mean,) = lines
    for k, y in enumerate(mean.y):
        column = [seed[k] for seed in measured]
        assert (y is None) == any(value is None for value in column)
        if y is not None:
            slack = 1e-9 * max(abs(value) for value in column)
            assert min(column) == mean.low[k] <= y + slack
            assert max(column) == mean.high[k] >= y - slack
            assert y == pytest.approx(math.fsum(column) / len(column))
