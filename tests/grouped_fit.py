"""A process of a group that is made by hand, in which `fit` trains; prints the digest.

Arguments: the group's file, rank, number of processes, and `alone` for an error of the last process alone.
"""

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from problems import perceptron, points

import noiseless


def train(run_dir: str | None = None) -> str:
    """The digest of three steps of three blocks."""
    loss = torch.nn.CrossEntropyLoss()
    return noiseless.fit(
        perceptron(), loss, points(), optimizer="SGD", lr=0.2, steps=3, block=4, run_dir=run_dir
    ).digest


if __name__ == "__main__":
    file, rank, count, *options = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{file}", timedelta(seconds=90), int(count), int(rank))
    if options:
        noiseless.fit(perceptron(), torch.nn.CrossEntropyLoss(), points(), steps=3, lr=-1.0 if rank == "1" else 0.1,
                      optimizer="SGD")  # fmt: skip
    print(train(), train(f"{file}-run"))
    dist.barrier()  # the group is as it was
    dist.destroy_process_group()
