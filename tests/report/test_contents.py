"""What a report shows, as plain values: hand-made rows and answers against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown_runs import analysed, answer, axis, bowl, row, sharpness, shown

from noiseless.report.contents import sections
from noiseless.report.figures import Axis, Curves, Grid, Level, Series, View, scale
from noiseless.report.seeds import joined
from noiseless.report.summary import by_recipe


def figures(*runs):
    """All figures by id."""
    all_figures = [figure for section in sections(by_recipe(runs)) for figure in section.figures]
    by_id = {figure.id: figure for figure in all_figures}
    assert len(by_id) == len(all_figures)
    return by_id


def series(figure, over="steps"):
    return figure.views[over].series


def test_a_run_without_analyses_has_curves_and_nothing_else(tmp_path):
    run = shown(tmp_path / "run", [row(0), row(1, test_loss=1.0, test_accuracy=0.75)])
    assert [section.id for section in sections(by_recipe([run]))] == ["curves"]
    by_id = figures(run)
    # the penalty is 0 throughout: there is none
    expected = ["test-accuracy", "test-error", "train-loss", "test-loss", "gradient-norm", "lr", "parameter-norm"]
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


def test_sharpness_has_its_stability_threshold_and_the_answers(tmp_path):
    run = shown(tmp_path / "0", [row(0, sharpness=3.0, stability=None), row(1), row(2, sharpness=4.0, stability=20.0)])
    sharpness(run, "0", step=0, largest=[2.5], smallest=[], stability=7.0)
    sharpness(run, "3", step=3, largest=[4.1], smallest=[], stability=20.0, passes=9.0)
    sharpness(run, "3-objective", step=3, of="objective", largest=[99.0], smallest=[])
    figure = figures(run)["sharpness"]
    line, points, threshold = series(figure, "passes")
    assert (line.x, line.y, line.kind) == ([1.0, 3.0], [3.0, 4.0], "line")  # the row between has no analysis: no gap
    assert (points.x, points.y, points.kind) == ([0.0, 3.0], [2.5, 4.1], "points")
    assert (threshold.x, threshold.y, threshold.kind) == ([3.0], [20.0], "threshold")
    (section,) = [section for section in sections(by_recipe([run])) if section.id == "sharpness"]
    assert [line[:2] for line in section.table.rows] == [
        ("fb-regularized @0", "loss"), ("fb-regularized @3", "loss"), ("fb-regularized @3", "objective"),
    ]  # fmt: skip


def test_answers_alone_have_their_threshold_and_one_at_an_unknown_step_is_not_over_passes(tmp_path):
    run = shown(tmp_path / "0", [row(0), row(1)])
    sharpness(run, "1", step=1, largest=[2.5], smallest=[], stability=7.0)
    sharpness(run, "9", step=9, largest=[2.6], smallest=[], stability=8.0)
    figure = figures(run)["sharpness"]
    assert [(s.kind, s.x, s.y) for s in series(figure)] == [
        ("points", [1.0, 9.0], [2.5, 2.6]), ("threshold", [1.0, 9.0], [7.0, 8.0]),
    ]  # fmt: skip
    assert [s.x for s in series(figure, "passes")] == [[1.0], [1.0]]


def test_the_threshold_of_adam_is_drawn_with_the_preconditioned_sharpness(tmp_path):
    rows = [row(0, sharpness=3.0, stability=38.0, preconditioned_sharpness=30.0)]
    by_id = figures(shown(tmp_path / "0", rows, optimizer="Adam"), shown(tmp_path / "1", [row(0)], name="b"))
    assert [s.kind for s in series(by_id["sharpness"])] == ["line"]
    assert [(s.kind, s.y) for s in series(by_id["preconditioned-sharpness"])] == [
        ("line", [30.0]),
        ("threshold", [38.0]),
    ]


def test_each_eigenvalue_has_its_line(tmp_path):
    run = shown(tmp_path / "0", [row(0, eigenvalues=[3.0, 1.0]), row(1, eigenvalues=[4.0, None])])
    figure = figures(run)["eigenvalues-1-fb-regularized"]
    assert [(s.name, s.y) for s in series(figure)] == [("1", [3.0, 4.0]), ("2", [1.0, None])]
    assert figure.legend


def test_the_density_is_shown_down_to_a_share_of_its_largest_value(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    density = {"grid": [0.0, 1.0, 2.0], "density": [1e3, 1e-300, None]}
    sharpness(run, "1", step=1, largest=[2.5], smallest=[], stability=None, density=density)
    figure = figures(run)["spectral-density"]
    (line,) = figure.view("any").series
    assert (line.x, line.y) == ([0.0, 1.0, 2.0], [1e3, 1e-300, None])
    assert figure.y.floor == pytest.approx(1e-4)


def test_noise_by_block_and_layer(tmp_path):
    run = shown(tmp_path / "0", [row(0, noise_scale=5.0, signal_to_noise=0.5)])
    for step, ratio in ((0, 0.3), (1, 0.1)):
        answer(
            run, "noise", f"{step}", step=step, block=4, blocks=3, noise_scale=7.0, signal_to_noise=ratio,
            by_block=[{"block": 8, "signal_to_noise": 2 * ratio}, {"block": 4, "signal_to_noise": ratio}],
            layers={"b": {"signal_to_noise": ratio}, "a": {"signal_to_noise": None}},
        )  # fmt: skip
    by_id = figures(run)
    assert [(s.kind, s.x, s.y) for s in series(by_id["noise-scale"])] == [
        ("line", [1.0], [5.0]), ("points", [0.0, 1.0], [7.0, 7.0]),
    ]  # fmt: skip
    by_block = by_id["signal-to-noise-by-block"]
    assert [(s.name, s.x, s.y) for s in by_block.view("").series] == [
        ("fb-regularized @0", [4.0, 8.0], [0.3, 0.6]), ("fb-regularized @1", [4.0, 8.0], [0.1, 0.2]),
    ]  # fmt: skip
    assert by_block.legend  # one recipe, two lines: the legend of recipes does not name them
    (layers,) = by_id["signal-to-noise-by-layer"].view("").series
    assert (layers.x, layers.y, layers.name) == (["b", "a"], [0.1, None], "fb-regularized @1")  # the last state


def test_a_landscape_has_the_first_direction_on_the_horizontal_axis(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    axes = [axis(2, "east", points=[0.0, 1.0]), axis(3, "north", points=[0.0, 5.0, 10.0])]
    answer(
        run, "landscape", "1", step=1, axes=axes, loss=[[1.0, 2.0, 3.0], [4.0, None, 6.0]], accuracy=None,
        penalised=None, done=5, total=6, batch_norm="block",
    )  # fmt: skip
    (grid,) = [figure for figure in figures(run).values() if isinstance(figure, Grid)]
    assert (grid.x.label, grid.y.label) == ("east", "north")
    assert grid.z == [[1.0, 4.0], [2.0, None], [3.0, 6.0]]  # a row for each y
    assert grid.missing == [(1.0, 5.0)]
    assert "1 of 6 points" in grid.note
    assert "unfinished: 5 of 6" in grid.note
    assert grid.surface


def test_a_grid_with_a_single_point_in_a_direction_is_no_surface(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    answer(
        run, "landscape", "1", step=1, axes=[axis(1), axis(3)], loss=[[1.0, 2.0, 3.0]], accuracy=None, penalised=None
    )
    (grid,) = [figure for figure in figures(run).values() if isinstance(figure, Grid)]
    assert not grid.surface
    assert "no surface" in grid.note


def test_a_landscape_with_a_loss_of_zero_has_no_logarithms(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    for name, low in (("a", 0.0), ("b", 1e-3)):
        answer(
            run, "landscape", name, step=1, axes=[axis(2), axis(2)], loss=[[low, 1.0], [2.0, 3.0]], accuracy=None,
            penalised=None,
        )  # fmt: skip
    assert [grid.value.scale for grid in figures(run).values() if isinstance(grid, Grid)] == ["linear", "log"]


def test_landscapes_along_one_direction_overlay_runs_and_join_seeds(tmp_path):
    runs = [shown(tmp_path / f"{k}", [row(0)], seed=k) for k in range(2)] + [shown(tmp_path / "b", [row(0)], name="b")]
    for run, top in zip(runs, (2.0, 4.0, 9.0), strict=True):
        answer(run, "landscape", "1", step=1, axes=[axis(2)], loss=[1.0, top], accuracy=[1.0, 0.5], penalised=None)
    by_id = figures(*runs)
    loss = by_id["landscape-1-loss"].view("").series
    assert [(s.name, s.y, s.look) for s in loss] == [("fb-regularized @1", [1.0, 3.0], 0), ("b @1", [1.0, 9.0], 1)]
    assert loss[0].high == [1.0, 4.0]
    assert not by_id["landscape-1-loss"].legend
    assert "landscape-1-penalised" not in by_id
    answer(runs[2], "landscape", "other", step=1, axes=[axis(2, "PCA 1", kind="pca")], loss=[1.0, 2.0], accuracy=None)
    assert [s.name for s in figures(*runs)["landscape-2-loss"].view("").series] == ["b @1"]  # other kinds are apart


def test_two_landscapes_of_one_state_have_different_names(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    for seed in (0, 1):
        answer(run, "landscape", f"{seed}", step=1, axes=[axis(2, seed=seed)], loss=[1.0, 2.0], batch_norm="block")
    figure = figures(run)["landscape-1-loss"]
    names = [s.name for s in figure.view("").series]
    assert names == [f"fb-regularized @1, direction and batch norm: {seed}, block" for seed in (0, 1)]
    assert figure.legend


def test_layers_over_steps_and_at_the_end(tmp_path):
    def layers(a, b):
        return {"a": {"norm": a, "distance": 3.0}, "b": {"norm": b, "distance": 4.0}}

    runs = [
        shown(
            tmp_path / f"{k}", [row(0, layers=layers(1.0, 2.0)), row(1), row(2, layers=layers(3.0 + k, None))], seed=k
        )
        for k in range(2)
    ]
    by_id = figures(*runs)
    (distance,) = series(by_id["weight-distance"])
    assert (distance.x, distance.y) == ([1.0, 3.0], [5.0, 5.0])  # sqrt(3**2 + 4**2)
    (profile,) = by_id["layers-norm"].view("").series
    assert (profile.x, profile.y, profile.kind) == (["a", "b"], [3.5, None], "points")  # no line from name to name
    assert profile.bars("linear", 1.0) == [(0.5, 0.5), (0.0, 0.0)]
    assert profile.band("linear", 1.0) == []
    grid = by_id["layers-norm-1-fb-regularized"]
    assert (grid.xs, list(grid.ys), grid.z) == ([1.0, 3.0], ["a", "b"], [[1.0, 3.5], [2.0, None]])
    answer(runs[0], "layers", "9", step=9, layers=layers(7.0, 8.0))
    (later,) = figures(runs[0])["layers-norm"].view("").series
    assert later.y == [7.0, 8.0]


def test_an_answer_that_lacks_something_is_named(tmp_path):
    run = shown(tmp_path / "0", [row(0)])
    answer(run, "landscape", "1", step=1, axes=[axis(2)], loss=5)
    with pytest.raises(ValueError, match=r"analysis/landscape-1\.json lacks what a report needs"):
        figures(run)
    answer(run, "landscape", "1", step=1, axes=[axis(3)], loss=[1.0])
    with pytest.raises(ValueError, match=r"analysis/landscape-1\.json"):
        figures(run)


def test_runs_with_all_analyses_have_every_section(tmp_path):
    runs = [analysed(tmp_path / f"{k}", seed=k) for k in range(2)] + [analysed(tmp_path / "b", name="b")]
    all_sections = sections(by_recipe(runs))
    assert [section.id for section in all_sections] == ["curves", "sharpness", "noise", "landscapes", "layers"]
    assert all(section.figures for section in all_sections)
    assert len(figures(*runs)) > 25
    grid = figures(*runs)["landscape-2d-1-loss"]
    assert grid.value.scale == "log"  # from 0.1 to 286
    assert grid.z[1] == [column[1] for column in bowl(7, 6)]
    assert all(isinstance(figure, (Curves, Grid)) for figure in figures(*runs).values())


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
