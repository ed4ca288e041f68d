"""A run that is stopped before any chunk of any sweep resumes to the bits of one that was never stopped."""

from __future__ import annotations

from itertools import count

import pytest
from small_runs import record, resume, small_recipe

from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.objective.workers import Alone
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.run.build import build
from noiseless.run.train import Interrupted, Progress, train


def _recipe(kind, data):
    if kind == "lbfgs":
        recipe = small_recipe(data, "fb", optimizer="LBFGS", lr=0.5, schedule="constant", steps=2, warmup=0)
        return with_flags(recipe, momentum=None, nesterov=None, weight_decay=None, optimizer_options="max_iter=3")
    if kind == "two-sweeps":
        return small_recipe(data, "fb-practice", steps=2, block=24, full_penalty=0.3, ema=0.5)
    # sgd has a warm-up: at its first step the parameters stay where they are, but momentum and buffers do not
    return small_recipe(data, kind, steps=2)


def _run(path, recipe, chunks):
    """Trains a run that stops before chunk number `chunks`; returns its directory and whether it stopped."""
    polls = count()
    experiment = build(Config(recipe, Settings(threads=1, chunk=1)), Alone(lambda: next(polls) >= chunks), path)
    directory = RunDirectory(path)
    with directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, ["test"])):
        try:
            train(experiment, directory, Progress())
        except Interrupted as stopped:
            assert f"go on with: noiseless resume {path}" in str(stopped)
            return directory, True
    return directory, False


@pytest.mark.parametrize("kind", ["fb-practice", "sgd", "lbfgs", "two-sweeps"])
def test_a_stop_before_any_chunk_changes_no_bit(kind, data, tmp_path):
    recipe = _recipe(kind, data)
    directory, stopped = _run(tmp_path / "whole", recipe, 10**9)
    assert not stopped
    expected = record(directory)
    for chunks in count():
        directory, stopped = _run(tmp_path / f"after-{chunks}", recipe, chunks)
        if not stopped:
            break
        resume(directory)
        assert record(directory) == expected, f"stopped after {chunks} chunks"
    assert chunks >= 2 * 3  # 3 blocks, 2 steps: the loop has stopped before each of them
