"""Landscapes of runs: values against models that are built at the points, and the same file after stops and kills."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace

import jobs
import printed
import pytest
import torch
from programs import Copy
from small_runs import call, copy, count_lines, files, run, small_recipe, words

from noiseless.analysis import LossSurface, random_direction
from noiseless.ask.axes import AxesOptions, build_axes
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers, checkpoint
from noiseless.objective import SharpnessAware
from noiseless.run.build import rebuild


def _ask(directory, *arguments, kind="landscape"):
    """Runs the command to its end; returns the file and the content of its answer."""
    before = set(directory.path.glob(f"analysis/{kind}-*.json"))
    answer = call(kind, *arguments)
    assert answer.code == 0, answer
    (path,) = set(directory.path.glob(f"analysis/{kind}-*.json")) - before
    return path, json.loads(path.read_text())["found"]


def _experiment_at(directory, step, change):
    """The objects of a run at a saved state; `change` maps the parameters, as a float64 vector, to others."""
    experiment = rebuild(directory, snapshots=False)
    experiment.model.load_state_dict(checkpoint.at(directory.checkpoints, step)["model"])
    theta = torch.cat([p.detach().double().flatten() for p in experiment.model.parameters()])
    torch.nn.utils.vector_to_parameters(change(theta).float(), experiment.model.parameters())
    return experiment


@pytest.mark.parametrize("batch_norm", ["block", "running"])
def test_each_point_has_the_values_of_a_model_built_there(run_copy, batch_norm):
    arguments = ("--points", 5, "--range", 0.5, "--seed", 3, "--batch-norm", batch_norm)
    before = files(run_copy.path)
    _, landscape = _ask(run_copy, f"{run_copy.path}@2", *arguments)
    assert {name: content for name, content in files(run_copy.path).items() if "analysis" not in name} == before
    assert (landscape["step"], landscape["done"], landscape["total"], landscape["gaps"]) == (2, 5, 5, 0)
    assert landscape["batch_norm"] == batch_norm
    assert landscape["passes"] == 5
    (axis,) = landscape["axes"]
    assert axis["points"] == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert (axis["kind"], axis["seed"], axis["normalised"]) == ("random", 3, "filter")
    for k, a in enumerate(axis["points"]):
        experiment = _experiment_at(run_copy, 2, lambda theta, a=a: theta)
        direction = random_direction(experiment.space, 3, 0, "filter")
        experiment = _experiment_at(run_copy, 2, lambda theta, a=a, d=direction: theta + a * d)
        experiment.model.train(batch_norm == "block")
        evaluation = next(iter(experiment.regime.objectives(2))).evaluate()
        assert evaluation.penalty > 0
        assert landscape["loss"][k] == evaluation.loss
        assert landscape["penalised"][k] == evaluation.value
        assert landscape["accuracy"][k] == evaluation.hits / evaluation.count
    assert landscape["penalty"]["lr"] == experiment.schedule(2)
    assert len(set(landscape["loss"])) == 5


def test_eigenvectors_of_the_hessian_are_axes(run_copy):
    _, landscape = _ask(
        run_copy, run_copy.path, "--axes", "eigen", "--points", "2x3", "--range", 0.01, "--no-penalised"
    )
    assert [(axis["kind"], axis["number"], axis["normalised"]) for axis in landscape["axes"]] == [
        ("eigen", 0, "none"), ("eigen", 1, "none"),
    ]  # fmt: skip
    _, sharpness = _ask(run_copy, run_copy.path, "--largest", 2, kind="sharpness")
    state = load_state(StateAddress.read(str(run_copy.path)))
    axes, _ = build_axes(state, AxesOptions("eigen", dimensions=2, counts=(2, 3), reach=0.01))
    for axis, value in zip(axes, sharpness["largest"], strict=True):
        product = state.risk.hvp(axis.vector[None].float())[0].double()
        assert float(axis.vector.norm()) == pytest.approx(float(state.experiment.space.theta.detach().norm()))
        assert float((product - value * axis.vector).norm()) < 2e-3 * sharpness["largest"][0] * float(
            axis.vector.norm()
        )
    assert landscape["loss"] == [[surface_at(state, axes, a, b) for b in axes[1].points] for a in axes[0].points]


def surface_at(state, axes, *coordinates):
    return LossSurface(state.risk, torch.stack([axis.vector for axis in axes])).at(*coordinates).loss


def test_without_the_penalty_forwards_give_the_same_losses(run_copy):
    _, penalised = _ask(run_copy, run_copy.path, "--points", 4)
    _, plain = _ask(run_copy, run_copy.path, "--points", 4, "--no-penalised")
    assert plain["loss"] == penalised["loss"]
    assert plain["accuracy"] == penalised["accuracy"]
    assert (plain["penalised"], plain["penalty"]) == (None, None)
    assert plain["passes"] == pytest.approx(4 / 3)
    assert plain["step"] == 4  # the end of the run


def test_a_plane_has_its_rows_along_the_first_axis(run_copy):
    _, line = _ask(run_copy, run_copy.path, "--points", 3, "--no-penalised")
    _, plane = _ask(run_copy, run_copy.path, "--points", "3x5", "--no-penalised")
    assert [len(plane["loss"]), *map(len, plane["loss"])] == [3, 5, 5, 5]
    assert [row[2] for row in plane["loss"]] == line["loss"]  # 0 along the second
    assert plane["axes"][0] == line["axes"][0]
    assert plane["axes"][1]["number"] == 1


def test_between_two_states_both_ends_are_those_states(run_copy):
    _, landscape = _ask(run_copy, f"{run_copy.path}@1", f"{run_copy.path}@4", "--points", 5, "--no-penalised")
    (axis,) = landscape["axes"]
    assert axis["points"] == [-0.5, 0.0, 0.5, 1.0, 1.5]
    assert axis["label"] == "to run@4"
    start, end = (_experiment_at(run_copy, step, lambda theta: theta) for step in (1, 4))
    # the data of both are those that the state at 0 sees: here all images as they are
    assert landscape["loss"][1] == start.regime.risk_at(1).evaluate().loss
    assert landscape["loss"][3] == end.regime.risk_at(1).evaluate().loss


def test_three_states_span_a_plane(run_copy):
    _, landscape = _ask(
        run_copy, f"{run_copy.path}@0", f"{run_copy.path}@2", f"{run_copy.path}@4",
        "--points", 3, "--range", 1, "--no-penalised",
    )  # fmt: skip
    assert [axis["points"] for axis in landscape["axes"]] == [[-1.0, 0.5, 2.0]] * 2
    _, landscape = _ask(
        run_copy, f"{run_copy.path}@0", f"{run_copy.path}@2", f"{run_copy.path}@4", "--points", 5, "--no-penalised"
    )
    states = [
        _experiment_at(run_copy, step, lambda theta: theta).regime.risk_at(0).evaluate().loss for step in (0, 2, 4)
    ]
    assert [landscape["loss"][1][1], landscape["loss"][3][1], landscape["loss"][1][3]] == states


def test_an_initial_state_whose_checkpoint_is_removed_is_drawn_again(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb", augment="none"), keep=1)
    assert not (directory.checkpoints / "step-00000000.json").exists()
    threads = torch.get_num_threads()
    _, landscape = _ask(directory, directory.path, f"{directory.path}@0", "--points", 5)
    assert torch.get_num_threads() == threads
    assert landscape["loss"][3] == pytest.approx(directory.rows()[0]["train_loss"], rel=1e-12)


def test_principal_directions_hold_the_trajectory(run_copy):
    _, landscape = _ask(run_copy, run_copy.path, "--axes", "pca", "--dimensions", 2, "--points", 4, "--no-penalised")
    trajectory = landscape["trajectory"]
    assert trajectory["steps"] == [0, 1, 2, 3, 4]
    assert trajectory["at"][-1] == [0.0, 0.0]
    assert 0.5 < sum(trajectory["explained"]) <= 1
    for number, axis in enumerate(landscape["axes"]):
        across = [point[number] for point in trajectory["at"]]
        extent = max(across) - min(across)
        assert axis["points"][0] == pytest.approx(min(across) - extent / 4)
        assert axis["points"][-1] == pytest.approx(max(across) + extent / 4)
        assert axis["normalised"] is None
    # nearly all of the way is in the plane: the loss at a state's place in it is nearly the state's
    state = load_state(StateAddress(run_copy, 4))
    far = trajectory["at"][0]
    theta = _experiment_at(run_copy, 0, lambda theta: theta).space.theta.double()
    moved = (theta - state.experiment.space.theta.double()).norm().item()
    assert sum(a * a for a in far) <= moved**2 * (1 + 1e-9)


def test_points_in_the_file_are_not_computed_again_except_after_a_cut(run_copy, monkeypatch):
    arguments = ("landscape", run_copy.path, "--points", 6, "--no-penalised", "--name", "line")
    first = call(*arguments)
    assert "6 points; 2 passes (forwards) to go" in first.out
    complete = files(run_copy.path / "analysis")
    again = call(*arguments)
    assert again.code == 0
    assert "6 points, 6 of them computed before; 0 passes" in again.out
    assert files(run_copy.path / "analysis") == complete
    path = run_copy.path / "analysis" / "landscape-line.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for cut in (b"".join(lines[:4]) + lines[4][:9], b"".join(lines[:1]), lines[0][:30], b""):
        path.write_bytes(cut)
        assert call(*arguments).code == 0
        assert files(run_copy.path / "analysis") == complete


def test_a_stopped_landscape_keeps_its_points_and_prints_how_to_continue(run_copy, tmp_path):
    other = copy(run_copy, tmp_path / "other")
    arguments = ["landscape", str(run_copy.path), "--points", "7x7", "--name", "plane", "--no-penalised"]
    program = Copy(tmp_path, *arguments)
    path = run_copy.path / "analysis" / "landscape-plane.jsonl"
    jobs.wait_until(program, lambda: count_lines(path) >= 5, program.communicate)
    program.send_signal(signal.SIGINT)
    out, _ = program.communicate(timeout=60)
    assert program.returncode == 130
    assert f"continue with: noiseless {' '.join(arguments)}" in words(out)
    part = json.loads((run_copy.path / "analysis" / "landscape-plane.json").read_text())["found"]
    done = len(path.read_text().splitlines()) - 1
    assert part["done"] == done < part["total"] == 49
    assert sum(value is not None for row in part["loss"] for value in row) == done
    assert part["gaps"] == 0
    assert call(*arguments).code == 0
    arguments[1] = str(other.path)
    assert call(*arguments).code == 0
    assert files(run_copy.path / "analysis") == files(other.path / "analysis")


def test_a_killed_landscape_continues_to_the_same_bits(run_copy, tmp_path):
    other = copy(run_copy, tmp_path / "other")
    arguments = ["landscape", str(run_copy.path), "--points", "7x7", "--name", "plane", "--no-penalised"]
    path, known = run_copy.path / "analysis" / "landscape-plane.jsonl", 3
    for _ in range(2):
        program = Copy(tmp_path, *arguments)
        jobs.wait_until(program, lambda known=known: count_lines(path) >= known, program.communicate)
        program.kill()
        program.communicate()
        lines = count_lines(path)
        assert known <= lines < 49
        known = lines + 5
    assert call(*arguments).code == 0
    arguments[1] = str(other.path)
    assert call(*arguments).code == 0
    assert files(run_copy.path / "analysis") == files(other.path / "analysis")


def test_two_workers_one_of_them_killed_write_the_same_bits(run_copy, tmp_path):
    other = copy(run_copy, tmp_path / "other")
    arguments = ["landscape", str(run_copy.path), "--points", "24", "--name", "line"]
    path, killed = run_copy.path / "analysis" / "landscape-line.jsonl", []

    def kill():
        while count_lines(path) < 3:
            time.sleep(0.01)
        killed.append(jobs.copies()[-1])
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    code, out = printed.launch(2, tmp_path / "log", *arguments)
    assert code == 0, out
    assert killed
    arguments[1] = str(other.path)
    assert call(*arguments).code == 0
    assert files(run_copy.path / "analysis") == files(other.path / "analysis")
    assert out.count("saved: ") == 1  # one worker prints


def test_a_surface_that_is_not_finite_has_gaps(run_copy):
    answer = call("landscape", run_copy.path, "--points", 5, "--range", "1e30", "--batch-norm", "running")
    assert answer.code == 0
    assert "4 of 5 points are not finite, and are left blank" in answer.out
    (landscape,) = (saved.values for saved in answers.read(run_copy, "landscape"))
    for column in ("loss", "accuracy", "penalised"):
        assert [value is None for value in landscape[column]] == [True, True, False, True, True]
    assert (landscape["done"], landscape["gaps"]) == (5, 4)


def test_the_penalty_of_a_step_is_that_of_its_objective(data, tmp_path):
    for name, changes in (("sam", {"penalty": 0.5, "sam": 0.05}), ("full", {"penalty": 0.5, "full_penalty": 0.3})):
        state = load_state(StateAddress(run(tmp_path / name, small_recipe(data, "fb", **changes)), None))
        objective = state.objective
        inner = objective.objective if isinstance(objective, SharpnessAware) else objective
        assert state.penalised.measure().value == inner.evaluate().value
    # for stochastic updates, each with its own penalty: the mean
    recipe = small_recipe(data, "sgd", penalty=0.5, full_penalty=0.3)
    state = load_state(StateAddress(run(tmp_path / "sgd", recipe), None))
    objectives = list(replace(state.experiment.regime, shuffle=False).objectives(state.objective_step))
    values = [(update.evaluate().value, update.risk.blocks.count) for update in objectives]
    expected = sum(value * count for value, count in values) / sum(count for _, count in values)
    assert state.penalised.measure().value == pytest.approx(expected, rel=1e-6)  # float32 gradients
    plain = load_state(StateAddress(run(tmp_path / "plain", small_recipe(data, "fb")), None))
    assert plain.penalised is None
