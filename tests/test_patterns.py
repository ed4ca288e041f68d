"""Patterns of parameter names: what they match, and what a mistake in them says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from noiseless.patterns import first_factors, matched, read_factors, written_factors

NAMES = [
    "stem.0.weight",
    "layers.0.conv1.weight",
    "layers.0.bn1.weight",
    "layers.1.conv1.weight",
    "fc.weight",
    "fc.bias",
]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["fc"], {"fc.weight", "fc.bias"}),
        (["*.weight"], set(NAMES) - {"fc.bias"}),
        (["layers.0", "stem"], set(NAMES[:3])),
        (["layers.?.conv1"], {"layers.0.conv1.weight", "layers.1.conv1.weight"}),
        (["layers.[!0]*"], {"layers.1.conv1.weight"}),
        (["fc.bias"], {"fc.bias"}),
        ([], set()),
    ],
)
def test_a_pattern_matches_parameters_and_modules(patterns, expected):
    assert matched("--freeze", patterns, NAMES) == expected


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("conv1", "near it are layers.0.conv1, layers.1.conv1"),
        ("fcc", "near it are fc"),
        ("zzz", "it has stem, layers, fc"),
    ],
)
def test_a_pattern_without_a_match_names_what_is_near(pattern, near):
    with pytest.raises(ValueError, match=f"--freeze '{pattern}' matches no parameter of the model; {near}"):
        matched("--freeze", ["fc", pattern], NAMES)


def test_the_first_pattern_that_matches_decides():
    factors = first_factors("--lr-factors", {"fc.bias": 3.0, "fc": 2.0, "layers": 0.5}, NAMES)
    assert factors == dict(zip(NAMES, [1.0, 0.5, 0.5, 0.5, 2.0, 3.0], strict=True))


@pytest.mark.parametrize(
    ("factors", "problem"),
    [
        ({"*": 0.1, "fc": 1.0}, r"'fc' matches only parameters that patterns before it match: the first one decides"),
        ({"head": 1.0}, "'head' matches no parameter of the model; it has stem, layers, fc"),
        ({"frozen": 1.0}, "'frozen' matches only parameters that are frozen"),
    ],
)
def test_a_pattern_that_decides_nothing_is_refused(factors, problem):
    with pytest.raises(ValueError, match=problem):
        first_factors("--lr-factors", factors, NAMES, ["frozen.weight"])


def test_factors_are_read_as_they_are_written():
    factors = {"fc": 1.0, "layers.[01].*": 0.1 + 0.2, "*": 1e-3}
    assert read_factors("--lr-factors", written_factors(factors)) == factors
    assert list(read_factors("--lr-factors", " fc = 1 , *=0.1")) == ["fc", "*"]
    assert read_factors("--lr-factors", "") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fc", "must be PATTERN=FACTOR"),
        ("fc=1,", "must be PATTERN=FACTOR"),
        ("fc=x", "fc: the factor must be a number, not 'x'"),
        ("fc=0", "must be a positive number, not 0: use --freeze"),
        ("fc=-1", "must be a positive number, not -1"),
        ("fc=nan", "must be a positive number, not nan"),
        ("fc=inf", "must be a positive number, not inf"),
        ("fc=1,fc=2", "has 'fc' twice"),
    ],
)
def test_a_mistake_in_factors_is_a_sentence(text, problem):
    with pytest.raises(ValueError, match=problem):
        read_factors("--lr-factors", text)


def test_powers_as_patterns_are_timms_layer_decay():
    """The factors of docs/howto/finetuning.md for a ViT, compared with those that timm gives each parameter."""
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    page = (Path(__file__).parents[1] / "docs/howto/finetuning.md").read_text()
    (code,) = re.findall(r"```python\n(decay, depth = .*?)```", page, re.S)
    exec(code, names := {})
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=3)
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=names["decay"])
    name_of = {id(p): name for name, p in model.named_parameters()}
    theirs = {name_of[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert len(theirs) == 152
    assert first_factors("lr_factors", names["factors"], list(name_of.values())) == pytest.approx(theirs, rel=1e-12)
