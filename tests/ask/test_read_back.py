"""Every answer that a question writes is read back by a report, whatever was asked."""

from __future__ import annotations

import pytest
from small_runs import call, copy, run, small_recipe

from noiseless.files import answers
from noiseless.report import contents, summary

QUESTIONS = {
    "sharpness": ["--largest 0 --trace 6", "--largest 0 --smallest 1 --of objective", "--batch-norm running --most 2",
                  "--largest 0 --density --probes 1 --steps 2 --preconditioned",
                  "--of layer --curvature ggn --trace 6 --tolerance 0.1", "--of layer --largest 0 --trace 6",
                  "--of *.bias --curvature empirical-fisher --density --probes 1 --steps 2 --most 2"],
    "noise": ["", "--sizes 1", "--shuffle --block 2"],
    "weights": [""],
    "flatness": ["--most 4 --tolerance 0", "--most 4 --normalised none --batch-norm running"],
    "landscape": ["--points 2 --no-penalised", "--points 2x2", "--axes pca --points 2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "run"
    recipe = small_recipe(
        data, "fb-regularized", model="linear", optimizer="Adam", lr=0.01, momentum=None, nesterov=None
    )
    return run(path, recipe, keep_every=1)


@pytest.mark.parametrize("state", ["", "@0", "@1"])
@pytest.mark.parametrize(("question", "flags"), [(q, flags) for q, several in QUESTIONS.items() for flags in several])
def test_what_a_question_answers_is_read_back_by_a_report(asked, tmp_path, question, flags, state):
    if (state and "pca" in flags) or (state == "@0" and "preconditioned" in flags):
        pytest.skip("there are too few states before this one")
    directory = copy(asked, tmp_path / "run")
    answer = call(question, f"{directory.path}{state}", *flags.split())
    assert answer.code == 0, answer
    assert [read.kind for read in answers.read(directory)] == [{"weights": "layers"}.get(question, question)]
    contents.sections(summary.by_recipe(summary.read([directory])))
    assert answer.err == ""
