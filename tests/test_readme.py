"""What the README shows is run or looked up: examples, commands, links, figures."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import torch

from noiseless.cli import COMMANDS
from noiseless.commands.arguments import parse_config, take_count
from noiseless.recipes.ladder import LADDER

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    docs = [README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    lines = [found for text in docs for found in re.findall(r"^(?:\$ )?noiseless train (.*)$", text, re.MULTILINE)]
    assert len(lines) >= 8
    for line in lines:
        arguments = [word for word in shlex.split(line, comments=True) if word not in ("--help", "--again")]
        _, arguments = take_count(arguments, "--workers")
        parsed = parse_config(arguments, "train", "", data="digits")
        parsed.config.check()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_exist(page: Path) -> None:
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL))
    names = set(re.findall(r"(?:^|[;/ ])noiseless ([a-z]+)", blocks, re.MULTILINE))
    assert names <= set(COMMANDS), names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """Every relative link; in the pages of this repository, its heading too."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not heading or heading in _headings(target.read_text()), link


def test_the_readme_names_every_page_has_a_picture_and_is_short() -> None:
    links = re.findall(r"\]\((docs/[a-z]+\.md)\)", README)
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} == set(links)
    assert re.search(r"!\[[^\]]+\]\(docs/\S+\.png\)", README)
    assert len(README.splitlines()) <= 150


def test_the_readmes_ladder_is_that_of_its_page() -> None:
    table, page = (_between(text, "digits") for text in (README, (ROOT / "docs/ladder.md").read_text()))
    assert table == page
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == list(LADDER)


def _between(text: str, mark: str) -> str:
    (found,) = re.findall(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, re.DOTALL)
    return str(found)


def _headings(text: str) -> set[str]:
    """Anchors of a page, as GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
