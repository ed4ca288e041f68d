"""An optimizer's direction times a line search's size. Step 7 of a training step, where a recipe asks for a search.

The direction is the displacement that the optimizer would make at the schedule's learning rate, so lr is the first
trial: size 1. The optimizer keeps its memory as if it had made its own step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.optim.linesearch import Trial, backtrack, make_options, wolfe

COUPLED = (
    *("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "DampedLBFGS", "FISTA", "NAdam", "RAdam", "RMSprop"),
    "SGD",
)
"""optimizers that add the decay to the gradient, unless their groups say `decoupled_weight_decay`, as AdamW's do"""


@dataclass(frozen=True)
class Outcome:
    """What the search of one step came to."""

    size: float
    """how far it went, in units of the direction; 0: it stayed"""
    trials: int
    """evaluations beside the one at the start"""
    fallback: bool = False
    """whether the optimizer's direction was none of descent, and the negative gradient was taken"""
    restarted: bool = False
    """whether the step was taken back, and the negative gradient taken"""
    failed: bool = False
    """whether no trial was low enough, so that the parameters stayed where they were"""


class Searched(torch.optim.Optimizer):
    """An optimizer whose steps are scaled by a line search.

    With f the closure's value and wd the optimizer's coupled decay, what is compared is `F = f + (wd / 2)
    ||theta||**2`, summed over its groups, with the gradient `grad f + wd theta`: the function that its steps minimise.

    A direction d with `grad F . d >= 0` is replaced by the negative gradient times lr; the optimizer's memory is then
    cleared, as after a search in which no trial was low enough, which leaves the parameters where they were.

    Args:
        base: gives the direction; newly made.
        kind: "armijo", "wolfe", "non-monotone" or "restarting". The last accepts the optimizer's own step while its
            value is at most the largest of the last M; else it takes the step back, clears the optimizer's memory and
            steps along the negative gradient, from lr on as short as Armijo asks.
        options: numbers of the search, see `Options`.

    Raises:
        ValueError: for options that the search does not take, an optimizer that evaluates by itself, or one whose decay
            is no part of a value.
    """

    def __init__(self, base: torch.optim.Optimizer, kind: str, **options: Any):
        self.options = make_options(kind, options)
        if isinstance(base, torch.optim.LBFGS):
            raise ValueError(
                f"LBFGS evaluates by itself, so {kind} cannot search along its steps: use DampedLBFGS, or LBFGS with"
                " its own line_search_fn=strong_wolfe"
            )
        self.base, self.kind = base, kind
        super().__init__(base.param_groups, {})
        self._link()
        _refuse_decoupled(base)
        self._fresh = copy.deepcopy(base.state_dict()["state"])
        self._history: list[float] = []
        self._size = 1.0
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
            closure: sets the gradients and returns the value, as often as it is asked.

        Returns:
            The value at the start.
        """
        loss = torch.enable_grad()(closure)()
        theta, gradient = self._theta(), self._gradient()
        start = Trial(0.0, self._value(loss), 0.0)
        self.last = Outcome(0.0, 0)
        if not (math.isfinite(start.value) and gradient.isfinite().all()):
            return loss  # there is nothing to compare with
        self.base.step()
        direction = self._theta() - theta
        self._place(theta)
        if direction.any():
            self._search(closure, theta, gradient, direction, start.value)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and the search's: past values, last size, counts."""
        search = {"history": list(self._history), "size": self._size, "counts": dict(self._counts)}
        return {"base": self.base.state_dict(), "search": search}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.base.load_state_dict(state_dict["base"])
        self._link()
        search = state_dict["search"]
        self._history, self._size, self._counts = list(search["history"]), search["size"], dict(search["counts"])

    def _search(
        self, closure: Callable[[], Tensor], theta: Tensor, gradient: Tensor, direction: Tensor, value: float
    ) -> None:
        """Moves the parameters from theta along the direction, or another one, and records it."""
        asked = 0

        def along(direction: Tensor) -> tuple[Trial, Callable[[float], Trial]]:
            def ask(size: float) -> Trial:
                nonlocal asked
                asked += 1
                self._place(theta + size * direction)
                found = self._value(torch.enable_grad()(closure)())
                return Trial(size, found, float(self._gradient() @ direction))

            return Trial(0.0, value, float(gradient @ direction)), ask

        self._history = [*self._history, value][-self.options.memory :]
        start, ask = along(direction)
        fallback = not start.slope < 0
        restarted = False
        if self.kind == "restarting" and not fallback:
            found = ask(1.0)
            restarted = not (found.finite and found.value <= max(self._history))
        if fallback or restarted:
            self._forget()
            direction = -self._rates() * gradient
            start, ask = along(direction)
        if self.kind != "restarting" or fallback or restarted:
            found = self._accepted(ask, start) if start.slope < 0 else start
        self._place(theta + found.size * direction if found.size else theta)
        failed = found.size == 0 and asked > 0
        if failed:
            self._forget()
        elif found.size:
            self._size = found.size
        self.last = Outcome(found.size, asked, fallback, restarted, failed)
        for name, happened in (("fallbacks", fallback), ("restarts", restarted), ("failures", failed)):
            self._counts[name] += happened

    def _accepted(self, ask: Callable[[float], Trial], start: Trial) -> Trial:
        first = min(1.0, 2 * self._size) if self.options.remember else 1.0
        if self.kind == "wolfe":
            return wolfe(ask, start, first, self.options)
        reference = max(self._history) if self.kind == "non-monotone" else start.value
        return backtrack(ask, start, reference, first, self.options)

    def _forget(self) -> None:
        """The optimizer's memory as at its start; its settings as they are."""
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
        """Of F."""
        parts = []
        for p, group in self._members():
            slope = torch.zeros_like(p, dtype=torch.float64) if p.grad is None else p.grad.double()
            parts.append((slope + _decay(group) * p.double()).flatten())
        return torch.cat(parts)

    def _value(self, loss: Tensor) -> float:
        """F."""
        return float(loss) + sum(
            _decay(group) / 2 * float(p.double().square().sum()) for p, group in self._members() if _decay(group)
        )

    def _rates(self) -> Tensor:
        """The learning rate of each element."""
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
        coupled = name in COUPLED and not group.get("decoupled_weight_decay", False)
        if _decay(group) and not coupled:
            raise ValueError(
                f"a line search compares values, and {name}'s weight decay ({_decay(group):g}) is no part of one: set"
                " its weight decay to 0, or use an optimizer that adds the decay to the gradient, as SGD and Adam do"
            )
