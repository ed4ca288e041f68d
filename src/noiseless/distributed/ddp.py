"""DistributedDataParallel: a communication hook that adds each block gradient to bins, and sends nothing.

The bins of all ranks are summed once a step, by `write`. DistributedDataParallel cuts its buckets anew after the first
backward pass, so there is one sum for each parameter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from noiseless.distributed.gradients import ExactGradients, Ranks, add, supported
from noiseless.objective.exactsum import ExactSum, align, reduce


class ReplicatedGradients(ExactGradients):
    """Exact gradients of a model that DistributedDataParallel replicates.

    A parameter that no block of any rank uses keeps `.grad` None (with `find_unused_parameters=True`).

    Args:
        model: the model.

    Raises:
        ValueError: see `exact_gradients`.
    """

    def __init__(self, model: DistributedDataParallel):
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._ranks = Ranks(model.process_group, self._parameters[0].device)
        self._sums: dict[nn.Parameter, ExactSum] = {}
        self._begun = False
        model.register_comm_hook(
            self, lambda gradients, bucket: gradients.take(bucket)
        )  # which torch wants unannotated
        model.register_forward_pre_hook(self._check)

    def take(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """Adds the block gradients of a bucket (`torch.distributed.GradBucket`), and returns zeros in their place."""
        buffer = bucket.buffer()
        supported(buffer.dtype)
        for p, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            if p not in self._sums:
                self._sums[p] = ExactSum(p.numel(), p.device)
            add(self._sums[p], gradient.reshape(1, -1))
        self._begun = True
        result: torch.futures.Future[Tensor] = torch.futures.Future()
        result.set_result(buffer.zero_())
        return result

    def write(self, divide_by: float) -> None:
        """See `ExactGradients.write`."""
        self._ranks.check(divide_by)
        if not self._begun:
            raise ValueError("no backward pass since the last write: call loss.backward() for each block of the step")
        used = [p for p in self._parameters if p.grad is not None]
        sums = [self._sums.pop(p) for p in used]
        self._sums, self._begun = {}, False
        align(sums, self._ranks.maximum)
        reduce(sums, self._ranks.maximum, self._ranks.total)
        for p, total in zip(used, sums, strict=True):
            assert p.grad is not None
            p.grad.copy_(total.value().div_(divide_by).view_as(p))

    def _check(self, model: DistributedDataParallel, _: Any) -> None:
        """Before a forward pass: refuses what would bring other gradients than the block's into its sum.

        Raises:
            ValueError: in `no_sync`, or if gradients of the last step are left.
        """
        if not torch.is_grad_enabled():
            return
        if not model.require_backward_grad_sync:
            raise ValueError(
                "no_sync adds block gradients in float32 before the exact sum gets them: leave it out, since several"
                " backward passes before write are exact without it, and send nothing"
            )
        if not self._begun and any(p.grad is not None and bool(p.grad.any()) for p in self._parameters):
            raise ValueError("the gradients of the last step would be added to this one's: call optimizer.zero_grad()")
