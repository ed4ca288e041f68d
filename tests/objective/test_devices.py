"""Workers on devices: none far ahead of its own, and CPUs and GPUs never in one sum."""

from __future__ import annotations

import pytest
import torch

from noiseless.objective.devices import AHEAD, Ahead
from noiseless.run import team

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


def test_devices_of_two_kinds_are_refused_by_both_workers(tmp_path, monkeypatch):
    """Two processes over gloo. A sum on torch's meta device, which has no values, stands for one on a GPU."""
    (tmp_path / "mixed.py").write_text(WORKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    for kinds, place in (("cpu,cpu", tmp_path / "equal"), ("cpu,meta", tmp_path / "unequal")):
        place.mkdir()
        assert team.launch(2, [kinds, str(place)], restarts=0, program="mixed") == 0
    assert [(tmp_path / "equal" / str(rank)).read_text() for rank in (0, 1)] == ["True", "True"]
    lines = [(tmp_path / "unequal" / str(rank)).read_text() for rank in (0, 1)]
    assert [line.partition(" and another")[0] for line in lines] == [
        "worker 0 computes on cpu", "worker 1 computes on meta",
    ]  # fmt: skip
    assert all("move all models to GPUs, or all to CPUs" in line for line in lines)
