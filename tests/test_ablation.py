"""benchmarks/ablation.py: what it replaces gives a recipe that runs, on courses with and without augmentation."""

import pytest

from noiseless.data import extent
from noiseless.run.build import build
from noiseless.run.config import Config, Settings
from noiseless.run.contenders import CONTENDERS, Course


@pytest.mark.parametrize("augment", [True, False])
def test_each_change_is_of_a_recipe_that_runs(benchmark, augment):
    ablation = benchmark("ablation")
    fast = Course("digits", extent("digits"), augment=augment).recipe(CONTENDERS["aggregated"], 20)
    for name, change in ablation.CHANGES.items():
        made = ablation.changed(fast, change)
        assert made.steps == (10 if "half the steps" in name else 20), name
        build(Config(made, Settings(threads=1)))
