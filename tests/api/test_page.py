"""The examples of docs/analyses.md run, one after the other, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot
from PIL import Image

import noiseless
from noiseless import api

PAGE = (Path(__file__).parents[2] / "docs/analyses.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names: dict = {}
    for example in EXAMPLES:
        exec(compile(example, "analyses.md", "exec"), names)
    pyplot.close("all")
    top, noise, trained = names["top"], names["noise"], names["trained"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [repr(top), str(top.value)]
    assert repr(noise) in printed
    assert noise.block == 8
    assert top.block == 128
    assert repr(trained) in printed
    assert (tmp_path / "runs/mine/report.html").exists()
    assert trained.validation.accuracy > 0.5  # chance is 1/3
    with Image.open("landscape.png") as picture:
        assert picture.size == (1100, 400)


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if line.startswith("| `") and "(model" in line])
def test_the_table_names_the_calls_and_the_fields(line):
    call, result, fields = (re.findall(r"`([^`]+)`", cell) for cell in line.strip("| ").split("|"))
    function = getattr(noiseless, call[0].partition("(")[0])
    assert [function.__annotations__["return"]] == result
    made = getattr(api, result[0])
    shared = {"examples", "block", "training", "passes"}
    own = set(made.__dataclass_fields__) - shared | ({"value"} if hasattr(made, "value") else set())
    assert set(fields) == own
