"""Loss and accuracy on images that the model was not trained on. Step 9 of a training step, where it is due."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.data import Images
from noiseless.files.predictions import Predictions
from noiseless.losses.classification import cross_entropy
from noiseless.losses.terms import PerExample, terms
from noiseless.losses.torchlosses import unreduced
from noiseless.objective.usercode import user_code

BATCH = 512
"""images in a forward; in evaluation mode they do not influence each other"""


@dataclass(frozen=True, eq=False)
class Tested:
    """What a run records of an evaluation on the test examples."""

    columns: dict[str, float]
    """columns of its row"""
    predictions: Predictions | None
    """None where this is no classification"""


@dataclass(frozen=True, eq=False)
class Score:
    """Loss, accuracy and predictions on M images."""

    loss: float
    """mean loss"""
    accuracy: float
    """0 ... 1"""
    predicted: Tensor
    """int64 `[M]`, the class with the largest score, on the CPU"""
    target: Tensor
    """int64 `[M]`, the images' labels, on the CPU"""

    @property
    def predictions(self) -> Predictions:
        """The predictions as a run writes them to its directory."""
        return Predictions(self.predicted.numpy(), self.target.numpy())

    @property
    def tested(self) -> Tested:
        """What a run records."""
        return Tested({"test_loss": self.loss, "test_accuracy": self.accuracy}, self.predictions)


@torch.no_grad()
def score(model: nn.Module, images: Images, flips: bool = False, loss: PerExample = cross_entropy) -> Score:
    """Loss and accuracy of the model in evaluation mode, without augmentation.

    The loss is that of the class scores, by default the cross entropy `-log p[target]`. With `flips`, p is the mean of
    the class probabilities of the image and of its mirror image, `(softmax(f(x)) + softmax(f(mirror x))) / 2`, another
    loss gets `log p + log 2` as class scores, and the predicted class is the one with the largest p.

    Args:
        model: any; its mode is restored afterwards.
        images: labelled images.
        flips: whether mirror images are evaluated, too.
        loss: of each image; with weights w_i, the mean is `sum_i w_i l_i / sum_i w_i` over all images.

    Returns:
        The mean loss (summed in float64), the accuracy, 0 ... 1, and the predictions in the images' order.
    """
    training = model.training
    model.eval()
    # the images of a large data set may be on another device
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    unreduced_loss, predicted, target = unreduced(loss), [], []
    total, weight = torch.zeros(2, dtype=torch.float64)
    for index in torch.arange(len(images)).split(BATCH):
        x, y = (tensor.to(device) for tensor in images.take(index))
        with user_code(model):
            output = class_scores(model, x, flips)
            losses = terms(unreduced_loss, output, y)
        total, weight = total + losses.sum().cpu(), weight + losses.weight().cpu()
        predicted.append(output.argmax(1).cpu())
        target.append(y.cpu())
    model.train(training)
    classes, labels = torch.cat(predicted), torch.cat(target)
    return Score(total.item() / weight.item(), int((classes == labels).sum()) / len(images), classes, labels)


def class_scores(model: nn.Module, x: Tensor, flips: bool) -> Tensor:
    """Class scores `[n, classes]` of images `[n, C, H, W]`, whose softmax is p: with `flips`, `log p + log 2`."""
    if not flips:
        return model(x)
    log_p, log_p_mirrored = (F.log_softmax(model(images), 1) for images in (x, x.flip(-1)))
    return torch.logaddexp(log_p, log_p_mirrored)
