"""What a report shows of analyses, as plain values: answers made by hand against figures worked out by hand."""

from __future__ import annotations

import pytest
from shown_runs import analysed, answer, axis, bowl, figures, row, series, sharpness, shown

from noiseless.report.contents import sections
from noiseless.report.figures import Curves, Grid
from noiseless.report.summary import by_recipe


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


def test_sharpness_is_shown_at_the_loss_of_the_state_that_it_belongs_to(tmp_path):
    """The loss of a row is that before its step; sharpness is that after it."""
    rows = [row(0, train_loss=3.0, sharpness=5.0), row(1, train_loss=1.0), row(2, train_loss=0.01, sharpness=9.0)]
    one = shown(tmp_path / "0", [*rows, row(3, train_loss=2.0)])
    other = shown(tmp_path / "1", [row(0, sharpness=4.0), row(1, train_loss=0.5)], name="b")
    figure = figures(one, other)["sharpness-at-equal-loss"]
    assert [(s.x, s.y) for s in series(figure, "loss")] == [([1.0, 2.0], [5.0, 9.0]), ([0.5], [4.0])]
    assert "sharpness-at-equal-loss" not in figures(shown(tmp_path / "2", [row(0, sharpness=4.0)]))


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
    assert [section.id for section in all_sections] == ["curves", "sharpness", "edge", "noise", "landscapes", "layers"]
    assert all(section.figures for section in all_sections)
    assert len(figures(*runs)) > 25
    grid = figures(*runs)["landscape-2d-1-loss"]
    assert grid.value.scale == "log"  # from 0.1 to 286
    assert grid.z[1] == [column[1] for column in bowl(7, 6)]
    assert all(isinstance(figure, (Curves, Grid)) for figure in figures(*runs).values())
