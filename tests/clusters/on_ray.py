"""A run on a real Ray cluster of two nodes on this machine: one node is lost with its worker, and the run goes on.

Ray Train makes the process group; `train` is called in its workers. The digest is that of an undisturbed local run.
PyPI: pip install "ray[train]"
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from short_run import ARGUMENTS, ENVIRONMENT, compare, local_digest, rows, wait_for

try:
    import pyarrow  # noqa: F401  which Ray Train needs
    import ray
    from ray.cluster_utils import Cluster
except ImportError as error:
    MISSING = str(error)
else:
    MISSING = ""

VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    "RAY_worker_niceness": "0",  # by default 15, which starves on a busy machine
}
"""of Ray; its defaults are for machines with more cores"""
STEPS_BEFORE = 2
"""steps that two workers do before a node is lost"""


def work(config: dict[str, Any]) -> None:
    """Trains in a worker of Ray Train; two workers write down that there are two."""
    from torch import distributed

    from noiseless import cli

    if distributed.get_world_size() == 2:
        Path(config["run"]).with_name("two-workers").touch()
    code = cli.run(["train", *ARGUMENTS, "--run-dir", config["run"], "--again"])
    if code:
        raise RuntimeError(f"noiseless has ended with {code}")


def main() -> int:
    """Returns 0 for equal digests, 2 where Ray is not installed."""
    if MISSING:
        print(f'on_ray: Ray is not installed for {sys.executable} ({MISSING}): pip install "ray[train]"')
        return 2
    os.environ |= ENVIRONMENT | VARIABLES  # of the nodes and their workers
    with TemporaryDirectory(prefix="on-ray-") as name:
        run = Path(name) / "run"
        expected = local_digest(Path(name))
        small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        head = small | {"node_ip_address": "127.0.0.2", "include_dashboard": False}  # Ray would replace 127.0.0.1
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            second = cluster.add_node(**small, node_ip_address="127.0.0.3")
            ray.init(address=cluster.address)
            losing = threading.Thread(target=lambda: _lose(cluster, second, run), daemon=True)
            losing.start()
            _train(run, Path(name) / "ray")
            losing.join(10)
            if losing.is_alive() or not (Path(name) / "two-workers").exists():
                print("on_ray: the run has ended before a node was lost")
                return 1
            return compare("Ray", run, expected, "two workers, one lost with its node, the run went on with one")
        finally:
            ray.shutdown()
            cluster.shutdown()


def _train(run: Path, storage: Path) -> None:
    """Trains with one or two workers, whichever number of nodes there is; failures start the workers again."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(
        work,
        train_loop_config={"run": str(run)},
        scaling_config=ScalingConfig(num_workers=(1, 2), resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="noiseless", storage_path=str(storage), failure_config=FailureConfig(max_failures=5)),
    ).fit()


def _lose(cluster: Cluster, node: Any, run: Path) -> None:
    """Kills a node with its worker in the middle of a step of two workers."""
    wait_for("two workers have done some steps", lambda: rows(run) >= STEPS_BEFORE)
    wait_for("a step is under way", lambda: any((run / "snapshots").glob("*.partial")))
    cluster.remove_node(node, allow_graceful=False)
    print(f"on_ray: a node and its worker are lost in step {rows(run)}")


if __name__ == "__main__":
    sys.exit(main())
