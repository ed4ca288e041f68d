"""The check of a config: every number has a range, and an error names the flag, the value and what it must be."""

import math
import re

import pytest
from configs import check_values, numbers

# flags by range; the ends of a range are allowed, unless it is open
FROM_ONE = (
    "steps", "block", "max_up", "parts", "threads", "chunk", "evaluate_every", "keep", "keep_every", "sharpness_every",
    "sharpness_count", "noise_every", "layers_every", "check_every",
)  # fmt: skip
FROM_ZERO = (
    "warmup", "padding", "copies", "switch", "stop_perfect", "seed", "penalty", "full_penalty", "additive_noise",
    "multiplicative_noise", "norm_bias", "norm_target", "sam", "weight_decay", "checkpoint_seconds",
    "snapshot_seconds",
)  # fmt: skip
POSITIVE = (
    "lr", "norm_block", "horizon", "block_clip", "clip", "agc", "trust_coefficient", "penalty_eps", "decay", "pixels",
    "images",
)  # fmt: skip
BELOW_ONE = ("validation", "label_smoothing", "ema", "momentum")
OTHERS = ("flip", "mean", "std")
"""with tests of their own; std is checked where the number of channels is known"""

NEEDED = {
    "norm_target": {"norm_bias": 1.0},
    "trust_coefficient": {"layer_rate": "lars"},
    "decay": {"schedule": "exponential"},
}
"""what must be on for a flag to do anything"""

FRACTIONS = {
    "penalty", "full_penalty", "additive_noise", "multiplicative_noise", "norm_bias", "norm_target", "sam",
    "weight_decay", "checkpoint_seconds", "snapshot_seconds", "lr", "block_clip", "clip", "agc", "trust_coefficient",
    "penalty_eps", "decay",
}  # fmt: skip
"""flags whose numbers need not be whole, so that they have no largest value"""


def assert_refused(*names, **values):
    """Asserts that the check refuses these values with a message that holds all names."""
    with pytest.raises(ValueError, match=r"\S") as error:
        check_values(**values)
    for name in names:
        assert str(name) in str(error.value)


def flag(name):
    return "--" + name.replace("_", "-")


def test_every_number_has_a_range():
    assert numbers() | {"mean", "std"} == {*FROM_ONE, *FROM_ZERO, *POSITIVE, *BELOW_ONE, *OTHERS}


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("name", FROM_ONE)
def test_values_below_one_or_not_finite_are_refused(name, value):
    assert_refused(f"{flag(name)} must be a finite number of at least 1, not {value}", **{name: value})


@pytest.mark.parametrize("value", [-1, -1e-300, math.nan, math.inf])
@pytest.mark.parametrize("name", FROM_ZERO)
def test_values_below_zero_or_not_finite_are_refused(name, value):
    assert_refused(f"{flag(name)} must be a finite number of at least 0, not {value}", **{name: value})


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("name", POSITIVE)
def test_values_that_are_not_positive_or_not_finite_are_refused(name, value):
    assert_refused(f"{flag(name)} must be a positive number, not {value}", **{name: value})


@pytest.mark.parametrize("value", [-1e-300, 1, math.nan, math.inf])
@pytest.mark.parametrize("name", BELOW_ONE)
def test_values_outside_zero_to_one_are_refused(name, value):
    assert_refused(f"{flag(name)} must be a number of at least 0 and below 1, not {value}", **{name: value})


@pytest.mark.parametrize(
    ("names", "value"),
    [(FROM_ONE, 1), (FROM_ZERO, 0), (POSITIVE, 1), (BELOW_ONE, 0), (BELOW_ONE, math.nextafter(1, 0)), (("flip",), 1)],
)
def test_the_ends_of_a_range_are_allowed(names, value):
    for name in names:
        check_values(**{name: value}, **NEEDED.get(name, {}))


WHOLE = sorted(numbers() & {*FROM_ONE, *FROM_ZERO, *POSITIVE} - FRACTIONS)


@pytest.mark.parametrize("value", [10**10, 10**30, 10**400])
@pytest.mark.parametrize("name", [name for name in WHOLE if name != "seed"])
def test_every_whole_number_has_a_largest_value(name, value):
    assert_refused(f"{flag(name)} must be a whole number of at most", **{name: value}, **NEEDED.get(name, {}))


