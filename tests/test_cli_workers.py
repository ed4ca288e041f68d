"""Questions about several steps have the same bits for two workers as for one."""

from __future__ import annotations

import json

import pytest
from small_runs import call, copy, run, small_recipe

QUESTIONS = {
    "edge": (),
    "sharpen": ("--steps", 2),
    "flow": ("--steps", 2),
    "decompose": ("--batches", 12, "--orders", 3, "--lr", 0.05),
}
COSTS = ("seconds",)
"""values that are measured times"""


@pytest.fixture(scope="module")
def descent(data, tmp_path_factory):
    recipe = small_recipe(
        data, "fb", model="linear", steps=4, block=16, augment="none", momentum=0, schedule="constant", warmup=0,
        lr=0.02,
    )  # fmt: skip
    return run(tmp_path_factory.mktemp("descent") / "run", recipe, keep_every=1)


@pytest.mark.soak  # a job of two processes imports torch twice: some 10 seconds of processor time a question
@pytest.mark.parametrize("question", QUESTIONS)
def test_two_workers_write_the_same_bits(descent, question, tmp_path):
    answers = []
    for workers in (1, 2):
        directory = copy(descent, tmp_path / f"{workers}")
        done = call(question, f"{directory.path}@1", *QUESTIONS[question], "--workers", workers)
        assert done.code == 0, done.err
        (path,) = (directory.path / "analysis").glob(f"{question}-*.json")
        answers.append(
            {name: value for name, value in json.loads(path.read_text())["found"].items() if name not in COSTS}
        )
    assert answers[0] == answers[1]
    assert len(answers[0]) > 5
