"""Max-up: of several augmented draws of an image, the one with the largest loss counts (Gong et al., arXiv 2002.09024).

A per-example loss around another: step 3 of a training step. The examples hold the draws of an image one after the
other, and no block cuts such a group in two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless.objective.losses import PerExampleLoss, per_example


def max_up(loss: PerExampleLoss, draws: int) -> PerExampleLoss:
    """The loss of which the mean over all examples is the mean over images of the largest loss of an image's draws.

    With l_1 ... l_m the losses of a group of m successive examples, its largest one becomes `m * max_j l_j`, the first
    of them where there are several, and the others 0. The gradient is m times that of the largest; at a tie it is a
    subgradient.

    Args:
        loss: of each draw.
        draws: m, successive examples that are draws of one image.

    Returns:
        A loss `(output [n, ...], target [n, ...]) -> [n]`; it raises ValueError where m does not divide n.

    Raises:
        ValueError: if draws is below 1.
    """
    if draws < 1:
        raise ValueError(f"max-up needs at least 1 draw of each example, not {draws}")

    def largest(output: Tensor, target: Tensor) -> Tensor:
        losses = per_example(loss, output, target)
        if len(losses) % draws:
            raise ValueError(
                f"a block of {len(losses)} examples does not hold whole groups of {draws} draws: max-up needs a block"
                f" that {draws} divides"
            )
        groups = losses.unflatten(0, (-1, draws))
        first = groups.detach().argmax(1, keepdim=True)  # of equal ones the first
        chosen = torch.arange(draws, device=losses.device) == first
        return torch.where(chosen, draws * groups, 0.0).flatten()

    return largest
