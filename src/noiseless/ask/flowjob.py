"""Follows a run and its flows step by step: the run's steps are repeated, and flows start with them from a state."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from noiseless.analysis.centralflow import CentralFlow
from noiseless.analysis.flow import FlowState, FlowStoppedError, StableFlow
from noiseless.analysis.flowrule import FlowRule, flow_rule
from noiseless.ask import flowable
from noiseless.ask.options import FlowOptions
from noiseless.ask.state import RunState, load_optimizer
from noiseless.files import answers, checkpoint
from noiseless.files.state import restored_from
from noiseless.files.unfinished import Unfinished
from noiseless.objective import Objective
from noiseless.objective.workers import SweepStoppedError
from noiseless.optim import take_step
from noiseless.optim.groups import set_rate
from noiseless.run.session import in_first
from noiseless.screen import print_note

KIND = "flow"
SAVE_SECONDS = 30.0
"""seconds between saves of an unfinished answer"""
State = dict[str, Any]


@dataclass
class FlowJob:
    """Flows beside a run, up to the steps that are done."""

    state: RunState
    options: FlowOptions
    rule: FlowRule
    nu: Tensor
    """the optimizer's second moment before the first step, see `flow_rule`"""
    name: str
    """of the answer"""
    unfinished: Unfinished
    """where the steps that are done are kept"""
    flows: dict[str, StableFlow | CentralFlow]
    saved: State = field(default_factory=dict)
    """the state after the steps that are done, in plain values and tensors; empty before the first step"""
    largest: tuple[float, float] | None = None
    """largest eigenvalue at the end of the central flow by a new search, and its passes; None: there was no search"""

    @property
    def total(self) -> int:
        """Times at which the flows stand beside the run: 0, 1, ..., the number of steps."""
        return self.options.steps + 1


def prepare(state: RunState, options: FlowOptions) -> FlowJob:
    """Checks that the run has flows from this state, and builds them.

    Args:
        state: of the run, at the start; every worker must call this.
        options: which flows, and how many steps.

    Returns:
        The job.

    Raises:
        ValueError: for runs that a flow does not describe (see `flowable.refuse` and `flow_rule`).
    """
    experiment = state.experiment
    flowable.refuse(state, options)
    load_optimizer(state)
    set_rate(experiment.optimizer, experiment.schedule(state.step))
    with restored_from(state.address):
        rule, nu = flow_rule(experiment.optimizer, experiment.space)
    flowable.refuse_other_functions(state)
    objective: Objective = experiment.regime.risk_at(state.step)
    flows: dict[str, StableFlow | CentralFlow] = {}
    for name in options.flows:
        if name == "central":
            size = options.substeps, options.directions, options.eigen_tolerance
            flows[name] = CentralFlow(objective, rule, *size, seed=experiment.config.recipe.seed)
        elif not (name == "gradient" and rule.kind == "gradient descent" and "stable" in options.flows):
            flows[name] = StableFlow(objective, rule, name == "gradient", options.tolerance)
    digest = checkpoint.digest(experiment.model.state_dict())
    answer_name = _name(state.step, options)
    path = state.address.directory.path / answers.FOLDER / f"{KIND}-{answer_name}.unfinished"
    unfinished = Unfinished(path, {"step": state.step, "model": digest, **asdict(options)})
    return FlowJob(state, options, rule, nu, answer_name, unfinished, flows)


