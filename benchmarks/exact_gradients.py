"""Times exact gradients beside FSDP2's own reduction: a transformer, two ranks on one machine, gloo, one thread a rank.

    torchrun --nproc-per-node 2 benchmarks/exact_gradients.py [--width 256] [--layers 4] [--examples 8] [--rounds 7]

A step has 4 blocks, so each rank makes two backward passes with a reduction. Steps with either reduction alternate.
Without torchrun it prints which optimizers of torch change bits when a vector of parameters is cut into shards.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from noiseless.distributed import clip_grad_norm_, exact_gradients

BLOCKS, LENGTH, WORDS = 4, 64, 512


def main() -> None:
    """Prints seconds of steps and of their parts, and ratios: median, smallest and largest round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--examples", type=int, default=8, help="sequences of 64 words in a block")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if "RANK" not in os.environ:
        optimizers()
        return
    dist.init_process_group("gloo")
    ordinary, exact = _model(args.width, args.layers), _model(args.width, args.layers)
    gradients = exact_gradients(exact)
    seconds: dict[str, list[float]] = {}
    for round_ in range(args.rounds + 1):
        times = _ordinary(ordinary, args.examples) | _exact(exact, gradients, args.examples)
        for name, value in times.items():
            if round_:  # the first one warms up
                seconds.setdefault(name, []).append(value)
    if dist.get_rank() == 0:
        parameters = sum(p.numel() for p in exact.parameters())
        shape = f"{BLOCKS} blocks of {args.examples} x {LENGTH} words"
        print(f"{parameters:,} parameters, {dist.get_world_size()} ranks, {shape}")
        for name, values in seconds.items():
            print(f"{name:32} {_spread(values)} s")
        for part in ("step", "norm and clip"):
            pairs = zip(seconds[f"exact: {part}"], seconds[f"ordinary: {part}"], strict=True)
            print(f"{part:32} {_spread([a / b for a, b in pairs])} times the ordinary one")
    dist.destroy_process_group()


def _model(width: int, layers: int) -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True) for _ in range(layers)]
    model = nn.Sequential(nn.Embedding(WORDS, width), *blocks, nn.Flatten(0, 1), nn.Linear(width, WORDS))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _backwards(model: nn.Module, examples: int) -> None:
    for block in range(dist.get_rank(), BLOCKS, dist.get_world_size()):
        x = torch.randint(WORDS, (examples, LENGTH), generator=torch.Generator().manual_seed(block))
        nn.functional.cross_entropy(model(x), x.flatten()).backward()


def _ordinary(model: nn.Module, examples: int) -> dict[str, float]:
    dist.barrier()
    marks = [time.perf_counter()]
    _backwards(model, examples)
    marks.append(time.perf_counter())
    float(nn.utils.clip_grad_norm_(model.parameters(), 1.0).full_tensor())  # type: ignore[attr-defined]
    marks.append(time.perf_counter())
    model.zero_grad()
    return {"ordinary: step": marks[2] - marks[0], "ordinary: norm and clip": marks[2] - marks[1]}


def _exact(model: nn.Module, gradients: Any, examples: int) -> dict[str, float]:
    dist.barrier()
    marks = [time.perf_counter()]
    _backwards(model, examples)
    marks.append(time.perf_counter())
    gradients.write(BLOCKS)
    marks.append(time.perf_counter())
    float(clip_grad_norm_(model.parameters(), 1.0))
    marks.append(time.perf_counter())
    model.zero_grad()
    return {
        "exact: step": marks[3] - marks[0],
        "exact: write": marks[2] - marks[1],
        "exact: norm and clip": marks[3] - marks[2],
    }


def optimizers() -> None:
    """Prints in how many of 20 ways to cut a vector into shards the parameters after five steps have other bits."""
    kinds: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
        "AdamW": (torch.optim.AdamW, {}),
        "AdamW(foreach=True)": (torch.optim.AdamW, {"foreach": True}),
        "AdamW(fused=True)": (torch.optim.AdamW, {"fused": True}),
        "SGD(momentum=0.9)": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
        "SGD(momentum=0.9, fused=True)": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1, "fused": True}),
        "RMSprop": (torch.optim.RMSprop, {}),
        "NAdam": (torch.optim.NAdam, {}),
    }
    for name, (kind, options) in kinds.items():
        different = sum(
            not torch.equal(_stepped(kind, options, n, n), _stepped(kind, options, n, -(-n // shards)))
            for n in (7, 64, 67, 129, 1001)
            for shards in (2, 3, 4, 8)
        )
        print(f"{name:32} {different:2} of 20 ways to cut it change bits")


def _stepped(kind: Any, options: dict[str, Any], n: int, length: int) -> torch.Tensor:
    """A vector of n parameters after five steps, in shards of a length."""
    rng = torch.Generator().manual_seed(0)
    theta, *steps = (torch.randn(n, generator=rng) * 10 ** torch.randn(n, generator=rng) for _ in range(6))
    shards = [nn.Parameter(part.clone()) for part in theta.split(length)]
    for shard_index, shard in enumerate(shards):
        optimizer = kind([shard], lr=1e-2, **options)
        for gradient in steps:
            shard.grad = gradient.split(length)[shard_index].clone()
            optimizer.step()
    return torch.cat([shard.detach() for shard in shards])


def _spread(values: list[float]) -> str:
    """Median, smallest and largest value."""
    return f"{statistics.median(values):7.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
