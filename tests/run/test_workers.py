"""The same bits for any number of workers, slow ones included; workers that disagree refuse to start."""

from __future__ import annotations

import json

import jobs
import printed
import pytest
import worker_script

from noiseless.run import team

RECIPES = ("fb-clipped", "fb-strong", "fb-practice", "aggregated", "parts", "lbfgs", "tuned")


def _results(path, names):
    return {name: json.loads((path / f"{name}.json").read_text()) for name in names}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone")
    worker_script.main(path, RECIPES)
    return _results(path, RECIPES)


def _in_torchrun(path, recipes):
    job = jobs.Job(jobs.command(2, worker_script.__file__, str(path), *recipes), path / "log")
    assert job.wait() == 0, job.log.read_text()[-3000:]


def _in_copies(path, recipes):
    assert team.launch(3, [str(path), *recipes], restarts=0, program="worker_script") == 0


# torchrun only starts the workers in another way: the agent of _in_copies is its agent. This is its one command line
# in `make test`, since the three interpreters that it starts each import torch
@pytest.mark.parametrize(("start", "recipes"), [(_in_torchrun, ("fb-practice", "fb-strong")), (_in_copies, RECIPES)])
def test_digests_and_rows_do_not_depend_on_the_number_of_workers(alone, tmp_path, start, recipes):
    start(tmp_path, recipes)
    results = _results(tmp_path, recipes)
    for name in recipes:
        assert results[name]["rows"] == alone[name]["rows"], name
        assert results[name]["digest"] == alone[name]["digest"], name
    assert len({results[name]["digest"] for name in recipes}) == len(recipes)  # or the test would show nothing


def test_a_slow_worker_changes_nothing_and_holds_up_little(alone, tmp_path):
    # A step has 8 chunks of 2 blocks. A worker that takes 2 s longer a chunk would need 3 * 8 s for its half of three
    # steps; handed out one at a time it takes about one chunk a step.
    assert team.launch(2, [str(tmp_path), "fb-clipped", "slow=2.0"], restarts=0, program="worker_script") == 0
    result = _results(tmp_path, ["fb-clipped"])["fb-clipped"]
    assert result["digest"] == alone["fb-clipped"]["digest"]
    assert result["seconds"] < 3 * 8 - 4


def _refused(path, option):
    """What a job of two workers prints that fails, because `option` makes the last worker differ."""
    path.mkdir()
    code, out = printed.launch(2, path / "log", path, "fb-clipped", option, restarts=0, module="worker_script")
    assert code == 1
    return out


def test_workers_that_disagree_refuse_to_start(tmp_path):
    log = _refused(tmp_path / "job", "chunk_of_last=4")
    assert "the workers disagree" in log
    assert "--chunk: worker 0 has 2, worker 1 has 4" in log
    assert not (tmp_path / "job" / "fb-clipped").exists()


def test_workers_whose_parameters_differ_stop_the_run(tmp_path):
    log = _refused(tmp_path / "job", "spoil=1e-6")
    assert "the workers' parameters differ after step 1 (worker 0: " in log
    assert ", worker 1: " in log
    assert not (tmp_path / "job" / "fb-clipped" / "model.safetensors").exists()


LEAVING = """
from pathlib import Path
import torch
from noiseless.objective.team import Team

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

workers = Team()
workers.exchange("text")
torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], 0.1)
assert any("gloo" in name for name in threads()), threads()
workers.close()
assert not any("gloo" in name for name in threads()), threads()
"""


def test_no_thread_of_the_job_is_left_when_a_worker_has_closed_it(tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text(LEAVING)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert team.launch(2, [], restarts=0, program="leaving") == 0


LATE = """
import time
from datetime import timedelta
from noiseless.objective import team

team._TIMEOUT = timedelta(seconds=3)
team = team.Team()
if team.rank == 1:
    time.sleep(6)
assert team.any(team.rank == 1)
"""


def test_a_worker_may_take_longer_than_a_collective_waits(tmp_path, monkeypatch):
    (tmp_path / "late.py").write_text(LATE)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert team.launch(2, [], restarts=0, program="late") == 0


def test_more_workers_than_blocks_work_with_a_note(data, tmp_path):
    run_dir = tmp_path / "run"
    train = ("train", "fb", "--data", data, "--model", "resnet2", "--steps", 1, "--block", 48, "--threads", 1)
    code, out = printed.launch(2, tmp_path / "log", *train, "--run-dir", run_dir)
    assert code == 0, out
    assert "2 workers for 1 blocks in 1 chunks: 1 of them have nothing to do" in out
    assert (run_dir / "model.safetensors").exists()
