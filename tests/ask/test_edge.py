"""The edge along a run: against dense Hessians at kept checkpoints; the same answer after a stop, from any step."""

from __future__ import annotations

import json

import pytest
import torch
from small_runs import call, copy, npz, refused, run, small_recipe, words

from noiseless.analysis import Hessian
from noiseless.ask.edge import prepare
from noiseless.ask.following import carry_out_steps
from noiseless.ask.options import EdgeOptions
from noiseless.ask.state import load_state
from noiseless.files.address import StateAddress
from noiseless.objective.workers import Alone, SweepStoppedError

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A linear model in float64 by heavy ball, without warm-up, each checkpoint kept."""
    recipe = small_recipe(
        data, "fb-clipped", model="linear", dtype="float64", steps=STEPS, warmup=0, horizon=20, lr=0.4,
        weight_decay=0.01, decay_biases=False, clip=0.3, momentum=0.9, nesterov=False, augment="none",
    )  # fmt: skip
    return run(tmp_path_factory.mktemp("run") / "a", recipe, keep_every=1)


def answer_of(directory, options=None, workers=None, step=None):
    options = options or EdgeOptions(tolerance=1e-9, most=60)
    return carry_out_steps(prepare(StateAddress(directory, step), options, workers))


def stopped(directory, options, after, measured):
    """Carries out a question until that many steps are measured."""
    job = prepare(StateAddress(directory, None), options, Alone(lambda: len(measured) >= after))
    with pytest.raises(SweepStoppedError):
        carry_out_steps(job, on_step=measured.append)


def begun(directory, options, measured):
    """Carries out a question to its end; returns the answer and how many steps had been measured."""
    seen = []
    answer = carry_out_steps(prepare(StateAddress(directory, None), options), seen.append, measured.append)
    return answer, seen[0]


def without_time(answer):
    return {name: value for name, value in answer.values.items() if name != "seconds"}


@pytest.fixture(scope="module")
def answer(finished, tmp_path_factory):
    return answer_of(copy(finished, tmp_path_factory.mktemp("answered") / "a"))


def test_each_step_has_the_eigenvalues_of_the_dense_matrix_of_its_steps(finished, answer):
    """A = S (H + W) S with S^2 the clip's factor and W the decay over it, on weights; the edge 2 (1 + m) / lr."""
    values = answer.values
    assert values["steps"] == list(range(STEPS))
    assert values["reproduced"] == {"equal": STEPS, "compared": STEPS}
    for step in range(STEPS):
        state = load_state(StateAddress(finished, step))
        space, risk = state.experiment.space, state.risk
        H = Hessian(risk).product(torch.eye(len(space), dtype=torch.float64))
        g = risk.evaluate().gradient
        factor = min(1.0, 0.3 / (float(g.norm()) + 1e-6))
        assert factor < 1
        W = torch.cat([torch.full_like(p, 0.01 if p.ndim > 1 else 0.0).reshape(-1) for p in space.parameters])
        expected = torch.linalg.eigvalsh(factor * H + torch.diag(W)).flip(0)[:2]
        assert values["eigenvalues"][step] == pytest.approx(expected.tolist(), rel=1e-7)
        assert values["edge"][step] == pytest.approx(2 * 1.9 / state.experiment.schedule(step))
        assert values["factor"][step] == pytest.approx(factor, rel=1e-9)
        assert values["losses"][step] == finished.rows()[step]["train_loss"]
    assert all(overlap > 0.5 for overlap in [row[0] for row in values["overlaps"][1:]])


def test_the_steps_own_ratio_is_that_of_the_kept_checkpoints(finished, answer):
    """Step 2 from the checkpoints around it: d . H d / (-2 g . d)."""
    before, after = (load_state(StateAddress(finished, step)) for step in (2, 3))
    d = after.experiment.space.theta.detach() - before.experiment.space.theta.detach()
    g, image = before.risk.evaluate().gradient, before.risk.hvp(d[None])[0]
    assert answer.values["step_ratio"][2] == pytest.approx(float(d @ image / (-2 * g @ d)), rel=1e-10)


def test_it_can_begin_at_any_step_without_a_checkpoint_of_it(finished, answer, tmp_path):
    sparse = copy(finished, tmp_path / "b")
    for step in (3, 4):
        for path in sparse.checkpoints.glob(f"step-{step:08d}.*"):
            path.unlink()
    late = answer_of(sparse, step=4)
    assert (late.values["step"], late.values["steps"], late.name) == (4, [4, 5], "step-4")
    assert late.values["losses"] == answer.values["losses"][4:]
    assert late.values["edge"] == answer.values["edge"][4:]
    for values, others in zip(late.values["eigenvalues"], answer.values["eigenvalues"][4:], strict=True):
        assert values == pytest.approx(others, rel=1e-7)  # another start of the search
    assert late.values["reproduced"] == {"equal": 4, "compared": 4}  # with 2 and 3, from the checkpoint before


def test_a_stopped_computation_goes_on_to_the_same_bits(finished, answer, tmp_path):
    other = copy(finished, tmp_path / "b")
    measured, options = [], EdgeOptions(tolerance=1e-9, most=60)
    stopped(other, options, 3, measured)
    folder = other.path / "analysis" / "edge-step-0.unfinished"
    assert len(measured) == 3
    assert folder.is_dir()
    again, earlier = begun(other, options, measured)
    assert (earlier, len(measured)) == (3, STEPS)
    assert without_time(again) == without_time(answer)
    assert not folder.exists()


