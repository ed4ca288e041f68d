"""Workers on devices: none far ahead of its own, and CPUs and GPUs never in one sum."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from noiseless.objective.devices import AHEAD, Ahead

WORKER = """
import sys
from pathlib import Path
import torch
from noiseless.objective.partial import Partial
from noiseless.run import team

workers = team.join(lambda: False)
kinds = sys.argv[1].split(",")
partial = Partial.empty({"gradient": 3}, {"loss": 1}, 4, 4, torch.device(kinds[workers.rank]))
try:
    told = f"{len(list(workers.share(partial))) <= 4}"
except ValueError as error:
    told = str(error)
(Path(sys.argv[2]) / str(workers.rank)).write_text(told)
workers.close()
"""


class Queue:
    """Events of a device that is slow: it comes to one only when it is waited for."""

    def __init__(self):
        self.recorded, self.done, self.most = 0, 0, 0

    def record(self):
        self.recorded += 1
        self.most = max(self.most, self.recorded - self.done)

    def synchronize(self):
        self.done += 1


@pytest.mark.parametrize(("device", "most"), [("cuda", AHEAD + 1), ("cpu", 0)])
def test_a_worker_is_not_far_ahead_of_its_device(device, most):
    queue = Queue()
    ahead = Ahead(torch.device(device), lambda: queue)
    for _ in range(10):
        ahead.sent()
        assert queue.recorded - queue.done <= AHEAD
    assert queue.most == most


@pytest.mark.parametrize("kinds", ["cpu,cpu", "cpu,meta"])
def test_devices_of_two_kinds_are_refused_by_both_workers(kinds, tmp_path):
    """Two processes over gloo. A sum on torch's meta device, which has no values, stands for one on a GPU."""
    job = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    program = [sys.executable, "-c", WORKER, kinds, str(tmp_path)]
    subprocess.run([*job, *program], capture_output=True, check=True, timeout=300)
    lines = [(tmp_path / str(rank)).read_text() for rank in (0, 1)]
    if kinds == "cpu,cpu":
        assert lines == ["True", "True"]
    else:
        assert [line.partition(" and another")[0] for line in lines] == [
            "worker 0 computes on cpu", "worker 1 computes on meta",
        ]  # fmt: skip
        assert all("move all models to GPUs, or all to CPUs" in line for line in lines)
