"""Several torchrun agents, as on several nodes: one is lost, the others go on to the same digest."""

from __future__ import annotations

import os
import signal
import sys
import time

import jobs
import pytest

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory

TRAIN = ["-m", "noiseless", "train", "fb-strong", "--steps", "8", "--chunk", "4", "--threads", "1"]
TRAIN += ["--snapshot-seconds", "0.2"]


def _agent(node, run_dir, log):
    rendezvous = ["--rdzv-id", "nodes", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:29551"]
    rendezvous += ["--rdzv-conf", f"last_call_timeout=3,is_host={int(node == 0)}", "--local-addr", "127.0.0.1"]
    job = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:3", "--nproc-per-node", "1"]
    return jobs.Job([*job, "--max-restarts", "5", *rendezvous, *TRAIN, "--run-dir", str(run_dir), "--again"], log)


@pytest.mark.soak
def test_a_lost_node_does_not_change_the_digest(tmp_path):
    alone = jobs.Job([sys.executable, *TRAIN, "--run-dir", str(tmp_path / "alone")], tmp_path / "alone.log")
    assert alone.wait() == 0
    run_dir, agents = tmp_path / "run", []
    for node in range(3):
        agents.append(_agent(node, run_dir, tmp_path / f"{node}.log"))
        time.sleep(1 if node == 0 else 0)  # the first agent hosts the rendezvous
    agents[0].until(lambda: (run_dir / "snapshots").is_dir() and any((run_dir / "snapshots").iterdir()))
    lost = agents[2]
    for worker in lost.workers():
        os.kill(worker, signal.SIGKILL)
    lost.process.kill()
    lost.wait()
    assert [agent.wait() for agent in agents[:2]] == [0, 0], agents[0].log.read_text()[-3000:]
    text = agents[0].log.read_text() + agents[1].log.read_text()
    assert "3 workers" in text
    assert "2 workers" in text
    digests = [checkpoint.digest(RunDirectory(path).state()) for path in (run_dir, tmp_path / "alone")]
    assert digests[0] == digests[1]