def follow(
    job: FlowJob,
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Follows the run and its flows to the end of the window. If it is stopped, the steps that are done are kept.

    Args:
        job: every worker must call this.
        on_start: called once, with the number of times done earlier and of all times.
        on_step: called with the seconds of each further one.

    Raises:
        ValueError: if another process computes the same answer, or the run's own steps diverge.
        SweepStoppedError: if a worker was told to stop; all workers raise it.
    """
    workers, directory = job.state.experiment.workers, job.state.address.directory
    if workers.rank == 0:
        answers.folder(directory)
    began, kept = time.perf_counter(), time.monotonic()
    with in_first(workers, job.unfinished.locked):
        _restore(job)
        earlier = float(job.saved.get("seconds", 0.0))
        on_start(job.saved.get("done", 0), job.total)
        try:
            while job.saved.get("done", 0) < job.total:
                start = time.perf_counter()
                job.saved = _stepped(job, job.saved)
                job.saved["seconds"] = earlier + time.perf_counter() - began
                on_step(time.perf_counter() - start)
                if time.monotonic() - kept >= SAVE_SECONDS:
                    _save(job)
                    kept = time.monotonic()
            job.largest = _searched(job)
        except SweepStoppedError:
            _save(job)
            raise
        if workers.rank == 0:
            job.unfinished.remove()


def _stepped(job: FlowJob, saved: State) -> State:
    """One more step of the run and of each flow; compares them at its start."""
    experiment, k = job.state.experiment, int(saved.get("done", 0))
    number, theta = job.state.step + k, experiment.space.theta
    lr, following = experiment.schedule(number), experiment.schedule(number + 1)
    here = theta.detach().clone()
    set_rate(experiment.optimizer, lr)
    experiment.workers.begin(number)
    objective = next(iter(experiment.regime.objectives(number)))
    update = take_step(experiment.optimizer, objective, number=number)
    ahead = theta.detach().clone()
    if not (update.finite and ahead.isfinite().all()):
        raise ValueError(f"the run's own step {number} is not finite: give --steps {max(1, k - 1)}")
    gradient = job.rule.decayed(update.evaluation.gradient, here.double())
    first = here.double() if k == 0 else saved["first"]
    mean = here.double() if k == 0 else (saved["before"].double() + 2 * here.double() + ahead.double()) / 4
    row: State = {
        "loss": update.evaluation.loss,
        "square": float(gradient.square().sum()),
        "moved": float((mean - first).norm()),
        "lr": lr,
        "flows": {},
    }
    states: State = {}
    reasons = dict(saved.get("stopped", {}))
    for name, flow in job.flows.items():
        if name in reasons:
            continue
        flow_state = saved["flows"][name] if k else FlowState(here.double(), job.rule.start(job.nu, gradient))
        try:
            rates = (lr, following) if isinstance(flow, CentralFlow) else ()
            point = flow.point(flow_state, *rates)
            row["flows"][name] = vars(point) | {"distance": float((flow_state.theta - mean).norm())}
            if k < job.options.steps:
                flow_state = flow.advance(flow_state, *(rates or (lr,)))
        except FlowStoppedError as stopped:
            reasons[name] = f"from step {number} on, {stopped}"
        states[name] = flow_state
    return {
        "done": k + 1,
        "first": first,
        "before": here,
        "ahead": ahead,
        "optimizer": copy.deepcopy(experiment.optimizer.state_dict()),
        "flows": states,
        "stopped": reasons,
        "rows": [*saved.get("rows", []), row],
        "passes": {name: flow.ledger.passes for name, flow in job.flows.items()},
        "replayed": saved.get("replayed", 0.0) + update.passes,
        "crowded": any(isinstance(flow, CentralFlow) and flow.crowded for flow in job.flows.values()),
    }


def _save(job: FlowJob) -> None:
    """Keeps the steps that are done, in the first worker."""
    if job.saved and job.state.experiment.workers.rank == 0:
        flows = {name: flow_state.tensors() for name, flow_state in job.saved["flows"].items()}
        job.unfinished.save(job.saved["done"], job.saved | {"flows": flows})


def _restore(job: FlowJob) -> None:
    """Goes on from the steps that were kept, if they are of this question."""
    experiment = job.state.experiment
    saved, problem = job.unfinished.read()
    if problem and experiment.workers.rank == 0:
        print_note(f"{problem}; the flows start anew")
    steps = experiment.workers.exchange(str(saved["done"] if saved else 0))
    if len(set(steps)) > 1:
        raise ValueError(f"the workers see unfinished answers of {', '.join(steps)} steps: give all the same files")
    if saved is None:
        return
    theta = experiment.space.theta
    placed = {name: _placed(values, theta.device) for name, values in saved["flows"].items()}
    saved |= {"flows": {name: FlowState(**values) for name, values in placed.items()}}
    job.saved = saved | _placed({name: saved[name] for name in ("first", "before", "ahead")}, theta.device)
    with torch.no_grad():
        theta.copy_(job.saved["ahead"])
    with restored_from(job.unfinished.path):
        experiment.optimizer.load_state_dict(saved["optimizer"])
    for name, flow in job.flows.items():
        flow.ledger.passes = saved["passes"][name]
        if isinstance(flow, CentralFlow):
            flow.crowded = saved["crowded"]


def _placed(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in values.items()}


def _searched(job: FlowJob) -> tuple[float, float] | None:
    """The largest eigenvalue at the end of the central flow by a new search, and its passes; None without that flow."""
    flow, rows = job.flows.get("central"), job.saved["rows"]
    if not isinstance(flow, CentralFlow) or "central" in job.saved["stopped"]:
        return None
    return flow.searched(job.saved["flows"]["central"], rows[-1]["lr"])


def _name(step: int, options: FlowOptions) -> str:
    """Name of an answer: the step, the number of steps, and each option that is not the default."""
    default, given = asdict(FlowOptions()), asdict(options)
    changed = {key: value for key, value in given.items() if value != default[key] and key not in ("steps", "share")}
    words = [
        f"{key.replace('_', '-')}-{'-'.join(value) if key == 'flows' else value}" for key, value in changed.items()
    ]
    return "-".join([f"step-{step}", f"{options.steps}", *words])