def test_a_learning_rate_that_would_overflow_is_refused():
    check_values(schedule="exponential", decay=1.01, steps=1000)
    assert_refused("--decay 2 lets", "--steps 3000", schedule="exponential", decay=2)


@pytest.mark.parametrize("value", [2, -0.5, math.nan])
def test_flip_must_be_a_probability(value):
    assert_refused(f"--flip must be a probability between 0 and 1, not {value}", flip=value)


def test_the_largest_seed_has_64_bits():
    check_values(seed=2**64 - 1)
    assert_refused("--seed", 2**64, "below 2**64", seed=2**64)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_means_must_be_finite(value):
    assert_refused(f"--mean must be finite, not 0.5 {value}", mean=(0.5, value))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"switch": 2}, ("--switch", "--regime switch")),
        ({"regime": "switch"}, ("--switch", "--regime switch")),
        ({"regime": "switch", "switch": 3, "steps": 3}, ("--switch 3", "--steps 3")),
        ({"trust_coefficient": 0.5}, ("--trust-coefficient 0.5", "--layer-rate")),
        ({"norm_target": 3.0}, ("--norm-target 3", "--norm-bias")),
        ({"norm_bias_type": "l1"}, ("--norm-bias-type l1", "--norm-bias")),
        ({"clip_type": "max"}, ("--clip-type max", "--clip")),
        ({"decay": 0.5}, ("--decay 0.5", "--schedule exponential")),
        ({"replacement": True}, ("--replacement", "stochastic")),
        ({"parts": 2, "regime": "stochastic"}, ("--parts 2", "--regime stochastic", "--regime full-batch")),
        ({"parts": 2, "drop_last": True}, ("--parts 2", "--drop-last leaves some out")),
        ({"parts": 2, "regime": "switch", "switch": 1}, ("--parts 2", "--regime switch", "--regime full-batch")),
        ({"draw": "norm-blocks"}, ("--draw norm-blocks", "add --regime stochastic")),
        ({"draw": "norm-blocks", "regime": "stochastic", "shuffle": False}, ("random order", "--shuffle False")),
        ({"draw": "norm-blocks", "regime": "stochastic", "max_up": 2}, ("--draw norm-blocks", "--max-up 2")),
        ({"parts": 2, "additive_noise": 1e-3}, ("--additive-noise", "--parts 1")),
        ({"parts": 2, "multiplicative_noise": 1e-3}, ("--multiplicative-noise", "--parts 1")),
        ({"rate_by": "update", "layer_rate": "larc"}, ("--layer-rate larc", "--rate-by step")),
        ({"policy_options": "num_ops=2"}, ("--policy-options 'num_ops=2'", "--policy")),
        ({"first_clean": True}, ("--first-clean", "--copies N")),
        ({"max_up": 2, "copies": 2}, ("--max-up", "--copies", "one of them")),
        ({"max_up": 2, "padding": 0, "flip": 0.0}, ("--max-up", "--padding", "--policy")),
        ({"max_up": 3}, ("--block 128", "divisible by --max-up 3")),
    ],
)
def test_values_that_do_not_go_together_are_refused(values, names):
    assert_refused(*names, **values)


@pytest.mark.parametrize(
    ("values", "others"),
    [
        ({"draw": "norm-blocks"}, ("--shuffle", "--max-up")),
        ({"parts": 2, "drop_last": True}, ("--regime",)),
        ({"parts": 2, "additive_noise": 1e-3}, ("--multiplicative-noise",)),
        ({"regime": "switch"}, ("does nothing",)),
    ],
)
def test_a_message_names_the_cause_at_hand_alone(values, others):
    with pytest.raises(ValueError, match=r"\S") as error:
        check_values(**values)
    assert not [other for other in others if other in str(error.value)]


def test_a_message_is_one_line():
    for name in (*FROM_ONE, *FROM_ZERO, *POSITIVE, *BELOW_ONE):
        with pytest.raises(ValueError, match=flag(name)) as error:
            check_values(**{name: -1})
        assert re.fullmatch(r"[^\n]+", str(error.value))
