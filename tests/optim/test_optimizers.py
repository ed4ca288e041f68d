"""Optimizers by name, and the refusal of names and settings that torch does not have."""

from __future__ import annotations

import problems
import pytest
import torch

from noiseless.errors import UnknownNameError
from noiseless.optim import line_search, make_optimizer, optimizer_names


@pytest.mark.parametrize("name", ["SGD", "sgd", "AdamW", "adamw", "LBFGS", "Rprop"])
def test_any_case_will_do(name):
    made = make_optimizer(name, problems.perceptron().parameters(), lr=0.5)
    assert type(made).__name__.lower() == name.lower()
    assert made.param_groups[0]["lr"] == 0.5


def test_names_are_torchs():
    names = optimizer_names()
    assert {"SGD", "Adam", "AdamW", "LBFGS", "RMSprop"} <= set(names)
    assert "Optimizer" not in names
    assert all(issubclass(getattr(torch.optim, name), torch.optim.Optimizer) for name in names)


@pytest.mark.parametrize(("wrong", "near"), [("SDG", "SGD"), ("adanw", "AdamW"), ("lbfg", "LBFGS")])
def test_unknown_names_get_the_nearest(wrong, near):
    with pytest.raises(UnknownNameError, match=f"unknown optimizer '{wrong}'; did you mean .*{near}.*known: "):
        make_optimizer(wrong, problems.perceptron().parameters())


def test_settings_that_it_does_not_take_are_refused():
    with pytest.raises(ValueError, match=r"torch.optim.LBFGS takes no momentum; it takes lr, max_iter"):
        make_optimizer("LBFGS", problems.perceptron().parameters(), momentum=0.9)


def test_only_lbfgs_with_wolfe_searches():
    parameters = list(problems.perceptron().parameters())
    assert line_search(make_optimizer("LBFGS", parameters, line_search_fn="strong_wolfe")) == "strong_wolfe"
    assert line_search(make_optimizer("LBFGS", parameters)) is None
    assert line_search(make_optimizer("SGD", parameters, lr=0.1)) is None
