"""Losses in their per-example form, and what counts as a hit.

The objective is a mean over examples, so a loss returns one value for each example, or values and weights. Any callable
`(output, target)` that does so can be used, and any loss of torch. Step 3 of a training step.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.errors import UnknownNameError
from noiseless.losses.likelihood import likelihood
from noiseless.losses.terms import PerExample

Kind = Literal["cross-entropy", "incorrect"]
_NONE = torch.iinfo(torch.int64).min
"""a number that is no class; torch's default, -100, would give such targets the loss 0, and count them in the mean"""


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """`-log softmax(output)[target]`: output `[n, classes]`, target int64 `[n]`, result `[n]`; no target is ignored."""
    return F.cross_entropy(output, target, reduction="none", ignore_index=_NONE)


cross_entropy.classifies = True  # type: ignore[attr-defined]
likelihood(cross_entropy)


@likelihood
def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """`(output - target)**2`, elementwise `[n, ...]`; the objective averages it over each example's elements."""
    return F.mse_loss(output, target, reduction="none")


def classification_loss(
    kind: Kind = "cross-entropy", label_smoothing: float = 0.0, others_only: bool = False
) -> PerExample:
    """Cross entropy with label smoothing, of all examples or only of those that are classified wrongly.

    With K classes, p = softmax(output) and smoothing s, an example's loss is `-sum_k q_k log p_k` with the target
    distribution (arXiv 1512.00567, as in torch)

        q_k = s / K, plus 1 - s for the target class,

    or, with `others_only`, `q_k = s / (K - 1)` for the other classes and `1 - s` for the target class. The second form
    is the first with s K / (K - 1) in place of s.

    Args:
        kind: `"cross-entropy"`: the loss above. `"incorrect"`: a correctly classified example has loss 0 and gradient
            0, and still counts in the mean over all examples. Which examples these are is not differentiated: the
            value jumps where an example becomes correct or wrong, and elsewhere the gradient is that of the value.
        label_smoothing: s, in [0, 1).
        others_only: whether s is spread over the other classes, as in the published code of arXiv 2109.14119.

    Returns:
        A loss that maps output `[n, K]` and target int64 `[n]` to `[n]`.

    Raises:
        UnknownNameError: for an unknown kind.
        ValueError: for a smoothing out of range.
    """
    if kind not in get_args(Kind):
        raise UnknownNameError("loss", kind, get_args(Kind))
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be a number in [0, 1), not {label_smoothing}")
    if kind == "cross-entropy" and not label_smoothing:
        return cross_entropy

    def loss(output: Tensor, target: Tensor) -> Tensor:
        losses = _smoothed(output, target, label_smoothing, others_only)
        # a product, not torch.where: a loss that is not finite stays so, and the run reports it
        return losses * (~_is_hit(output.detach(), target)).to(losses.dtype) if kind == "incorrect" else losses

    return classifying(likelihood(loss) if kind == "cross-entropy" else loss)


def classifying(loss: PerExample) -> PerExample:
    """Declares that a loss is one of class scores `[n, classes]` and class numbers `[n]`, so that hits are counted.

    Args:
        loss: a function; it gets an attribute.

    Returns:
        The same function.
    """
    loss.classifies = True  # type: ignore[attr-defined]
    return loss


def classifies(loss: PerExample) -> bool:
    """Whether a loss is known to be one of class scores.

    Args:
        loss: any loss.

    Returns:
        True for `cross_entropy`, losses that `classifying` has declared, torch's cross entropy, negative log-likelihood
        and multi-class margin, and a `functools.partial` of one of these.
    """
    if isinstance(loss, partial):
        return getattr(loss, "classifies", False) or classifies(loss.func)
    known = (F.cross_entropy, F.nll_loss, F.multi_margin_loss)
    modules = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
    return getattr(loss, "classifies", False) or loss in known or isinstance(loss, modules)


def _smoothed(output: Tensor, target: Tensor, smoothing: float, others_only: bool) -> Tensor:
    if not smoothing:
        return cross_entropy(output, target)
    classes = output.shape[1]
    even = smoothing / max(classes - 1, 1) if others_only else smoothing / classes
    more = 1 - smoothing - even if others_only else 1 - smoothing
    log_p = F.log_softmax(output, 1)
    return more * F.nll_loss(log_p, target, reduction="none") - even * log_p.sum(1)


def count_hits(output: Tensor, target: Tensor) -> Tensor:
    """Number of examples that are classified correctly.

    Args:
        output: class scores `[n, classes]`.
        target: class numbers, int64 `[n]`.

    Returns:
        float64 scalar; NaN for one score, other shapes or a floating-point target: this is then no classification.
    """
    if output.ndim != 2 or output.shape[1] < 2 or target.ndim != 1 or target.is_floating_point():
        return torch.full((), torch.nan, dtype=torch.float64, device=output.device)
    return _is_hit(output, target).sum(dtype=torch.float64)


def _is_hit(output: Tensor, target: Tensor) -> Tensor:
    return output.argmax(1) == target