def test_a_state_of_another_computation_or_a_damaged_one_is_not_used(finished, tmp_path):
    other, options = copy(finished, tmp_path / "b"), EdgeOptions(pairs=1, batch=0)
    stopped(other, options, 2, [])
    assert begun(other, EdgeOptions(pairs=1, batch=0, steps=1, every=2), [])[1] == 0
    stopped(other, options, 2, [])
    for path in (other.path / "analysis" / "edge-step-0.unfinished").glob("*.json"):
        path.write_text("{")
    assert begun(other, EdgeOptions(pairs=1, batch=0, steps=2), [])[1] == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"sam": 0.05}, "sharpness-aware"),
        ({"full_penalty": 0.5}, "with its penalty"),
        ({"block_clip": 0.1}, "clipped by itself"),
        ({"norm_bias": 0.1, "norm_target": 1.0}, "norm_bias"),
        ({"optimizer": "Adagrad"}, "Adagrad is not known"),
        ({"line_search": "armijo", "momentum": 0.0}, "line search"),
    ],
)
def test_where_there_is_no_edge_the_answer_says_why(data, tmp_path, flags, reason):
    recipe = small_recipe(data, "fb", **{"model": "linear", "steps": 1, "warmup": 0, "augment": "none"} | flags)
    values = answer_of(run(tmp_path / "a", recipe), EdgeOptions(pairs=1, batch=0)).values
    assert values["edge"] == [None]
    assert reason in values["reasons"][0]
    assert values["reproduced"] == {"equal": 1, "compared": 1}


def test_a_penalised_run_is_followed_by_its_objective(data, tmp_path):
    recipe = small_recipe(
        data, "fb", model="linear", dtype="float64", steps=1, warmup=0, augment="none", penalty=2.0, block=24,
        penalty_method="exact", weight_decay=0.0,
    )  # fmt: skip
    directory = run(tmp_path / "a", recipe)
    values = answer_of(directory, EdgeOptions(tolerance=1e-9)).values
    state = load_state(StateAddress(directory, 0))
    H = state.penalised.hvp(torch.eye(len(state.experiment.space), dtype=torch.float64))
    assert values["of"] == "objective"
    assert values["eigenvalues"][0] == pytest.approx(torch.linalg.eigvalsh(H).flip(0)[:2].tolist(), rel=1e-7)


def test_muon_has_its_sharpness_in_spectral_norms(data, tmp_path):
    recipe = small_recipe(data, "fb", model="linear", steps=2, warmup=0, augment="none", optimizer="Muon", lr=0.05)
    directory = run(tmp_path / "a", recipe)
    values = answer_of(directory, EdgeOptions(pairs=1, batch=0)).values
    state = load_state(StateAddress(directory, 0))
    G = state.risk.evaluate().gradient[: state.experiment.space.sizes[0]].reshape(state.experiment.space.shapes[0])
    ratio = max(1.0, len(G) / G.shape[1]) ** 0.5
    assert values["measure"] == "spectral"
    assert values["edge"][0] == pytest.approx(
        2 * ratio * float(torch.linalg.svdvals(G).sum()) / state.experiment.schedule(0), rel=1e-5
    )
    assert 0 < values["sharpness"][0] <= values["sharpness_bound"][0]


def test_stochastic_steps_are_followed_with_the_batch_sharpness_of_their_blocks(data, tmp_path):
    recipe = small_recipe(data, "sgd", model="linear", steps=2, augment="none")
    directory = run(tmp_path / "a", recipe)
    values = answer_of(directory, EdgeOptions(pairs=1)).values
    assert values["reproduced"] == {"equal": 2, "compared": 2}
    assert values["batch"] == 16
    assert all(value > 0 for value in values["batch_sharpness"])
    assert values["step_ratio"] == [None, None]


def test_the_command_prints_the_steps_and_saves_the_answer(finished, tmp_path):
    directory = copy(finished, tmp_path / "b")
    estimate = call("edge", directory.path, "--estimate")
    assert estimate.code == 0
    assert "6 are measured" in words(estimate.out)
    assert not list(directory.path.glob("analysis/edge-*"))
    done = call("edge", f"{directory.path}@2", "--steps", 3, "--every", 2, "--batch", 24)
    assert done.code == 0, done
    assert "3 of 3 recorded steps have the bits of the record" in words(done.out)
    (path,) = directory.path.glob("analysis/edge-*.json")
    found = json.loads(path.read_text())["found"]
    assert (found["steps"], found["every"], found["batch"]) == ([2, 4], 2, 24)
    assert path.name == "edge-step-2-batch-24.json"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--steps", 0), ("--steps", "0")),
        (("--every", 0), ("--every", "0")),
        (("--pairs", 5000, "--most", 6000), ("--pairs 5000", "parameters")),
        (("--tolerance", 2), ("--tolerance", "2")),
        (("--most", 1), ("--most 1",)),
        (("--batch", 49), ("--block", "49")),
    ],
)
def test_wrong_values_are_refused(finished, arguments, names):
    refused("edge", finished.path, *arguments, names=names)


def test_a_step_that_the_run_does_not_make_is_refused(finished):
    refused("edge", f"{finished.path}@{STEPS}", names=("0 to 5", "step 6"))
