"""The model's quality on examples that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from noiseless.data import Images
from noiseless.objective import cross_entropy

BATCH = 512
"""images that are forwarded together; in evaluation mode examples do not see each other"""


@dataclass(frozen=True)
class Score:
    """Mean loss and share of correct answers."""

    loss: float
    accuracy: float


@torch.no_grad()
def score(model: nn.Module, images: Images) -> Score:
    """Loss and accuracy of the model in evaluation mode, without augmentation.

    Args:
        model: left in the mode in which it stands.
        images: labelled images.

    Returns:
        The mean cross entropy (summed in float64) and the accuracy, 0 ... 1.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device  # images of a large set live elsewhere
    loss, hits = torch.zeros((), dtype=torch.float64), 0
    for index in torch.arange(len(images)).split(BATCH):
        x, y = (each.to(device) for each in images.take(index))
        output = model(x)
        loss += cross_entropy(output, y).sum(dtype=torch.float64).cpu()
        hits += int((output.argmax(1) == y).sum())
    model.train(training)
    return Score(loss.item() / len(images), hits / len(images))
