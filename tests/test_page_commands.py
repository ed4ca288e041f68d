"""The command lines of README and docs run, smaller (page_commands.py says how); of how-tos: test_pages.py."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import jobs
import page_commands
import pytest
from page_commands import ELSEWHERE, LONG, PAGES, STUDIES, beginning, lines, smaller
from small_runs import call

from noiseless import trust

EXACT = ("index.md", "howto/")
"""pages whose unmarked blocks test_pages.py runs as they stand"""
CHEAP = ("augmentation", "clusters", "compare", "data", "gallery", "landscapes", "optimizers", "security", "watching")
"""pages whose commands take seconds; the others are for `make soak`"""
WITH_COMMANDS = [page for page in PAGES if lines(page, marked=page.startswith(EXACT))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("reader")
    page_commands.prepare(place)
    return place


@pytest.fixture
def reader(prepared, tmp_path, monkeypatch):
    """The working directory of a reader, who has the files that pages name."""
    place = tmp_path / "reader"
    shutil.copytree(prepared, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("reader", "small_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        trust.permit(name)
    return place


def run_page(page, place, soak):
    for code in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", PAGES[page].read_text(), re.S):
        (place / code[1]).write_text(code[0])
    if "resnet18" in PAGES[page].read_text():
        page_commands.resnet(place, "resnet18" if soak else "resnet8")
    if soak and "runs/race-digits" in PAGES[page].read_text():
        race = "race --model linear --contenders sgd,fb,adamw --budgets 2 --seeds 2 --rates 1 --tuning-seeds 1"
        assert call(*race.split(), "--run-dir", "runs/race-digits").code == 0
    assert not (failed := page_commands.failures(page, soak, page.startswith(EXACT))), "\n".join(failed)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=() if Path(page).stem in CHEAP else pytest.mark.soak) for page in WITH_COMMANDS]
)
def test_the_commands_of_a_page_run(page, reader):
    run_page(page, reader, soak=False)


@pytest.mark.soak
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_with_their_models_and_workers(page, reader):
    run_page(page, reader, soak=True)


def test_every_exception_is_a_line_of_a_page():
    every = [line for page in PAGES for line in lines(page)]
    for table in (ELSEWHERE, STUDIES, LONG):
        assert {beginning(line, table) for line in every} - {None} == {*table}


@pytest.mark.soak
def test_the_jobs_of_torchrun_run_with_two_workers(reader):
    every = [line for page in PAGES for line in lines(page) if line.startswith("torchrun --nproc-per-node")]
    assert every
    for k, line in enumerate(every):
        words = smaller(line[line.index("noiseless") :], soak=True)
        words[words.index("--run-dir") + 1] = str(reader / f"job-{k}")
        job = jobs.Job(jobs.command(2, "-m", "noiseless", *words), reader / "log")
        assert job.wait() == 0, job.log.read_text()[-3000:]
