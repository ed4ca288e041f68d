"""Each of the five extensions in docs/extending.md is added here, from outside the source."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from small_runs import arrays, call
from torch import Tensor

from noiseless import cli
from noiseless.ask.state import StateAddress, load_state
from noiseless.data import catalogue
from noiseless.data.images import ImageSet
from noiseless.examples.blocks import Batch
from noiseless.files import answers, columns
from noiseless.files.answers import Answer
from noiseless.objective import Execution, Objective
from noiseless.objective.contribution import ByBlock, Contribution
from noiseless.objective.risk import Blockwise, EmpiricalRisk, risk_of
from noiseless.optim.registry import OPTIMIZERS, OptimizerEntry
from noiseless.report import contents
from noiseless.report.figures import Section, Table
from noiseless.run import record, sequence

TRAIN = ("train", "fb", "--model", "linear", "--steps", "3", "--block", "16", "--augment", "none", "--threads", "1")


class SignDescent(torch.optim.Optimizer):
    """`x <- x - lr sign(g)`."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad.sign()
        return loss


def opened(directory, pixels):
    """The tiny arrays as a data set with a name."""
    tiny = arrays()
    x_train, x_test = (torch.from_numpy(tiny[name])[:, None] for name in ("x_train", "x_test"))
    y_train, y_test = (torch.from_numpy(tiny[name]).long() for name in ("y_train", "y_test"))
    return ImageSet("stripes", x_train, y_train, x_test, y_test)


class Ridge(Blockwise):
    """`L + (s / 2) ||theta||**2`."""

    def __init__(self, objective: Objective, strength: float):
        self.objective, self.strength, self.space = objective, strength, objective.space

    @property
    def wrapped(self) -> Objective:
        return self.objective

    def over(self, risk: Objective) -> Objective:
        return Ridge(self.objective.over(risk), self.strength)

    @property
    def exact(self) -> bool:
        return self.objective.exact

    @property
    def passes(self) -> float:
        return self.objective.passes

    @property
    def sweeps(self) -> int:
        return self.objective.sweeps

    def by_block(self) -> ByBlock:
        inner = self.objective.by_block()

        def contribution(theta: Tensor, batch: Batch) -> Contribution:
            part = inner(theta, batch)
            penalty = part.penalty + self.strength / 2 * theta.double().square().sum()
            return Contribution(part.direction + self.strength * theta, penalty, part.statistics, part.block)

        return contribution

    def hvp(self, V: Tensor) -> Tensor:
        return self.objective.hvp(V) + self.strength * V

    def hvp_passes(self, vectors: int) -> float:
        return self.objective.hvp_passes(vectors)

    def accept(self, evaluation) -> None:
        self.objective.accept(evaluation)


def angle(arguments: list[str]) -> int:
    """A command: the cosine of gradient and parameters, printed and saved."""
    address = StateAddress.read(arguments[0])
    state = load_state(address)
    gradient, theta = state.risk.evaluate().gradient, state.risk.space.theta
    value = torch.nn.functional.cosine_similarity(gradient, theta, dim=0).item()
    answers.write(address.directory, Answer("angle", f"step-{state.step}", {"step": state.step, "cosine": value}))
    print(f"cosine {value:.6f}")
    return 0


def angles(summaries) -> Section:
    """The page's section with the answers of `angle`."""
    of_runs = [answer.values for s in summaries for run in s.runs for answer in answers.read(run.directory, "angle")]
    rows = [(str(values["step"]), f"{values['cosine']:.6f}") for values in of_runs]
    return Section("angles", "Angles", "Of gradient and parameters.", table=Table(("step", "cosine"), rows))


@pytest.fixture
def extended(monkeypatch):
    """All five extensions, in their registries."""
    monkeypatch.setitem(OPTIMIZERS, "SignDescent", OptimizerEntry(SignDescent))
    entry = catalogue.Entry(48, 20, "1x8x8", 4, "made here", lambda directory: "here", lambda directory: None, opened)
    monkeypatch.setitem(catalogue.ENTRIES, "stripes", entry)
    monkeypatch.setitem(record.COMPUTED, "largest", lambda done: done.experiment.space.theta.abs().max().item())
    column = columns.Column("largest", title="Largest parameter", axis="largest parameter", log=True)
    monkeypatch.setitem(columns.COLUMNS, "largest", column)
    monkeypatch.setitem(cli.COMMANDS, "angle", cli.Command(angle, "angle RUN[@STEP]", "of gradient and parameters"))
    monkeypatch.setattr(contents, "SECTIONS", [*contents.SECTIONS, angles])
    ridge = lambda recipe, objective, lr: Ridge(objective, 0.25)  # noqa: E731
    monkeypatch.setattr(sequence, "WRAPPERS", [*sequence.WRAPPERS, ridge])


@pytest.mark.usefixtures("extended")
def test_each_extension_is_added_from_outside(tmp_path):
    run = tmp_path / "run"
    lr = ("--lr", "0.001", "--warmup", "0", "--schedule", "constant", "--weight-decay", "None")
    answer = call(*TRAIN, *lr, "--data", "stripes", "--optimizer", "SignDescent", "--run-dir", run)
    assert answer.code == 0, answer.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # the optimizer: each element moves by lr
    start, end = (
        load_state(StateAddress.read(f"{run}@{step}")).experiment.space.theta.detach().clone() for step in (0, 3)
    )
    moved = (end - start).abs()
    assert moved.max().item() == pytest.approx(0.003, rel=1e-3)
    # the penalty: its value is in the record, as (s / 2) ||theta||**2 before the step
    assert rows[0]["penalty"] == pytest.approx(0.25 / 2 * start.double().square().sum().item(), rel=1e-6)
    # the column: in the rows and on the page
    assert rows[-1]["largest"] == end.abs().max().item()
    # the question: with its command and its section
    assert "angle" in call("--help").out
    printed = call("angle", run)
    assert printed.code == 0, printed.err
    page = tmp_path / "page.html"
    assert call("report", run, "--output", page).code == 0
    text = page.read_text()
    assert "Largest parameter" in text
    assert printed.out.split()[1] in text


@pytest.mark.usefixtures("extended")
def test_an_objective_that_wraps_a_risk_has_its_cost_and_its_hessian(tmp_path):
    run = tmp_path / "run"
    assert call(*TRAIN, "--data", "stripes", "--run-dir", run).code == 0
    objective = load_state(StateAddress.read(str(run))).objective
    assert isinstance(objective, Ridge)
    risk = risk_of(objective)
    assert isinstance(risk, EmpiricalRisk)
    v = torch.ones(1, len(risk.space))
    torch.testing.assert_close(objective.hvp(v), risk.hvp(v) + 0.25 * v)
    assert (objective.passes, objective.sweeps) == (1.0, 1)
    full = objective.evaluate()
    chunked = objective.over(dataclasses.replace(risk, execution=Execution(chunk=2))).evaluate()  # as in verify
    torch.testing.assert_close(chunked.gradient, full.gradient)
    assert chunked.penalty == full.penalty > 0
