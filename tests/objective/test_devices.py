"""Workers on devices: none far ahead of its own, and CPUs and GPUs never in one sum."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from noiseless.objective.devices import AHEAD, Ahead

WORKER = """
import sys
import torch
from noiseless.objective.partial import Partial
from noiseless.run import team

workers = team.join(lambda: False)
kinds = sys.argv[1].split(",")
partial = Partial.empty({"gradient": 3}, {"loss": 1}, 4, 4, torch.device(kinds[workers.rank]))
try:
    print(workers.rank, "computes", len(list(workers.share(partial))) >= 0)
except ValueError as error:
    print(error)
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
def test_devices_of_two_kinds_are_refused_by_both_workers(kinds):
    """Two processes over gloo. A sum on torch's meta device, which has no values, stands for one on a GPU."""
    job = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*job, sys.executable, "-c", WORKER, kinds], capture_output=True, text=True, check=True, timeout=100
    )
    lines = sorted(line for line in done.stdout.splitlines() if "computes" in line)
    if kinds == "cpu,cpu":
        assert lines == ["0 computes True", "1 computes True"]
    else:
        assert [line.partition(" and another")[0] for line in lines] == [
            "worker 0 computes on cpu", "worker 1 computes on meta",
        ]  # fmt: skip
        assert all("move all models to GPUs, or all to CPUs" in line for line in lines)
