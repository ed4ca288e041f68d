"""benchmarks/ablation.py: what it replaces gives a recipe that runs, on courses with and without augmentation."""

import importlib
from pathlib import Path

import pytest

from noiseless.data import extent
from noiseless.run.build import build
from noiseless.run.config import Config, Settings
from noiseless.run.contenders import CONTENDERS, Course


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("ablation")


@pytest.mark.parametrize("augment", [True, False])
def test_each_change_is_of_a_recipe_that_runs(ablation, augment):
    fast = Course("digits", extent("digits"), augment=augment).recipe(CONTENDERS["fb-fast"], 20)
    for name, change in ablation.CHANGES.items():
        made = ablation.changed(fast, change)
        assert made.steps == (10 if "half the steps" in name else 20), name
        build(Config(made, Settings(threads=1)))
