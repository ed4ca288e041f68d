"""Makes the gradients of a model exact: the one door, for FSDP2 and DistributedDataParallel."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from noiseless.distributed.ddp import ReplicatedGradients
from noiseless.distributed.fsdp import ShardedGradients, fsdp_modules
from noiseless.distributed.gradients import ExactGradients


def exact_gradients(model: nn.Module) -> ExactGradients:
    """Makes the gradients of a model exact, from its next backward pass on.

    Args:
        model: a model after `fully_shard` (FSDP2), on a mesh of one dimension, or a `DistributedDataParallel`.

            With FSDP2 each rank holds the bins of its own shard, 24 / W bytes per parameter for W ranks, from the first
            backward pass of a step to `write`. A backward pass sends the block gradients by one all-to-all for each
            FSDP module, as many bytes as the reduce-scatter that it replaces.

            With DistributedDataParallel each rank holds bins for all parameters, 24 bytes per parameter. A backward
            pass sends nothing; `write` sums the bins over the ranks by one all-reduce.

    Returns:
        The sum, whose `write` ends each step.

    Raises:
        ValueError: if the model is neither; if a trainable parameter is in no FSDP module, or sharded over a mesh of
            several dimensions; if the process group has no backend for the parameters' device.
    """
    if isinstance(model, DistributedDataParallel):
        return ReplicatedGradients(model)
    if not fsdp_modules(model):
        raise ValueError(
            f"no module in this {type(model).__name__} is sharded: call fully_shard(model) or"
            " DistributedDataParallel(model) first, then exact_gradients"
        )
    return ShardedGradients(model)
