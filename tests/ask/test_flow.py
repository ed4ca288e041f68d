"""Flows beside runs: what the answer holds, that an interruption changes no bit, and which runs are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_runs
import torch

from noiseless import keyed
from noiseless.ask.flow import averaged, carry_out, cost, parting
from noiseless.ask.flowjob import prepare
from noiseless.ask.options import FlowOptions
from noiseless.ask.state import load_state
from noiseless.files.address import StateAddress
from noiseless.objective.workers import Alone, SweepStoppedError

PLAIN = {
    "model": "linear", "augment": "none", "momentum": 0.0, "nesterov": False, "weight_decay": 0.01, "warmup": 0,
    "schedule": "constant", "lr": 0.02, "steps": 12, "horizon": 12, "shuffle": False, "penalty": 0.0, "clip": None,
    "dtype": "float64",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_runs.npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def make_run(path: Path, data: str, **changes):
    recipe = small_runs.small_recipe(data, "fb", **(PLAIN | changes))
    return small_runs.run(path, recipe, keep_every=4)


@pytest.fixture(scope="module")
def descent(data, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("descent") / "run", data)


@pytest.fixture(scope="module")
def adaptive(data, tmp_path_factory):
    options = {"optimizer": "RMSprop", "optimizer_options": "alpha=0.9", "lr": 0.005}
    return make_run(tmp_path_factory.mktemp("adaptive") / "run", data, **options)


def job_of(directory, step=4, workers=None, **options):
    return prepare(load_state(StateAddress(directory, step), workers), FlowOptions(**({"steps": 3} | options)))


def found(answer):
    """The values without costs: after an interruption, an evaluation of each flow is repeated."""
    flows = {name: flow | {"passes": None} for name, flow in answer.values["by_flow"].items()}
    return answer.values | {"by_flow": flows, "seconds": None, "passes": None}


def test_the_runs_own_steps_are_repeated(descent):
    answer = carry_out(job_of(descent))
    values, rows = answer.values, descent.rows()
    assert answer.name == "step-4-3"
    assert values["observed"]["loss"] == [row["train_loss"] for row in rows[4:8]]
    assert values["repeated"] == {"rows": 4, "equal": True}
    assert values["optimizer"] == "gradient descent"
    assert list(values["by_flow"]) == ["central", "stable"]  # gradient flow is the stable flow
    assert values["same_flow"]
    json.dumps(values, allow_nan=False)


def test_flows_of_a_smooth_run_stay_with_it(descent):
    """The rate is small: steps differ from their flow by `lr / 2` times H, and the two flows are the same."""
    values = carry_out(job_of(descent, steps=4)).values
    central, stable = (values["by_flow"][name] for name in ("central", "stable"))
    for flow in (central, stable):
        assert flow["distance"][0] == 0
        assert flow["share"][0] is None
        assert 0 < flow["share"][-1] < 0.05
        assert flow["parted"] is None
        assert flow["loss"][-1] == pytest.approx(values["observed"]["loss"][-1], rel=0.01)
    assert central["loss"] == pytest.approx(stable["loss"], rel=1e-3)
    assert central["mean_loss"] == central["loss"]
    assert max(central["eigenvalues"][-1]) == pytest.approx(values["search"], rel=1e-3)
    assert not values["crowded"]


def test_at_the_edge_the_central_flow_holds_the_curvature(data, tmp_path):
    # softmax regression, from 0: the curvature is 10 there, a little beyond the edge of this rate, and falls
    values = carry_out(job_of(make_run(tmp_path / "run", data, lr=0.204), step=0, steps=2)).values
    central = values["by_flow"]["central"]
    assert central["stopped"] is None
    assert central["eigenvalues"][0][0] > 2
    assert central["eigenvalues"][2][0] < 2.01
    assert central["mean_loss"][0] > central["loss"][0]
    assert central["variance"][0] > 0


def test_rmsprop_has_three_flows_and_starts_from_its_second_moment(adaptive):
    job = job_of(adaptive, steps=4)
    assert float(job.nu.max()) > 0
    values = carry_out(job).values
    assert list(values["by_flow"]) == ["central", "stable", "gradient"]
    assert values["optimizer"] == "RMSProp"
    assert values["repeated"] == {"rows": 5, "equal": True}
    share = {name: flow["share"][-1] for name, flow in values["by_flow"].items()}
    assert share["stable"] < 0.1
    assert share["gradient"] > share["stable"]  # the preconditioner of the start is not that of the steps


class Permuted(Alone):
    """Computes chunks in another order, as other numbers of workers do, and stops when told to."""

    def share(self, partial):
        numbers = list(super().share(partial))
        yield from (numbers[k] for k in keyed.permutation(0, "test", 0, len(numbers)).tolist())


@pytest.mark.parametrize("run", ["descent", "adaptive"])
def test_the_bits_depend_neither_on_the_order_of_blocks_nor_on_an_interruption(run, request):
    directory = request.getfixturevalue(run)
    expected = found(carry_out(job_of(directory)))
    assert found(carry_out(job_of(directory, workers=Permuted()))) == expected
    done = []
    stopped = job_of(directory, workers=Alone(lambda: len(done) >= 2))
    with pytest.raises(SweepStoppedError):
        carry_out(stopped, on_step=done.append)
    assert stopped.unfinished.path.is_dir()
    begun = []
    resumed = job_of(directory)
    assert found(carry_out(resumed, lambda done, total: begun.append((done, total)))) == expected
    assert begun == [(2, 4)]
    assert not resumed.unfinished.path.exists()


def test_a_kept_answer_of_another_question_is_not_gone_on_with(descent, capsys):
    done = []
    stopped = job_of(descent, workers=Alone(lambda: len(done) >= 1))
    with pytest.raises(SweepStoppedError):
        carry_out(stopped, on_step=done.append)
    begun = []
    carry_out(job_of(descent, share=0.2), lambda done, total: begun.append(done))
    assert begun == [0]
    assert "the flows start anew" in capsys.readouterr().err


REFUSED = [
    ({"momentum": 0.9}, "--momentum 0"),
    ({"optimizer": "Adam"}, "flows of Adam are not known"),
    ({"augment": "crop-flip", "padding": 1}, "--augment none"),
    ({"shuffle": True}, "--shuffle False"),
    ({"regime": "stochastic"}, "--regime full-batch"),
    ({"parts": 2}, "--parts 1"),
    ({"penalty": 0.5}, "--penalty 0"),
    ({"clip": 0.25}, "clip_norm"),
    ({"sam": 0.1}, "--sam 0"),
    ({"block_clip": 1.0}, "--block-clip None"),
    ({"line_search": "armijo"}, "--line-search none"),
    ({"lr_factors": "*=0.5"}, "no --lr-factors"),
    ({"schedule": "cosine", "warmup": 2}, "learning rate at step 0 is 0"),
    ({"steps": 2}, "give --steps 1 or fewer"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_runs_without_flows_are_refused_with_the_remedy(changes, message, data):
    recipe = small_runs.small_recipe(data, "fb", **(PLAIN | changes))
    experiment = small_runs.prepare(recipe)

    class Directory:
        path = Path("run")

        def began(self):
            return 0

    from noiseless.ask.state import RunState

    state = RunState(StateAddress(Directory(), 0), experiment, 0, None)
    with pytest.raises(ValueError, match=message):
        prepare(state, FlowOptions(steps=5))


def test_dropout_is_refused_by_its_losses(data):
    recipe = small_runs.small_recipe(data, "fb", **PLAIN)
    experiment = small_runs.prepare(recipe)

    class Directory:
        def began(self):
            return 0

    from noiseless.ask.flowable import refuse_other_functions
    from noiseless.ask.state import RunState

    experiment.model.register_forward_pre_hook(lambda m, x: (torch.nn.functional.dropout(x[0], 0.5),))
    with pytest.raises(ValueError, match="another function at each step, as with dropout"):
        refuse_other_functions(RunState(StateAddress(Directory(), 0), experiment, 0, None))


def test_an_estimate_counts_passes(descent):
    job = job_of(descent)
    estimate = cost(job)
    assert 0 < estimate.calm < estimate.edge < estimate.two
    spent = carry_out(job).values["passes"]
    assert 0.4 * estimate.calm < spent < 2 * estimate.calm


def test_means_over_three_steps_cancel_an_oscillation():
    assert averaged([1.0, -1.0, 1.0, -1.0, 1.0]) == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert averaged([0.0, 1.0, 2.0, 3.0]) == [0.0, 1.0, 2.0, 3.0]
    assert averaged([1.0, 2.0]) == [1.0, 2.0]


def test_the_time_of_parting_is_the_first_from_which_on_the_share_stays_above():
    assert parting([None, 0.3, 0.05, 0.2, 0.3], 0.1) == 3
    assert parting([None, 0.3, 0.2], 0.1) == 1
    assert parting([None, 0.05], 0.1) is None
    assert parting([None, 0.2, 0.05], 0.1) is None
