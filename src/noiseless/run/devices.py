"""The device of a run, and what the same bits each time need on a GPU: deterministic operations, or none."""

from __future__ import annotations

import os
import re

import torch

from noiseless.objective import EmpiricalRisk
from noiseless.run.portability import try_block

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""environment variable that cuBLAS reads when it starts"""
WORKSPACES = (":4096:8", ":16:8")
"""its values with which matrix products have the same bits each time (cuBLAS, "Results Reproducibility")"""
REMEDIES = {
    "max_pool": "use MaxPool2d with a fixed window",
    "max_unpool": "upsample by nearest, torch.nn.Upsample(scale_factor=2)",
    "avg_pool": "use AvgPool2d with a fixed window, or the mean over the pixels",
    "pad": "use noiseless.models.layers.pad, or padding with zeros",
    "upsample": "upsample by nearest",
    "grid_sampler": "do it in the data set, on the CPU",
    "nll_loss2d": "flatten output and target to [n, classes] and [n]",
    "cumsum": "add by a matrix product with a triangle of ones",
}
"""part of the name of an operation that has no deterministic form -> what to use in its place"""
_OPERATION = re.compile(r"(\S+) does not have a deterministic implementation")
_PLACE = re.compile(r" (\([^()]*(?:\([^()]*\)[^()]*)*\))$")


def device_of(name: str) -> torch.device:
    """The device of a run. A GPU becomes the current device, and all operations deterministic.

    Args:
        name: as a user gives it; `cuda` without a number is the worker's own GPU.

    Returns:
        The device.

    Raises:
        ValueError: for a device that is not known or not there; for an environment in which a GPU's bits change.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda":
        # torchrun numbers its workers on a node: each has a GPU to itself
        number = int(name.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ValueError(f"there is no device cuda:{number}: torch sees {count} CUDA devices; use --device cpu")
        device = torch.device("cuda", number)
    make_deterministic(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # starts CUDA, whose libraries read the environment
    return device


def make_deterministic(device: torch.device) -> None:
    """Sets torch so that operations have the same bits each time. It stays so for this process.

    On a CPU they have them anyway, and only cuDNN's settings are made, as they were before there were others.

    Args:
        device: of the operations.

    Raises:
        ValueError: if the environment sets another workspace of cuBLAS.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    if device.type == "cpu":
        return
    workspace = os.environ.setdefault(WORKSPACE, WORKSPACES[0])
    if workspace not in WORKSPACES:
        raise ValueError(
            f"the environment sets {WORKSPACE}={workspace}, with which matrix products on a GPU have other bits each"
            f" time: unset it, or set {WORKSPACES[0]}"
        )
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it here


def try_deterministic(risk: EmpiricalRisk) -> None:
    """Computes loss and gradient of a few examples, so that an operation without a deterministic form is refused now.

    Args:
        risk: of a run on a GPU.

    Raises:
        ValueError: naming the operation, and what to use in its place.
    """
    try:
        try_block(risk)
    except Exception as error:
        told = nondeterministic(error)
        if told is None:
            raise
        raise ValueError(told) from error


def nondeterministic(error: BaseException) -> str | None:
    """A sentence about an operation that has no deterministic form; None if an error is another one."""
    known = _OPERATION.search(str(error))
    if known is None:
        return None
    operation = known[1]
    place = _PLACE.search(str(error))
    remedy = next((remedy for part, remedy in REMEDIES.items() if part in operation), "replace it in the model")
    return (
        f"the operation {operation}{f' {place[1]}' if place else ''} has no deterministic form on a GPU, so the bits"
        f" of the run would change from one time to the next: {remedy}, or run on --device cpu"
    )
