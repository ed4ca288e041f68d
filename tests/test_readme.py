"""What the README shows is run: its regression example, and the names it imports."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import torch

from noiseless.commands.arguments import parse_config, take_count

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_regression_example_minimises() -> None:
    (code,) = [example for example in EXAMPLES if "LBFGS" in example]
    assert len(code.splitlines()) < 20
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})  # the README's own text
    found = re.search(r"before: ([\d.]+)\nafter:  ([\d.]+)", printed.getvalue())
    assert found is not None
    before, after = float(found[1]), float(found[2])
    # the targets carry noise of variance 0.01: no function fits the sine much below that with 97 parameters
    assert before > 0.3
    assert 0.005 < after < 0.02


def test_the_five_lines_run() -> None:
    (code,) = [example for example in EXAMPLES if "GradientPenalty" in example]
    lines = [line for line in code.splitlines() if line and "import" not in line]
    assert len(lines) <= 5
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    images, labels = torch.randn(130, 1, 4, 4), torch.arange(130) % 3
    names = {"torch": torch, "model": model, "images": images, "labels": labels}
    before = model[1].weight.detach().clone()
    exec(compile(code.replace("range(100)", "range(2)"), "README.md", "exec"), names)
    step = names["step"]
    assert step.passes == pytest.approx(2)  # type: ignore[attr-defined]
    assert not torch.equal(before, model[1].weight)


def test_the_commands_that_train_are_understood() -> None:
    docs = [README, *(path.read_text() for path in (Path(__file__).parents[1] / "docs").glob("*.md"))]
    lines = [found for text in docs for found in re.findall(r"^(?:\$ )?noiseless train (.*)$", text, re.MULTILINE)]
    assert len(lines) >= 8
    for line in lines:
        arguments = [word for word in shlex.split(line, comments=True) if word not in ("--help", "--again")]
        _, arguments = take_count(arguments, "--workers")
        parsed = parse_config(arguments, "train", "", data="digits")
        parsed.config.check()


def test_every_file_that_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
