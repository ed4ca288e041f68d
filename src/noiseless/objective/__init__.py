"""What is minimised: the objective, and what defines it."""

from noiseless.examples.blocks import Blocks, Examples, TensorExamples
from noiseless.examples.dataset import DatasetExamples
from noiseless.examples.selection import Selection
from noiseless.losses.classification import classifying, cross_entropy, squared_error
from noiseless.losses.maxup import max_up
from noiseless.objective.base import Evaluation, Measurement, Objective
from noiseless.objective.blockclip import BlockClip
from noiseless.objective.exactsum import ExactSum
from noiseless.objective.execution import Execution
from noiseless.objective.penalty import GradientPenalty
from noiseless.objective.risk import EmpiricalRisk, risk_of
from noiseless.objective.sharpness import SharpnessAware
from noiseless.objective.space import ParameterSpace, parameter_space
from noiseless.objective.thirds import hessian_gradient, hessian_gradient_passes

__all__ = [
    "BlockClip",
    "Blocks",
    "DatasetExamples",
    "EmpiricalRisk",
    "Evaluation",
    "ExactSum",
    "Examples",
    "Execution",
    "GradientPenalty",
    "Measurement",
    "Objective",
    "ParameterSpace",
    "Selection",
    "SharpnessAware",
    "TensorExamples",
    "classifying",
    "cross_entropy",
    "hessian_gradient",
    "hessian_gradient_passes",
    "max_up",
    "parameter_space",
    "risk_of",
    "squared_error",
]
