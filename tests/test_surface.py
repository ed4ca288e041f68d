"""The public names: listed by `dir`, documented field by field, short when printed; the command line as a function."""

from __future__ import annotations

import pydoc
import re

import pytest
import torch
from problems import perceptron, points
from torch import nn

import noiseless
from noiseless import EmpiricalRisk, Evaluation, GradientPenalty, SharpnessAware, cli, take_step
from noiseless.documented import documented, field_texts


def test_dir_has_all_public_names():
    assert set(noiseless.__all__) <= set(dir(noiseless))
    assert sorted(noiseless.__all__) == noiseless.__all__


def test_help_shows_the_string_under_each_field():
    for name in ("EmpiricalRisk", "Evaluation", "Execution", "GradientPenalty", "Selection", "SharpnessAware"):
        shown = pydoc.plain(pydoc.render_doc(getattr(noiseless, name)))
        shown = " ".join(re.sub(r"^ \|", "", shown, flags=re.MULTILINE).split())
        texts = field_texts(getattr(noiseless, name))
        assert texts
        for field, text in texts.items():
            assert f"{field}: {text}" in shown, (name, field)


def test_the_attributes_stand_before_what_is_raised():
    text = EmpiricalRisk.__doc__
    assert text.index("The mean loss of a module") < text.index("Attributes:") < text.index("Raises:")
    assert "block: examples in a block; None: one block of all examples" in text


def test_a_class_without_texts_or_source_stays_as_it_is():
    made = documented(type("Made", (), {"__doc__": "Text.", "__module__": "noiseless.objective.base"}))
    assert made.__doc__ == "Text."
    assert field_texts(type("Other", (), {"__module__": "builtins"})) == {}


def test_objectives_and_evaluations_print_in_a_line():
    module = perceptron()
    risk = EmpiricalRisk(module, nn.CrossEntropyLoss(), points(), block=4)
    penalised = GradientPenalty(risk, 0.5, lr=0.1)
    assert repr(risk) == "EmpiricalRisk(Sequential, 11 examples in 3 blocks of 4, 31 parameters)"
    assert repr(penalised) == f"GradientPenalty({risk!r}, strength=0.5, lr=0.1)"
    assert repr(SharpnessAware(risk, 0.05)) == f"SharpnessAware({risk!r}, rho=0.05)"
    evaluation = penalised.evaluate()
    assert repr(evaluation).startswith(f"Evaluation(loss={evaluation.loss:.6g}, penalty={evaluation.penalty:.6g}, acc")
    assert "penalty" not in repr(risk.evaluate())
    step = take_step(torch.optim.SGD(module.parameters(), lr=0.1), penalised)
    for shown in (risk, penalised, evaluation, step, risk.selection):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 150
    assert type(evaluation) is Evaluation


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["train", "--help"], 0), (["nothing"], 2), (["digest", "nowhere"], 2)]
)
def test_main_returns_its_exit_code(words, code, capsys):
    assert cli.main(words) == code
    captured = capsys.readouterr()
    assert (captured.out if code == 0 else captured.err).strip()
    assert "Traceback" not in captured.err
