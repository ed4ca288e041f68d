"""An optimizer's direction times a line search's size. Step 7 of a training step, if the recipe has a line search.

The direction is the displacement that the optimizer would make at the schedule's learning rate, so size 1 is the
optimizer's step; a search tries it first, unless it remembers sizes. The optimizer updates its memory as if it had made
that step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.objective.bins import largest_of
from noiseless.optim.linesearch import Line, LinePoint, LineSearch, SearchStep
from noiseless.optim.registry import entry_of
from noiseless.optim.searches import line_search_name


@dataclass(frozen=True)
class Outcome:
    """The result of the line search of one step."""

    size: float
    """accepted size, in units of the direction; 0: the parameters stayed where they were"""
    trials: int
    """number of evaluations besides the one at the start"""
    fallback: bool = False
    """whether the optimizer's direction was no descent direction, so that the negative gradient was used"""
    restarted: bool = False
    """whether the optimizer's step was rejected and the negative gradient used"""
    failed: bool = False
    """whether no trial was low enough, so that the parameters stayed where they were"""


class Searched(torch.optim.Optimizer):
    """An optimizer whose steps are scaled by a line search.

    With f the closure's value and wd the optimizer's coupled weight decay, the search compares values of the function
    that the optimizer's steps minimise, `F = f + (wd / 2) ||theta||**2`, with the decay term summed over its groups.
    The gradient of F is `grad f + wd theta`.

    A direction d with `grad F . d >= 0` is replaced by `-lr grad F`, and the optimizer's memory is cleared. The memory
    is also cleared after a search in which no trial was low enough; then the parameters stay where they were.

    Args:
        base: optimizer that gives the direction; it must not have made a step.
        search: how far to go, such as `StrongWolfeSearch(c2=0.5)`; any object with the two methods of `LineSearch`.

    Raises:
        ValueError: for an optimizer that evaluates by itself, or whose weight decay is decoupled, so that it is not
            part of the value.
    """

    def __init__(self, base: torch.optim.Optimizer, search: LineSearch):
        if entry_of(base).evaluates_itself:
            raise ValueError(
                f"{type(base).__name__} evaluates by itself, so {line_search_name(search)} cannot search along its"
                " steps: use DampedLBFGS, or LBFGS with its own line_search_fn=strong_wolfe"
            )
        self.base, self.search = base, search
        super().__init__(base.param_groups, {})
        self._link()
        _refuse_decoupled(base)
        self._fresh = copy.deepcopy(base.state_dict()["state"])
        self._search_state = search.init()
        self._counts = {"fallbacks": 0, "restarts": 0, "failures": 0}
        self.last: Outcome | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Fallbacks to the negative gradient, restarts and failed searches since the first step."""
        return dict(self._counts)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step.

        Args:
            closure: sets the gradients and returns the value; called at the start and for each trial.

        Returns:
            The value at the start.
        """
        loss = torch.enable_grad()(closure)()
        theta, gradient = self._theta(), self._gradient()
        value = self._value(loss)
        self.last = Outcome(0.0, 0)
        if not (math.isfinite(value) and math.isfinite(largest_of(gradient))):
            return loss  # there is no value to compare with
        self.base.step()
        direction = self._theta() - theta
        self._place(theta)
        if direction.any():
            self._search(closure, theta, gradient, direction, value)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of the optimizer and of the search, and the counts."""
        return {"base": self.base.state_dict(), "search": dict(self._search_state), "counts": self.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.base.load_state_dict(state_dict["base"])
        self._link()
        self._search_state, self._counts = dict(state_dict["search"]), dict(state_dict["counts"])

    def _search(
        self, closure: Callable[[], Tensor], theta: Tensor, gradient: Tensor, direction: Tensor, value: float
    ) -> None:
        """Moves the parameters from theta along the direction, or the negative gradient; sets `last` and counts."""
        trials = 0

        def searched(direction: Tensor, steepest: bool) -> SearchStep | None:
            """The search along a direction; None if it is not a descent direction."""

            def evaluate(size: float) -> LinePoint:
                nonlocal trials
                trials += 1
                self._place(theta + size * direction)
                trial_value = self._value(torch.enable_grad()(closure)())
                return LinePoint(size, trial_value, float(self._gradient() @ direction))

            start = LinePoint(0.0, value, float(gradient @ direction))
            return self.search.step(Line(evaluate, start, steepest), self._search_state) if start.slope < 0 else None

        step = searched(direction, False)
        fallback, restarted = step is None, step is not None and step.restart
        if fallback or restarted:
            self._forget()
            direction = -self._rates() * gradient
            step = searched(direction, True)
        size = 0.0
        if step is not None:
            size, self._search_state = step.point.size, step.state
        self._place(theta + size * direction if size else theta)
        failed = size == 0 and trials > 0
        if failed:
            self._forget()
        self.last = Outcome(size, trials, fallback, restarted, failed)
        for name, happened in (("fallbacks", fallback), ("restarts", restarted), ("failures", failed)):
            self._counts[name] += happened

    def _forget(self) -> None:
        """Resets the optimizer's memory to that of its start; keeps its settings."""
        groups = self.base.state_dict()["param_groups"]
        self.base.load_state_dict({"state": copy.deepcopy(self._fresh), "param_groups": groups})
        self._link()

    def _link(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def _members(self) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
        for group in self.param_groups:
            for p in group["params"]:
                yield p, group

    def _theta(self) -> Tensor:
        return torch.cat([p.detach().double().flatten() for p, _ in self._members()])

    def _gradient(self) -> Tensor:
        """The gradient of F, float64 `[P]`."""
        parts = []
        for p, group in self._members():
            if p.grad is None:  # the value does not depend on it, and the optimizer does not move it
                parts.append(torch.zeros_like(p, dtype=torch.float64).flatten())
            else:
                parts.append((p.grad.double() + _decay(group) * p.double()).flatten())
        return torch.cat(parts)

    def _value(self, loss: Tensor) -> float:
        """The value of F."""
        return float(loss) + sum(
            _decay(group) / 2 * float(p.double().square().sum()) for p, group in self._members() if _decay(group)
        )

    def _rates(self) -> Tensor:
        """The learning rate of each element, float64 `[P]`."""
        return torch.cat(
            [torch.full_like(p, group["lr"], dtype=torch.float64).flatten() for p, group in self._members()]
        )

    def _place(self, theta: Tensor) -> None:
        offset = 0
        for p, _ in self._members():
            p.copy_(theta[offset : offset + p.numel()].view_as(p))
            offset += p.numel()


def _decay(group: dict[str, Any]) -> float:
    return float(group.get("weight_decay", 0.0))


def _refuse_decoupled(base: torch.optim.Optimizer) -> None:
    name = type(base).__name__
    for group in base.param_groups:
        if _decay(group) and not entry_of(base).couples_decay(group):
            raise ValueError(
                f"a line search compares values, but {name}'s weight decay ({_decay(group):g}) is not part of them: set"
                " its weight decay to 0, or use an optimizer that adds the decay to the gradient, as SGD and Adam do"
            )
