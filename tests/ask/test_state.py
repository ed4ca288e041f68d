"""States of runs: they have the right parameters and the right data, and loading them writes nothing."""

import pytest
import torch
from small_runs import IMAGES, call, copy, files, refused, run, small_recipe, words

from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers, checkpoint
from noiseless.files.answers import Answer
from noiseless.files.stored import checkpoint_steps
from noiseless.objective.workers import Alone
from noiseless.run import team
from noiseless.run.regimes import FullBatch


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of 5 steps with a checkpoint each second step."""
    recipe = small_recipe(data, "fb-regularized", steps=5)
    return run(tmp_path_factory.mktemp("runs") / "kept", recipe, keep_every=2, keep=1)


def test_checkpoints_of_keep_every_are_never_removed(finished):
    assert checkpoint_steps(finished) == [0, 2, 4, 5]


@pytest.mark.parametrize("step", [0, 2, 4, 5])
def test_a_state_has_the_tensors_of_its_checkpoint(finished, step):
    state = load_state(StateAddress.read(f"{finished.path}@{step}"))
    assert state.step == step
    saved = checkpoint.at(finished.checkpoints, step)
    for name, tensor in state.experiment.model.state_dict().items():
        assert torch.equal(tensor, saved["model"][name]), name
    assert state.objective_step == min(step, 4)


def test_the_objective_is_that_of_the_next_step(finished):
    """The loss at a state is the one that the run recorded when it took the next step."""
    state = load_state(StateAddress.read(f"{finished.path}@2"))
    row = finished.rows()[2]
    evaluation = state.objective.evaluate()
    assert evaluation.loss == row["train_loss"]
    assert evaluation.penalty == row["penalty"]
    assert state.risk.evaluate().loss == row["train_loss"]


def test_the_objective_of_a_step_with_parts_has_all_of_them(data, tmp_path):
    recipe = small_recipe(data, "fb", parts=3, block=8, penalty=0.25, full_penalty=0.5, steps=2, warmup=0)
    state = load_state(StateAddress.read(str(run(tmp_path / "run", recipe).path)))
    assert state.objective.risk.blocks.count == IMAGES
    # the full gradient's penalty is not the blocks'
    assert (state.penalised.strength, state.penalised.full_strength) == (0.25, 0.5)
    first = next(iter(state.experiment.regime.objectives(state.objective_step)))
    assert first.risk.blocks.count == IMAGES // 3


def test_loading_a_state_writes_nothing(finished):
    before = files(finished.path)
    state = load_state(StateAddress.read(str(finished.path)))
    assert state.step == 5
    state.risk.evaluate()
    assert files(finished.path) == before


def test_the_end_needs_no_checkpoint(finished, tmp_path):
    other = copy(finished, tmp_path / "bare")
    for path in other.checkpoints.glob("step-*"):
        path.unlink()
    state = load_state(StateAddress.read(str(other.path)))
    assert state.step == 5
    assert state.optimizer_state is None
    assert load_state(StateAddress.read(f"{other.path}@0")).step == 0  # drawn from the seed
    with pytest.raises(ValueError, match=r"no state of step 3: it has those of 5; .*--keep-every"):
        load_state(StateAddress.read(f"{other.path}@3"))


def test_the_state_of_a_run_that_has_not_ended_is_its_newest_checkpoint(data, tmp_path):
    directory = run(tmp_path / "stopped", small_recipe(data, steps=4), stop_after=1)
    assert load_state(StateAddress.read(str(directory.path))).step == 2


def test_addresses_are_read_and_printed(finished):
    path = finished.checkpoints / "step-00000002.safetensors"
    assert StateAddress.read(str(path)).step == 2
    assert StateAddress.read(str(path)).directory.path == finished.path
    assert str(StateAddress.read(f"{finished.path}@4")) == f"{finished.path}@4"
    with pytest.raises(ValueError, match="whole number of steps"):
        StateAddress.read(f"{finished.path}@last")
    with pytest.raises(ValueError, match="does not exist"):
        StateAddress.read(f"{finished.path}-not")


def test_a_checkpoint_of_another_model_is_refused(finished, data, tmp_path):
    other = run(tmp_path / "other", small_recipe(data, "fb", model="linear", steps=1))
    spoilt = copy(finished, tmp_path / "spoilt")
    spoilt.model.unlink()
    checkpoint.save(spoilt.checkpoints, 5, checkpoint.at(other.checkpoints, 1), keep=9)
    with pytest.raises(ValueError, match="not of this model"):
        load_state(StateAddress.read(str(spoilt.path)))
    refused("sharpness", spoilt.path, names=("not of this model", "step-00000005"))


def test_the_risk_of_a_stochastic_step_is_over_all_examples(data, tmp_path):
    directory = run(tmp_path / "sgd", small_recipe(data, "sgd", steps=2))
    state = load_state(StateAddress.read(str(directory.path)))
    assert not isinstance(state.experiment.regime, FullBatch)
    evaluation = state.risk.evaluate()
    assert evaluation.count == len(state.experiment.train) == 48
    assert evaluation.passes == 1


class _Two(Alone):
    """The first worker of two; the other sends the same texts, except in exchange number `differing`."""

    count = 2

    def __init__(self, differing):
        super().__init__()
        self._differing = differing
        self._exchanges = 0

    def exchange(self, text):
        self._exchanges += 1
        other = text.replace('"python": "', '"python": "9').replace("step 2,", "step 3,")
        return [text, other if self._exchanges == self._differing else text]


@pytest.mark.parametrize("command", ["noise", "weights", "sharpness", "landscape", "flatness"])
def test_every_analysis_refuses_workers_that_disagree(finished, command, monkeypatch):
    before = files(finished.path)
    for differing, names in ((1, ("workers disagree",)), (2, ("different states", f"{finished.path}@2", "worker 1"))):
        monkeypatch.setattr(team, "join", lambda stop, number=differing: _Two(number))
        refused(command, f"{finished.path}@2", names=names)
    assert files(finished.path) == before


def test_workers_compare_the_optimizers_state_too(finished, tmp_path):
    other = copy(finished, tmp_path / "other")
    saved = checkpoint.at(finished.checkpoints, 2)
    saved["optimizer"]["param_groups"][0]["momentum"] = 0.5
    for path in other.checkpoints.iterdir():
        path.unlink()
    checkpoint.save(other.checkpoints, 2, saved, keep=1)
    sent = []
    for directory in (finished, other):
        workers = _Two(None)
        workers.exchange = lambda text: sent.append(text) or [text, text]
        load_state(StateAddress(directory, 2), workers)
    assert sent[0].replace(str(finished.path), str(other.path)) == sent[2]
    assert sent[1] != sent[3]


def test_answers_are_written_and_read(finished, tmp_path, capsys):
    other = copy(finished, tmp_path / "answers")
    assert answers.read(other) == []
    answers.write(other, Answer("noise", "00000005", {"step": 5, "list": [1.0, float("nan")]}))
    path = answers.write(other, Answer("noise", "00000002", {"step": 2, "deep": {"x": float("inf")}}))
    answers.write(other, Answer("sharpness", "00000002", {"step": 2}))
    saved = answers.read(other, "noise")
    assert [a.values for a in saved] == [{"step": 2, "deep": {"x": None}}, {"step": 5, "list": [1.0, None]}]
    assert len(answers.read(other)) == 3
    path.write_text("{")
    assert len(answers.read(other)) == 2
    assert f"{path} is left out, as it is not the result of an analysis" in words(capsys.readouterr().err)


def test_the_sharpness_command_saves_an_answer_for_each_state(finished, tmp_path):
    other = copy(finished, tmp_path / "asked")
    command = call(
        "sharpness", f"{other.path}@2", "--largest", 2, "--smallest", 1, "--density", "--probes", 1, "--trace", 9
    )
    assert command.code == 0, command.err
    (answer,) = answers.read(other, "sharpness")
    assert answer.values["step"] == 2
    assert len(answer.values["largest"]) == 2
    assert f"{answer.values['largest'][0]:.6g}" in command.out
    assert answer.values["converged"]
    assert answer.values["density"]["grid"]
    assert answer.values["trace"]["error"] > 0
    assert "edge of stability" in command.out
    call("sharpness", other.path, "--every-checkpoint", "--tolerance", 0.01)
    saved = answers.read(other, "sharpness")
    assert [a.values["step"] for a in saved] == [0, 2, 4, 5]
    assert saved[1].values["density"] == answer.values["density"]  # earlier results are not lost
    assert saved[0].values["density"] is None


def test_an_estimate_computes_nothing(finished, tmp_path):
    other = copy(finished, tmp_path / "estimate")
    command = call("sharpness", other.path, "--estimate")
    assert command.code == 0
    assert "passes" in command.out
    assert "MiB" in command.out
    assert answers.read(other) == []


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--largest", 0), ("nothing to compute",)),
        (("--largest", -1), ("--largest", "-1")),
        (("--trace", 3), ("--trace", "at least 6")),
        (("--tolerance", 0), ("--tolerance", "0")),
        (("--most", 1, "--largest", 2), ("--most 1",)),
        (("--preconditioned",), ("SGD has no diagonal",)),
        (("--every-checkpoint",), ("give only one of them",)),
    ],
)
def test_flags_that_do_not_fit_are_refused(finished, flags, names):
    refused("sharpness", f"{finished.path}@2", *flags, names=names)
