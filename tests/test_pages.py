"""The blocks of code of each page run in order, as a reader copies them: Python of all pages, commands of the how-tos.

A block after the line `<!-- not run: REASON -->` is compiled only. Commands of the other pages, and of a block after
`<!-- run smaller: REASON -->`, run in test_page_commands.py.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hub_server import TOKEN, hub
from huggingface_hub import constants
from page_commands import FENCE
from small_runs import arrays, call
from torch import nn

from noiseless import EmpiricalRisk, GradientPenalty, classifying, models
from noiseless.optim import LINE_SEARCHES, OPTIMIZERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_RUN = {"clusters.md": 2, "index.md": 1, "howto/machines.md": 1, "howto/finetuning.md": 1, "howto/gpus.md": 2}
"""Downloads; Ray and Lightning, which `make clusters` runs; pip, which `make dist` runs; a job on two machines; GPUs"""
ELSEWHERE = ("analyses.md", "data.md", "library.md", "losses.md")  # tests of these compare what the examples compute
COMMANDS = ("index.md", "howto/")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    mark: str
    """not run, run smaller, or nothing"""


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    fences = FENCE.findall((DOCS / page).read_text())
    return [Block(language, code, mark.removeprefix("<!-- ").partition(":")[0]) for mark, language, code in fences]


PAGES = {path.relative_to(DOCS).as_posix(): blocks(path.relative_to(DOCS).as_posix()) for path in DOCS.rglob("*.md")}


def runnable(page: str) -> list[Block]:
    languages = ("python", "sh") if page.startswith(COMMANDS) else ("python",)
    return [block for block in PAGES[page] if not block.mark and block.language in languages]


def test_the_blocks_that_are_not_run_are_counted() -> None:
    assert Counter(page for page, all_ in PAGES.items() for block in all_ if block.mark == "not run") == NOT_RUN
    for page, all_ in PAGES.items():
        marks = len(re.findall("<!-- (?:not run|run smaller)", (DOCS / page).read_text()))
        assert marks == sum(block.mark != "" for block in all_), f"{page}: a mark that no block follows"
        for block in all_:
            if block.language == "python":
                compile(block.code, page, "exec")


def linear() -> dict[str, Any]:
    """What a page calls the reader's model and data."""
    images, labels = torch.randn(130, 1, 4, 4), torch.arange(130) % 3
    return {"torch": torch, "model": nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "images": images, "labels": labels}


def checkpoints() -> dict[str, Any]:
    """Files as docs/checkpoints.md names them."""
    np.savez("small.npz", **arrays())
    settings = "--data npz:small.npz --model resnet8 --block 16 --steps 1 --run-dir digits-run"
    for command in (f"train fb {settings}", "export digits-run digits-model", "export digits-run exported"):
        assert call(*command.split()).code == 0
    torch.save(models.build("resnet18", 3, 10).state_dict(), "resnet18.pth")
    return {"images": torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)}


def machines() -> dict[str, Any]:
    """A model, a loss and data, for a program in a job of torchrun."""
    names = linear()
    return names | {"loss": nn.CrossEntropyLoss(), "data": (names["images"], names["labels"])}


@pytest.fixture
def _hub(monkeypatch):
    """The Hub as a server on loopback."""
    with hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield


@contextlib.contextmanager
def job() -> Iterator[None]:
    """The environment of a worker of torchrun that is alone in its job."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def modules() -> dict[str, Any]:
    """What docs/modules.md calls the two sides of the comparison."""
    module, data = nn.Linear(4, 3), (torch.randn(9, 4).double(), torch.arange(9) % 3)
    shared = {"EmpiricalRisk": EmpiricalRisk, "GradientPenalty": GradientPenalty, "V": torch.randn(1, 15).double()}
    return {**shared, "module": module, "data": data, "loss": classifying(nn.CrossEntropyLoss(reduction="none"))}


def perceptron() -> dict[str, Any]:
    """The model and data of docs/curvature.md."""
    x = torch.randn(150, 8)
    layers = nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
    return {"model": nn.Sequential(*layers), "loss": nn.CrossEntropyLoss(), "x": x, "y": torch.arange(150) % 3}


READER = {"landscapes.md": linear, "edge.md": linear, "sharpness.md": linear, "optimizers.md": linear,
          "modules.md": modules, "curvature.md": perceptron, "checkpoints.md": checkpoints, "security.md": checkpoints,
          "howto/machines.md": machines}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub 2.4 with httpx2
@pytest.mark.parametrize("page", sorted(page for page in PAGES if page not in ELSEWHERE and runnable(page)))
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch, _hub):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for registry in (OPTIMIZERS, LINE_SEARCHES):  # a page may add to them
        for name in ("SignDescent", "parabola"):
            monkeypatch.setitem(registry, name, None)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": __name__, **READER.get(page, dict)()}
    for number, (language, code, _) in enumerate(runnable(page), 1):
        where = f"{page}, block {number}"
        if language == "sh":
            for line in re.sub(r"\\\n", " ", code).splitlines():
                program, *words = shlex.split(line, comments=True) or ("noiseless",)
                assert program == "noiseless", f"{where}: {line}"
                if words:
                    answer = call(*words)
                    assert answer.code == 0, f"{where}: {line}\n{answer.out}{answer.err}"
        else:
            with (
                contextlib.redirect_stdout(None),
                job() if "Team()" in code or "init_process_group" in code else contextlib.nullcontext(),
            ):
                exec(compile(code.replace("path/of/the/checkout", str(ROOT)), where, "exec"), names)
    from matplotlib import pyplot

    pyplot.close("all")
