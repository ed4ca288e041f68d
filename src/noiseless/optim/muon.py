"""Muon for all parameters: orthogonalised momentum for matrices and convolutions, AdamW for the others. Step 7."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.errors import UnknownNameError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Muon's Newton-Schulz iteration (kellerjordan.github.io/posts/muon)"""
ADJUST = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
}
"""factors of lr for a matrix, named as in `torch.optim.Muon`"""


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float] = COEFFICIENTS, steps: int = 5, eps: float = 1e-7
) -> Tensor:
    """Newton-Schulz: each singular value s of `matrix / ||matrix||` becomes p(p(...p(s))), p(s) = a s + b s^3 + c s^5.

    Args:
        matrix: `[m, n]`.
        coefficients: a, b, c.
        steps: how often p is applied.
        eps: smallest norm by which the matrix is divided.

    Returns:
        `[m, n]`, with the singular vectors of the matrix.
    """
    a, b, c = coefficients
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, kellerjordan.github.io/posts/muon; arXiv 2502.16982).

    For a parameter of two or more dimensions, flattened to a matrix `[out, rest]` (a convolution's kernel to
    `[out, in * height * width]`), with `m <- momentum m + (1 - momentum) g`:

        theta <- (1 - lr weight_decay) theta - lr adjust(out, rest) NS(u),

    where u is `(1 - momentum) g + momentum m` with Nesterov, else m, and NS(u) is near the orthogonal factor `U V^T` of
    `u = U S V^T`: `ns_steps` times `X <- a X + b (X X^T) X + c (X X^T)**2 X`, from `u / ||u||`. These are
    `torch.optim.Muon`'s formulas; but NS is computed in the parameters' precision, not in bfloat16, and parameters of
    more than two dimensions are accepted. Those of fewer dimensions are optimised by an inner AdamW.

    Args:
        params: parameters to optimise; at least one has two or more dimensions.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        momentum: momentum of matrices.
        nesterov: whether that momentum is Nesterov's.
        ns_coefficients: a, b, c.
        eps: smallest norm by which u is divided.
        ns_steps: number of Newton-Schulz steps.
        adjust_lr_fn: "original" (also None), `sqrt(max(1, out / rest))`; "match_rms_adamw",
            `0.2 sqrt(max(out, rest))`; or "spectral_unclamped", `sqrt(out / rest)`.
        inner_lr_ratio: learning rate of the inner AdamW in units of lr.
        inner_betas: betas of the inner AdamW.
        last_lr_ratio: learning rate of the last matrix, a classifier's head, in units of lr; its decay is unchanged.

    Raises:
        ValueError: for a value out of its range, or if there is no matrix.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        inner_lr_ratio: float = 1.0,
        inner_betas: tuple[float, float] = (0.9, 0.999),
        last_lr_ratio: float = 1.0,
    ):
        ratios = {"inner_lr_ratio": inner_lr_ratio, "last_lr_ratio": last_lr_ratio}
        _check(lr, weight_decay, momentum, ns_coefficients, ns_steps, adjust_lr_fn, ratios)
        if not 0 < eps < float("inf"):
            raise ValueError(f"eps must be a positive number, not {eps}")
        if not isinstance(nesterov, bool):
            raise ValueError(f"nesterov must be True or False, not {nesterov!r}")
        matrices, others = _divided(list(params))
        if not matrices:
            raise ValueError("there is no matrix to orthogonalise: use AdamW")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
            "inner": False,
        }  # fmt: skip
        super().__init__(matrices, defaults)
        self._inner: torch.optim.Optimizer | None = None
        self._ratio = inner_lr_ratio
        self._last, self._last_ratio = matrices[-1]["params"][-1], last_lr_ratio
        if others:
            self._inner = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, betas=inner_betas)
            for group in self._inner.param_groups:
                group["inner"] = True
                self.param_groups.append(group)
            self._link()

    def radii(self) -> dict[Tensor, float]:
        """The spectral norm of each matrix's step in units of the first group's lr, if NS is exact: matrix -> norm."""
        first = self.param_groups[0]["lr"]
        return {
            p: self._factor(p, group) * (group["lr"] / first if first else 1.0)
            for group in self.param_groups
            if not group["inner"]
            for p in group["params"]
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned, including the inner optimizer's part."""
        super().load_state_dict(state_dict)
        self._link()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step.

        Args:
            closure: sets the gradients and returns the value; called once.

        Returns:
            The closure's value; None without a closure.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in () if group["inner"] else group["params"]:
                if p.grad is not None:
                    self._move(p, group)
        if self._inner is not None:
            rates = [group["lr"] for group in self._inner.param_groups]
            for group, rate in zip(self._inner.param_groups, rates, strict=True):
                group["lr"] = rate * self._ratio
            self._inner.step()
            for group, rate in zip(self._inner.param_groups, rates, strict=True):
                group["lr"] = rate
        return loss

    def _move(self, p: nn.Parameter, group: dict[str, Any]) -> None:
        gradient, state = p.grad, self.state[p]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        m = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = (gradient.lerp(m, group["momentum"]) if group["nesterov"] else m).flatten(1)
        orthogonal = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(orthogonal.view_as(p), alpha=-group["lr"] * self._factor(p, group))

    def _factor(self, p: Tensor, group: dict[str, Any]) -> float:
        """Factor of lr for a matrix."""
        factor: float = ADJUST[group["adjust_lr_fn"] or "original"](len(p), p[0].numel())
        return factor * (self._last_ratio if p is self._last else 1.0)

    def _link(self) -> None:
        """Gives the inner optimizer this one's groups and state, so that both are saved as one."""
        if self._inner is not None:
            self._inner.param_groups = [group for group in self.param_groups if group["inner"]]
            self._inner.state = self.state


def _divided(params: list[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Groups of matrices, and groups of the other parameters, from parameters or groups of them."""
    groups = params if params and isinstance(params[0], dict) else [{"params": params}]
    groups = [{**group, "params": list(group["params"])} for group in groups]
    parts = (
        [{**g, "params": [p for p in g["params"] if (p.ndim >= 2) == which]} for g in groups] for which in (True, False)
    )
    matrices, others = ([group for group in part if group["params"]] for part in parts)
    return matrices, others


def _check(
    lr: float, weight_decay: float, momentum: float, coefficients: tuple[float, ...], steps: int,
    adjust_lr_fn: str | None, ratios: dict[str, float],
) -> None:  # fmt: skip
    for name, value in {"lr": lr, "weight_decay": weight_decay, **ratios}.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, not {momentum}")
    if not isinstance(steps, int) or not 1 <= steps < 100:
        raise ValueError(f"ns_steps must be a whole number between 1 and 99, not {steps}")
    if not isinstance(coefficients, (tuple, list)) or len(coefficients) != 3:
        raise ValueError(f"ns_coefficients must be three numbers, not {coefficients}")
    if adjust_lr_fn is not None and adjust_lr_fn not in ADJUST:
        raise UnknownNameError("adjust_lr_fn", str(adjust_lr_fn), ADJUST)
