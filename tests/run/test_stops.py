"""A run that is stopped before any chunk of any sweep resumes to the bits of one that was never stopped."""

from __future__ import annotations

from itertools import count

import pytest
from small_runs import record, resume, small_recipe

from noiseless.data import Images
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.objective.workers import Alone
from noiseless.optim import take_step
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.run import within
from noiseless.run.build import build
from noiseless.run.train import Interrupted, Progress, train


def _recipe(kind, data):
    if kind == "lbfgs":  # many sweeps, each of them a stop: the smallest model
        recipe = small_recipe(
            data, "fb", model="linear", optimizer="LBFGS", lr=0.5, schedule="constant", steps=2, warmup=0
        )
        return with_flags(recipe, momentum=None, nesterov=None, weight_decay=None, optimizer_options="max_iter=3")
    if kind == "two-sweeps":
        return small_recipe(data, "fb-practice", steps=2, block=24, full_penalty=0.3, ema=0.5)
    if kind == "parts":
        return small_recipe(data, "fb-clipped", steps=2, parts=2, block=12)
    # sgd has a warm-up: at its first step the parameters stay where they are, but momentum and buffers do not
    return small_recipe(data, kind, steps=2)


def _run(path, recipe, chunks, **settings):
    """Trains a run that stops before chunk number `chunks`; returns its directory and whether it stopped."""
    polls = count()
    workers = Alone(lambda: next(polls) >= chunks)
    experiment = build(Config(recipe, Settings(threads=1, chunk=1, **settings)), workers, path)
    directory = RunDirectory(path)
    with directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, ["test"])):
        try:
            train(experiment, directory, Progress())
        except Interrupted as stopped:
            assert f"go on with: noiseless resume {path}" in str(stopped)
            return directory, True
    return directory, False


@pytest.mark.parametrize("kind", ["fb-practice", "sgd", "parts", "lbfgs", "two-sweeps"])
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


def _resumed(directory, counted):
    """Resumes a run to its end, and counts the training images that are taken."""
    with pytest.MonkeyPatch.context() as patch:
        take = Images.take

        def counting(self, index):
            counted.append(index.numel())
            return take(self, index)

        patch.setattr(Images, "take", counting)
        assert resume(directory) == []


@pytest.mark.parametrize("kind", ["sgd", "parts"])
def test_a_step_of_many_updates_goes_on_after_those_that_are_done(kind, data, tmp_path):
    recipe = _recipe(kind, data)
    directory, _ = _run(tmp_path / "whole", recipe, 10**9, layers_every=1)
    expected, taken = record(directory), []
    # A stop is looked for before each chunk and after each step. This one comes at the last chunk of the second step:
    # 2 of sgd's 3 updates of one chunk are done; one of 2 parts of two chunks, and a chunk of the other in a snapshot.
    directory, stopped = _run(tmp_path / "run", recipe, 6 if kind == "sgd" else 8, layers_every=1)
    assert stopped
    assert len(directory.rows()) == 1
    assert within.read(directory).step == 1
    assert len(within.read(directory).done) == (2 if kind == "sgd" else 1)
    _resumed(directory, taken)
    assert record(directory) == expected
    # to count the work, for the self-check, the last chunk, and the test images
    assert taken == [1, 8, 16 if kind == "sgd" else 12, 20]


def test_a_run_killed_within_a_step_goes_on_from_the_newest_update(data, tmp_path, monkeypatch):
    recipe = small_recipe(data, "sgd", steps=2)
    directory, _ = _run(tmp_path / "whole", recipe, 10**9)
    expected = record(directory)
    calls = count()

    def killed(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr("noiseless.run.train.take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "run", recipe, 10**9, checkpoint_seconds=1e-9)
    monkeypatch.undo()
    directory = RunDirectory(tmp_path / "run")
    assert len(within.read(directory).done) == 2
    resume(directory)
    assert record(directory) == expected
    assert not (directory.path / "within").exists()


def test_a_damaged_state_within_a_step_is_passed_over(data, tmp_path):
    recipe = small_recipe(data, "sgd", steps=2)
    directory, _ = _run(tmp_path / "whole", recipe, 10**9)
    expected = record(directory)
    directory, _ = _run(tmp_path / "run", recipe, 5)
    (file,) = (directory.path / "within").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    resume(directory)
    assert record(directory) == expected
