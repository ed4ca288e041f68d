"""Optimizers by name, and the refusal of names and settings that torch does not have."""

from __future__ import annotations

import problems
import pytest
import torch

from noiseless.errors import UnknownNameError
from noiseless.optim import ArmijoSearch, Muon, Searched, line_search, make_optimizer, optimizer_names, parse_options
from noiseless.optim.optimizers import TRIAL_EVALUATIONS
from noiseless.optim.registry import OPTIMIZERS, OptimizerEntry


@pytest.mark.parametrize("name", ["SGD", "sgd", "AdamW", "adamw", "LBFGS", "Rprop"])
def test_names_may_be_in_any_case(name):
    optimizer = make_optimizer(name, problems.perceptron().parameters(), lr=0.5)
    assert type(optimizer).__name__.lower() == name.lower()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_names_are_torchs_and_ours():
    names = optimizer_names()
    assert {"SGD", "Adam", "AdamW", "LBFGS", "RMSprop", "Muon", "FISTA", "DampedLBFGS"} <= set(names)
    assert "Optimizer" not in names
    torch_names = [name for name in names if name not in ("Muon", "FISTA", "DampedLBFGS", "ScalarRMSprop")]
    assert all(issubclass(getattr(torch.optim, name), torch.optim.Optimizer) for name in torch_names)
    assert len(set(names)) == len(names)


def test_muon_is_ours_and_our_optimizers_refuse_wrong_settings():
    optimizer = make_optimizer("muon", problems.convolution().parameters(), lr=0.1)
    assert type(optimizer) is Muon
    with pytest.raises(ValueError, match=r"noiseless\.optim\.Muon takes no nesterow; it takes lr, weight_decay"):
        make_optimizer("Muon", problems.convolution().parameters(), nesterow=True)
    with pytest.raises(ValueError, match=r"noiseless\.optim\.FISTA refuses restart='gradient': restart must be True"):
        make_optimizer("FISTA", problems.perceptron().parameters(), restart="gradient")


def test_groups_have_their_own_settings():
    first, *others = problems.perceptron().parameters()
    optimizer = make_optimizer("SGD", [{"params": [first]}, {"params": others, "weight_decay": 0.0}], weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(("wrong", "near"), [("SDG", "SGD"), ("adanw", "AdamW"), ("lbfg", "LBFGS")])
def test_unknown_names_are_refused_with_a_suggestion(wrong, near):
    with pytest.raises(UnknownNameError, match=f"unknown optimizer '{wrong}'; did you mean .*{near}.*known: "):
        make_optimizer(wrong, problems.perceptron().parameters())


def test_unknown_settings_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"torch.optim.LBFGS takes no momentum; it takes lr, max_iter"):
        make_optimizer("LBFGS", problems.perceptron().parameters(), momentum=0.9)


def test_line_search_names_the_search_of_an_optimizer():
    parameters = list(problems.perceptron().parameters())
    assert line_search(make_optimizer("LBFGS", parameters, line_search_fn="strong_wolfe")) == "strong_wolfe"
    assert line_search(make_optimizer("LBFGS", parameters)) is None
    assert line_search(make_optimizer("SGD", parameters, lr=0.1)) is None
    assert line_search(Searched(make_optimizer("SGD", parameters, lr=0.1), ArmijoSearch())) == "armijo"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("amsgrad=True", {"amsgrad": True}),
        ("betas=(0.8, 0.95),eps=1e-6", {"betas": (0.8, 0.95), "eps": 1e-6}),
        (" max_iter = 3 , line_search_fn=strong_wolfe", {"max_iter": 3, "line_search_fn": "strong_wolfe"}),
        ("line_search_fn='strong_wolfe',weight_decay=-1,foreach=None",
         {"line_search_fn": "strong_wolfe", "weight_decay": -1, "foreach": None}),
    ],
)  # fmt: skip
def test_options_are_read_as_in_a_call(text, options):
    assert parse_options(text) == options


@pytest.mark.parametrize(
    "text",
    [
        "eps",
        "1",
        "eps=",
        "a=1,a=2",
        "**{'a': 1}",
        "a=1)(b=2",
        "a=1),g(b=2",
        "a=exit()",
        "a=1;b=2",
        "a=\0",
        "é",
        "a=1e400",
    ],
)
def test_other_options_are_refused(text):
    with pytest.raises(ValueError, match="NAME=VALUE,NAME=VALUE"):
        parse_options(text)


def test_sparseadam_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"SparseAdam needs sparse gradients.*use Adam"):
        make_optimizer("sparseadam", problems.perceptron().parameters())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("AdamW", {"eps": "tiny"}, r"AdamW refuses eps='tiny': "),
        ("SGD", {"lr": -1.0, "momentum": 0.5}, r"SGD refuses lr=-1.0, momentum=0.5: Invalid learning rate"),
        ("Adam", {"fused": True, "foreach": True}, r"Adam refuses fused=True, foreach=True: "),
        ("SGD", {"params": 1}, r"SGD takes no params; it takes lr, momentum"),
        # torch itself refuses these only in the first step, after the run has begun
        ("Adam", {"betas": (0.9,)}, r"Adam refuses betas=\(0\.9,\): tuple index out of range"),
        ("Adam", {"differentiable": True}, r"Adam refuses differentiable=True: a leaf Variable"),
        ("AdamW", {"capturable": True}, r"AdamW refuses capturable=True: If capturable=True"),
        ("LBFGS", {"line_search_fn": "armijo"}, r"LBFGS refuses line_search_fn='armijo': only 'strong_wolfe'"),
        ("LBFGS", {"history_size": 0}, r"LBFGS refuses history_size=0: "),
        ("Muon", {"ns_coefficients": (1, 2, "a")}, r"Muon refuses ns_coefficients=\(1, 2, 'a'\): "),
    ],
)
def test_values_that_torch_refuses_are_in_the_message(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, problems.perceptron().parameters(), **settings)


@pytest.mark.parametrize("name", [name for name in optimizer_names() if name != "SparseAdam"])
def test_trying_the_settings_does_not_change_the_parameters(name):
    module = problems.convolution()
    before = problems.state(module)
    make_optimizer(name, module.parameters())
    assert problems.same_bits(problems.state(module), before)
    assert all(p.grad is None for p in module.parameters())


def test_an_optimizer_that_evaluates_for_long_is_tried_for_a_short_time(monkeypatch):
    evaluations = 0

    class Counted(torch.optim.LBFGS):
        def step(self, closure):
            def counted():
                nonlocal evaluations
                evaluations += 1
                return closure()

            return super().step(counted)

    monkeypatch.setitem(OPTIMIZERS, "LBFGS", OptimizerEntry(Counted))
    # steps of length 1e-9 never converge: without a limit, each of the trial's 3 steps would evaluate 100 times
    make_optimizer("LBFGS", problems.perceptron().parameters(), lr=1e-9, max_iter=100, tolerance_change=0.0)
    assert evaluations == TRIAL_EVALUATIONS + 1 == 21  # the last call ends the trial
