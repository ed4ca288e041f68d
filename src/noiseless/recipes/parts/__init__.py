"""The parts of a recipe.

The string under a field is its help text on the command line; `check` refuses values that no run can have.
"""

from noiseless.recipes.parts.data import Data
from noiseless.recipes.parts.evaluation import Evaluation
from noiseless.recipes.parts.model import Model
from noiseless.recipes.parts.objective import Objective
from noiseless.recipes.parts.optimizer import Optimizer
from noiseless.recipes.parts.schedule import Schedule
from noiseless.recipes.parts.transforms import Transforms

__all__ = ["Data", "Evaluation", "Model", "Objective", "Optimizer", "Schedule", "Transforms"]
