"""FSDP2: a reduce-scatter that sends each block gradient to the owners of its shards, who add it to their bins.

FSDP2's own reduce-scatter adds float32 gradients in an order that depends on the number of ranks, divides by it, and
adds the results of several backward passes in float32. Here FSDP2 gets zeros, and `write` writes the exact sum.

What FSDP2 (torch 2.14) calls in a backward pass, for each FSDP module: `allocate` for the unsharded gradients, padded
with zeros to a multiple of the ranks; the reduce-scatter, unless there is one rank; the all-reduce hook; and, parameter
by parameter, the hooks on accumulated gradients, which tell where in the shard each parameter lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from noiseless.distributed.gradients import ExactGradients, Ranks, add, supported
from noiseless.objective.exactsum import ExactSum, align

Layout = list[tuple[nn.Parameter, int]]
"""parameters of a shard, and where each begins"""


def fsdp_modules(model: nn.Module) -> list[FSDPModule]:
    """The modules of a model that `fully_shard` was called on."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


class ShardedGradients(ExactGradients):
    """Exact gradients of a model that FSDP2 shards.

    Args:
        model: the model.

    Raises:
        ValueError: see `exact_gradients`.
    """

    def __init__(self, model: nn.Module):
        modules = fsdp_modules(model)
        if not hasattr(FSDPModule, "set_custom_reduce_scatter"):
            raise ValueError(
                f"FSDP2 of torch {torch.__version__} has no set_custom_reduce_scatter: install a newer torch"
            )
        for module in modules:
            module.reshard()  # after a forward pass, parameters may be those of the whole model
        for name, p in model.named_parameters():
            if p.requires_grad:
                _check(name, p)
        first = next((p for p in model.parameters() if isinstance(p, DTensor)), None)
        if first is None:
            raise ValueError(f"this {type(model).__name__} has no parameters")
        self._ranks = Ranks(first.device_mesh.get_group(), first.to_local().device)
        self._shards = [_shard(module, self._ranks) for module in modules]

    def write(self, divide_by: float) -> None:
        """See `ExactGradients.write`."""
        self._ranks.check(divide_by)
        for shard in self._shards:
            shard.check_whole()
        used = [shard for shard in self._shards if shard.total is not None]
        if not used:
            raise ValueError("no backward pass since the last write: call loss.backward() for each block of the step")
        align([shard.total for shard in used if shard.total is not None], self._ranks.maximum)
        for shard in used:
            shard.write(divide_by)


def _check(name: str, p: nn.Parameter) -> None:
    if not isinstance(p, DTensor):
        raise ValueError(
            f"parameter {name} is in no FSDP module, so its gradient is not reduced: call fully_shard on the whole"
            " model, without ignored_params, or freeze it with requires_grad_(False)"
        )
    placements = p.placements
    if len(placements) != 1 or not isinstance(placements[0], Shard):
        raise ValueError(
            f"parameter {name} has the placements {tuple(placements)}: the exact sum takes parameters that are sharded"
            " over a mesh of one dimension (no HSDP, no tensor parallelism)"
        )


