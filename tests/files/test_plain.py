"""Plain values: JSON with limits, seals, types; files that are files."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseless.plain import NotPlainError, parse, read_file, sealed, typed, unsealed
from noiseless.recipes.config import Config
from noiseless.recipes.ladder import RECIPES, row

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass(frozen=True)
class Part:
    number: float
    kind: Literal["a", "b"]
    sizes: tuple[int, ...] | None


@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), PLAIN, max_size=4))
def test_what_is_sealed_is_read_back(values):
    assert unsealed(parse(json.dumps(sealed(values)))) == values


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_one_error(content):
    try:
        parse(content)
    except NotPlainError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[" * 100_000, "nested too deep"),
        ("[" * 80 + "]" * 80, "deeper than 64"),
        ('{"a":' * 900 + "1" + "}" * 900, "deeper than 64"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        ("1" + "0" * 400, "beyond what a float"),
        ("-1" + "0" * 5000, "beyond what a float"),
        ("1e999", "beyond what a float"),
        ("NaN", "not finite"),
        ("{", "not JSON"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_content_beyond_the_limits_is_refused_with_the_reason(content, problem):
    with pytest.raises(NotPlainError, match=problem):
        parse(content)


def test_numbers_beyond_a_float_are_infinite_where_these_are_read():
    assert parse(f"[1e999, -1{'0' * 320}, Infinity]", finite=False) == [math.inf, -math.inf, math.inf]
    assert math.isnan(parse("NaN", finite=False))
    assert parse(str(2**63)) == 2**63


def test_a_flipped_bit_does_not_fit_the_seal():
    content = json.dumps(sealed({"choice": "full-batch", "seed": 0, "rate": 0.1})).encode()
    for offset in range(len(content)):
        for bit in range(8):
            other = content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :]
            try:
                assert unsealed(parse(other)) == unsealed(parse(content))  # "E" for "e" in the seal's own digits or so
            except NotPlainError:
                continue


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"number": True, "kind": "a", "sizes": None}, "part.number must be a number, not True"),
        ({"number": "1", "kind": "a", "sizes": None}, "part.number must be a number, not '1'"),
        ({"number": 1, "kind": "c", "sizes": None}, "part.kind must be one of a, b, not 'c'"),
        ({"number": 1, "kind": ["a"], "sizes": None}, "part.kind must be one of a, b, not a list of 1"),
        ({"number": 1, "kind": "a", "sizes": [1, 2.5]}, r"part.sizes\[1\] must be a whole number, not 2.5"),
        ({"number": 1, "kind": "a", "sizes": 3}, "part.sizes must be a list, not 3"),
        ({"number": 1, "kind": "a"}, "part lacks sizes"),
        ([], "part lacks number, kind, sizes"),
    ],
)
def test_a_value_of_another_type_is_named(value, problem):
    with pytest.raises(NotPlainError, match=problem):
        typed(Part, value, "part")


def test_a_value_of_the_type_is_made():
    assert typed(Part, {"number": 1, "kind": "b", "sizes": [1, 2]}, "part") == Part(1, "b", (1, 2))


@pytest.mark.parametrize("name", RECIPES)
def test_the_config_of_every_recipe_is_read_back(name):
    config = Config(row(name))
    assert Config.from_json(json.loads(json.dumps(config.as_json()))) == config


def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it for reading would wait for a writer
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="not a regular file but a device or pipe"):
            read_file(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
