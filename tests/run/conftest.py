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