class ExactReduceScatter:
    """Adds block gradients to the bins of this rank's shard of one FSDP module.

    It has the methods of torch's `ReduceScatter`.

    Attributes:
        total: sum of the shard's block gradients, `[n]`; None: there are none since the last `write`.

    Args:
        ranks: the ranks among whom the module is sharded.
    """

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self.total: ExactSum | None = None
        self._layout: Layout = []
        self._arriving: tuple[Tensor, Layout, int] | None = None
        """terms `[W, n]` of a backward pass, and the parameters that have been found in it, up to an offset"""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An empty tensor, for what is sent and received."""
        supported(dtype)
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Sends a block gradient, and takes those of the other ranks; a division that `op` asks for is not done.

        Args:
            output_tensor: `[n]`; set to zero.
            input_tensor: `[W n]`; the gradient of this rank's block, cut into W shards.
            group: the ranks.
            op: not used.
            async_op: not used.

        Raises:
            ValueError: if the number of ranks is not that of `exact_gradients`.
        """
        if group.size() != self._ranks.count:
            raise ValueError(
                f"the gradients are reduced over {group.size()} ranks, and the exact sum began with"
                f" {self._ranks.count}: call exact_gradients again after the model is sharded anew"
            )
        received = torch.empty_like(input_tensor)
        dist.all_to_all_single(received.view(torch.uint8), input_tensor.view(torch.uint8), group=group)
        self.take(received.view(group.size(), -1))
        output_tensor.zero_()

    def take_alone(self, output: Tensor) -> None:
        """The all-reduce hook of a single rank, for which FSDP2 calls no reduce-scatter (older versions do)."""
        if self._arriving is None:
            self.take(output.clone()[None])
            output.zero_()

    def take(self, terms: Tensor) -> None:
        """Keeps the terms `[W, n]` until the hooks of their parameters have told the layout."""
        self.check_whole()
        self._arriving = terms, [], 0

    def place(self, p: nn.Parameter) -> None:
        """The hook on a parameter, called in the order in which parameters lie in the shard.

        Raises:
            ValueError: if the parameters with a gradient are not those of the earlier blocks.
        """
        if self._arriving is None:  # of an earlier call of exact_gradients
            return
        terms, layout, start = self._arriving
        layout.append((p, start))
        start += _padded(p, self._ranks.count)
        self._arriving = terms, layout, start
        if start < terms.shape[1]:
            return
        self._arriving = None
        if self.total is None:
            self.total, self._layout = ExactSum(terms.shape[1], terms.device), layout
        elif [id(p) for p, _ in layout] != [id(p) for p, _ in self._layout]:
            raise ValueError(
                "a parameter has a gradient in one block of the step and none in another: call"
                " model.set_reduce_scatter_unused_params(True), for which torch 2.14 or newer is needed"
            )
        add(self.total, terms)

    def check_whole(self) -> None:
        """Refuses to go on if a part of a block gradient belongs to no known parameter.

        Raises:
            ValueError: if it is so.
        """
        if self._arriving is not None:
            raise ValueError(
                "parameters of the model were replaced after exact_gradients (by load_state_dict with assign=True?):"
                " call it again"
            )

    def write(self, divide_by: float) -> None:
        """Puts the value of the sum, divided by a number, into the gradients, and forgets the sum."""
        assert self.total is not None
        value = self.total.value().div_(divide_by)
        self.total = None
        for p, start in self._layout:
            assert isinstance(p, DTensor)
            local = p.to_local()
            gradient = value[start : start + local.numel()].to(local.device, local.dtype).view(local.shape)
            p.grad = DTensor.from_local(
                gradient, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
            )


def _shard(module: FSDPModule, ranks: Ranks) -> ExactReduceScatter:
    shard = ExactReduceScatter(ranks)
    module.set_custom_reduce_scatter(shard)  # type: ignore[arg-type]  # the base class is private
    if ranks.count == 1:
        module.set_all_reduce_hook(shard.take_alone)
    if hasattr(module, "set_reduce_scatter_unused_params"):  # blocks may use different experts
        module.set_reduce_scatter_unused_params(True, recurse=False)
    module.set_requires_gradient_sync(True, recurse=False)
    module.set_requires_gradient_sync = _refuse_accumulation  # type: ignore[method-assign]
    assert isinstance(module, nn.Module)
    inner = {id(p) for child in module.modules() if child is not module and isinstance(child, FSDPModule)
             for p in child.parameters()}  # fmt: skip
    for p in module.parameters():
        if p.requires_grad and id(p) not in inner:
            p.register_post_accumulate_grad_hook(shard.place)
    return shard


def _refuse_accumulation(requires_gradient_sync: bool, *, recurse: bool = True) -> None:
    """Stands for `FSDPModule.set_requires_gradient_sync` on a model with exact gradients."""
    if not requires_gradient_sync:
        raise ValueError(
            "set_requires_gradient_sync(False) adds block gradients in float32 before the exact sum gets them: leave it"
            " out, since several backward passes before write are exact without it"
        )


def _padded(p: nn.Parameter, ranks: int) -> int:
    """Elements that a parameter takes in a shard: FSDP2 pads its sharded dimension to a multiple of the ranks."""
    assert isinstance(p, DTensor)
    placement = p.placements[0]
    assert isinstance(placement, Shard)
    size = p.shape[placement.dim]
    return -(-size // ranks) * (p.numel() // size) if p.numel() else 0
