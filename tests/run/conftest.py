"""Fixtures that the tests of run/ share: tiny data, and runs that were never disturbed."""

import pytest
import small_runs


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The value of --data for the tiny set."""
    return small_runs.npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="session")
def practice(data, tmp_path_factory):
    """A finished run of fb-practice, evaluated at each step, with a checkpoint after each."""
    path = tmp_path_factory.mktemp("runs") / "practice"
    return small_runs.run(path, small_runs.small_recipe(data), checkpoint_seconds=0, keep=9, evaluate_every=2)


@pytest.fixture(scope="session")
def kept(data, tmp_path_factory):
    """A finished run of 4 steps with a penalty, each of its states kept."""
    path = tmp_path_factory.mktemp("runs") / "kept"
    return small_runs.run(path, small_runs.small_recipe(data, "fb-regularized", steps=4), keep_every=1)


@pytest.fixture
def mine(kept, tmp_path):
    """A copy of it, without answers."""
    return small_runs.copy(kept, tmp_path / "run")
