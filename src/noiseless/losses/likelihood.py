"""The distribution of which a loss is the negative log-likelihood, and its Fisher information in the outputs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.losses.terms import PerExample, Terms, terms
from noiseless.losses.torchlosses import unreduced

_NATURAL = {
    nn.CrossEntropyLoss, F.cross_entropy, nn.MSELoss, F.mse_loss, nn.BCEWithLogitsLoss,
    F.binary_cross_entropy_with_logits, nn.PoissonNLLLoss, F.poisson_nll_loss,
}  # fmt: skip
"""losses of torch whose outputs are natural parameters of a distribution"""


def likelihood(loss: PerExample) -> PerExample:
    """Declares that a loss is a negative log-likelihood whose outputs are natural parameters of an exponential family.

    Its Hessian in the outputs then does not depend on the target, so it is the Fisher information.

    Args:
        loss: a function; it gets an attribute.

    Returns:
        The same function.
    """
    loss.is_likelihood = True  # type: ignore[attr-defined]
    return loss


def fisher_loss(loss: PerExample) -> PerExample:
    """A loss whose Hessian in the outputs is the Fisher information of the distribution that a loss describes.

    For a loss `v(f, y) = -s log p(y | f) + const`, with weight w, the Hessian of the returned loss in the outputs f is
    `w s E_y[(d log p / df) (d log p / df)^T]`, y drawn from `p(. | f)`, not from the data. Where f are natural
    parameters, the Hessian of the loss itself is that, and it is returned as it is: cross entropy of logits (`diag(p) -
    p p^T`, also with label smoothing), squared error (a normal distribution of variance 1/2 for each element, as the
    loss has no 1/2; over an example's elements both are averaged), binary cross entropy of logits (`p (1 - p)`), the
    Poisson loss of log rates. The expectation is in closed form for two more, whose own Hessian is another one:
    negative log-likelihood of log probabilities (`diag(exp f)`), binary cross entropy of probabilities (`1 / (f (1 -
    f))`). A weight that depends on the class is that of the example's own target.

    Args:
        loss: any loss.

    Returns:
        A loss.

    Raises:
        ValueError: for a loss that is not known to be a negative log-likelihood.
    """
    function: Any = loss.func if isinstance(loss, partial) else loss
    settings: Any = loss.keywords if isinstance(loss, partial) else vars(loss) if isinstance(loss, nn.Module) else {}
    kind = type(loss) if isinstance(loss, nn.Module) else function
    plain = settings.get("pos_weight") is None and settings.get("log_input", True)
    if getattr(function, "is_likelihood", False) or (kind in _NATURAL and plain):
        return loss
    if kind in (nn.NLLLoss, F.nll_loss):
        return partial(_of_log_probabilities, unreduced(loss))
    if kind in (nn.BCELoss, F.binary_cross_entropy) and settings.get("weight") is None:
        return _of_probabilities
    name = getattr(function, "__name__", type(function).__name__)
    raise ValueError(
        f"the Fisher information is that of a distribution, and the loss {name} is not known to be a negative"
        " log-likelihood: choose the generalised Gauss-Newton matrix (ggn), which is the same where both are defined by"
        " natural parameters; or declare your loss with noiseless.losses.likelihood.likelihood"
    )


def _of_log_probabilities(loss: PerExample, output: Tensor, target: Tensor) -> Terms:
    """`w sum_k exp(f_k)`, with the weights of a negative log-likelihood."""
    weights = terms(loss, output, target).weights
    assert weights is not None
    return Terms(weights * output.exp().sum(1).flatten(), weights)


def _of_probabilities(output: Tensor, target: Tensor) -> Tensor:
    """`f**2 / (2 p (1 - p))` with p = f, not differentiated."""
    p = output.detach()
    return output.square() / (2 * p * (1 - p))
