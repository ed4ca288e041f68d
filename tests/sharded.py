"""A small transformer, its steps on several ranks with exact gradients, and what they must be: a worker of a job.

Arguments: DIR and names of `CASES`. The first rank writes what each case gives to DIR/NAME.json. A step has six blocks; rank r of W
computes the blocks r, r + W, ...; a rank that has no block left computes another one's with a loss times 0.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from noiseless.distributed import ExactSum, clip_grad_norm_, exact_gradients

BLOCKS, STEPS, WORDS, WIDTH = 6, 3, 13, 10


class Transformer(nn.Module):
    """Two layers of width 10; no dimension is a multiple of 4, so that FSDP2 pads shards on 4 ranks."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 22, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x).clone()


def transformer(dtype=torch.float32):
    torch.manual_seed(0)
    return Transformer().to(dtype)


def words(step, block):
    """Inputs and targets of a block; blocks have different sizes."""
    rng = torch.Generator().manual_seed(100 * step + block)
    x = torch.randint(WORDS, (2 + block % 2, 6), generator=rng)
    return x[:, :-1], x[:, 1:]


def loss(model, step, block):
    """The sum over the tokens of a block."""
    x, y = words(step, block)
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")


TOKENS = sum(words(0, block)[1].numel() for block in range(BLOCKS))


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def digest(tensors):
    summed = hashlib.sha256()
    for tensor in tensors:
        summed.update(full(tensor).detach().contiguous().view(torch.uint8).numpy().tobytes())
    return summed.hexdigest()


def plain(step=0, model=None):
    """Gradients of a step, from block gradients of plain autograd in one process, and the exact sum of whole vectors."""
    model = model or transformer()
    parameters = list(model.parameters())
    total = ExactSum(sum(p.numel() for p in parameters))
    for block in range(BLOCKS):
        gradient = torch.autograd.grad(loss(model, step, block), parameters)
        total.add(torch.cat([g.flatten() for g in gradient])[None], torch.ones(1))
    value = total.value() / TOKENS
    return [
        v.view_as(p).to(p.dtype) for p, v in zip(parameters, value.split([p.numel() for p in parameters]), strict=True)
    ]


def shard(model, whole=False, **options):
    """The model after fully_shard, each layer by itself, or in one piece."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in () if whole else model.layers:
        fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def replicate(model):
    return DistributedDataParallel(model)


def backwards(model, step, shift=0, order=1):
    """This rank's backward passes of a step."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    blocks = [(k + shift) % BLOCKS for k in range(BLOCKS)][::order]
    for first in range(0, BLOCKS, ranks):
        left = first + rank < BLOCKS
        (loss(model, step, blocks[first + rank] if left else 0) * (1.0 if left else 0.0)).backward()


def train(model, shift=0, order=1, optimizer=torch.optim.AdamW, **options):
    """Digests of each step's gradients, norm, clipped gradients, and of the parameters after it."""
    gradients = exact_gradients(model)
    optimizer = optimizer(model.parameters(), lr=1e-2, **options)
    rows = []
    for step in range(STEPS):
        backwards(model, step, shift, order)
        gradients.write(TOKENS)
        exact = digest(p.grad for p in model.parameters())
        norm = clip_grad_norm_(model.parameters(), 0.05)
        clipped = digest(p.grad for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        rows.append([exact, float(norm).hex(), clipped, digest(model.parameters())])
    return rows


HALF = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
HALF_SENT = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
CASES = {
    "sharded": lambda: train(shard(transformer())),
    "whole": lambda: train(shard(transformer(), whole=True), shift=4, order=-1),
    "kept": lambda: train(shard(transformer(), reshard_after_forward=False), shift=1),
    "sgd": lambda: train(shard(transformer()), optimizer=torch.optim.SGD, momentum=0.9),
    "bfloat16": lambda: train(shard(transformer(), mp_policy=HALF)),
    "bfloat16-sent": lambda: train(shard(transformer(), mp_policy=HALF_SENT)),
    "replicated": lambda: train(replicate(transformer())),
    "replicated-shuffled": lambda: train(replicate(transformer()), shift=2, order=-1),
}


def main(place, names):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in names:
        result = CASES[name]()
        if dist.get_rank() == 0:
            (place / f"{name}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
