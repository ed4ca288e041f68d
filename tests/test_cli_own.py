"""Commands on a model of one's own: attention is analysed; what its code raises, or torch lacks, is one line."""

import sys

import pytest
from small_runs import call, npz, refused

MODEL = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels, classes, refuse=0, once=False):
        super().__init__()
        self.refuse, self.once = refuse, once
        self.patches, self.scores = nn.Conv2d(channels, 8, 4, 4), nn.Linear(8, classes)
        self.attention = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        if len(x) == self.refuse:
            raise RuntimeError("this many images are too many")
        x = self.scores(self.attention(self.patches(x).flatten(2).transpose(1, 2)).mean(1))
        return Once.apply(x) if self.once else x


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient.clone()


def make(channels, classes, **options):
    return Model(channels, classes, **options)
"""
FLAGS = ("--steps", "1", "--block", "24", "--threads", "1", "--chunk", "1", "--compile", "off")


@pytest.fixture
def train(tmp_path, monkeypatch):
    """The arguments of a training run with a model in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_model", raising=False)
    (tmp_path / "own_model.py").write_text(MODEL)
    return ("train", "fb", "--data", npz(tmp_path / "d.npz"), "--model", "own_model:make", *FLAGS, "--run-dir", "run")


def test_a_transformer_can_be_analysed(train):
    assert call(*train).code == 0
    answer = call("sharpness", "run", "--trust", "own_model:make")
    assert (answer.code, answer.err) == (0, "")
    assert "largest" in answer.out


@pytest.mark.parametrize("images", [24, 20], ids=["a block", "the test images"])
def test_an_error_of_the_model_is_one_line_with_its_place(train, images, tmp_path):
    place = f"({tmp_path}/own_model.py, line 15, in forward)"
    reason = "the module's forward raises RuntimeError: this many images are too many"
    refused(*train, "--model-options", f"refuse={images}", names=(reason, place, "NOISELESS_TRACEBACK=1"))


def test_a_derivative_that_torch_lacks_is_one_line_with_what_works_instead(train):
    once = (*train, "--model-options", "once=True")
    assert call(*once, "--penalty", "0.5").code == 0
    refused(
        "sharpness",
        "run",
        "--trust",
        "own_model:make",
        names=("Hessian products need the second derivative of Once", "gradients only"),
    )
    exact = (*once, "--penalty", "0.5", "--penalty-method", "exact", "--run-dir", "other")
    refused(*exact, names=("the exact penalty needs", "--penalty-method forward"))
