"""Max-up: of several augmented draws of an image, the one with the largest loss counts (Gong et al., arXiv 2002.09024).

A per-example loss that wraps another: step 3 of a training step. The draws of an image are successive examples, all in
one block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless.losses.classification import classifies, classifying
from noiseless.losses.terms import PerExample, terms
from noiseless.losses.torchlosses import unreduced


def max_up(loss: PerExample, draws: int) -> PerExample:
    """A loss whose mean over all examples is the mean over images of the largest loss among an image's draws.

    With l_1 ... l_m the losses of m successive examples, the largest one (at a tie the first) becomes `m * max_j l_j`,
    and the others become 0. The gradient is m times that of the largest loss; at a tie it is a subgradient.

    Args:
        loss: loss of one draw.
        draws: m, the number of successive examples that are draws of one image.

    Returns:
        A loss `(output [n, ...], target [n, ...]) -> [n]`; it raises ValueError if m does not divide n.

    Raises:
        ValueError: if draws is below 1.
    """
    if draws < 1:
        raise ValueError(f"max-up needs at least 1 draw of each example, not {draws}")
    draw_loss = unreduced(loss)

    def largest(output: Tensor, target: Tensor) -> Tensor:
        found = terms(draw_loss, output, target)
        losses = found.values
        if found.weights is not None:
            raise ValueError("max-up compares losses of draws, but this loss returns weights: use one without")
        if len(losses) % draws:
            raise ValueError(
                f"a block of {len(losses)} examples cannot be cut into groups of {draws} draws: max-up needs a block"
                f" size that is a multiple of {draws}"
            )
        groups = losses.unflatten(0, (-1, draws))
        first = groups.detach().argmax(1, keepdim=True)  # at a tie the first
        chosen = torch.arange(draws, device=losses.device) == first
        return torch.where(chosen, draws * groups, 0.0).flatten()

    return classifying(largest) if classifies(loss) else largest
