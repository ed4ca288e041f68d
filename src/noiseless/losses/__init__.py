"""What is averaged: losses and metrics of a block's examples."""

from noiseless.losses.classification import classification_loss, classifying, cross_entropy, squared_error
from noiseless.losses.likelihood import fisher_loss, likelihood
from noiseless.losses.maxup import max_up
from noiseless.losses.terms import PerExample, Terms

__all__ = [
    "PerExample",
    "Terms",
    "classification_loss",
    "classifying",
    "cross_entropy",
    "fisher_loss",
    "likelihood",
    "max_up",
    "squared_error",
]
