"""Steps of a small transformer on several ranks with exact gradients, and what they must be: a worker of a test's job.

Arguments: DIR and names of `CASES`. The first rank writes what each case gives to DIR/NAME.json. A step has six blocks;
rank r of W computes the blocks r, r + W, ...; one that has no block left computes another with a loss times 0.
"""

from __future__ import annotations

import hashlib
import json
import math
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

BLOCKS, STEPS, WORDS, WIDTH = 6, 2, 13, 10


class Louder(torch.autograd.Function):
    """The identity, whose gradient is multiplied by 2**50."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * 2.0**50


class Transformer(nn.Module):
    """Two layers of width 10, for which FSDP2 pads shards on 4 ranks. Block b is read by head b modulo their number."""

    def __init__(self, heads=1, layers=2, loud=False):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 22, dropout=0.0, batch_first=True) for _ in range(layers)
        )
        self.heads = nn.ModuleList(nn.Linear(WIDTH, WORDS) for _ in range(heads))
        self.loud = nn.Linear(WIDTH, WORDS) if loud else None

    def forward(self, x, block):
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x)
        logits = self.heads[block % len(self.heads)](x)
        return logits.clone() if self.loud is None else logits + Louder.apply(self.loud(x.detach()))


def transformer(**options):
    torch.manual_seed(0)
    return Transformer(**options)


def experts():
    """Two heads, each of which sees only some of the blocks, and a frozen embedding."""
    model = transformer(heads=2)
    model.embedding.requires_grad_(False)
    return model


def loss(model, step, block, factor=1.0):
    """The sum over the tokens of a block; blocks have different sizes."""
    rng = torch.Generator().manual_seed(100 * step + block)
    x = torch.randint(WORDS, (2 + block % 2, 6), generator=rng)
    logits = model(x[:, :-1], block)
    return factor * nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum")


TOKENS = sum((2 + block % 2) * 5 for block in range(BLOCKS))


def digest(tensors):
    summed = hashlib.sha256()
    for tensor in tensors:
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        summed.update(whole.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return summed.hexdigest()


def plain(model, step=0, infinite=None):
    """Gradients from block gradients of autograd in one process, and the exact sum of whole vectors."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]
    total = ExactSum(sum(sizes))
    for block in range(BLOCKS):
        value = loss(model, step, block, math.inf if block == infinite else 1.0)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        total.add(torch.cat([g.flatten() for g in gradients])[None], torch.ones(1))
    parts = (total.value() / TOKENS).split(sizes)
    return [part.view_as(p).to(p.dtype) for p, part in zip(parameters, parts, strict=True)]


def shard(model, whole=False, **options):
    """The model after fully_shard, of each layer by itself, or in one piece."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in () if whole else model.layers:
        fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def backwards(model, step, shift=0, order=1, infinite=None):
    """This rank's backward passes of a step, of the blocks in some order."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    blocks = [(k + shift) % BLOCKS for k in range(BLOCKS)][::order]
    for first in range(0, BLOCKS, ranks):
        block = blocks[first + rank] if first + rank < BLOCKS else None
        factor = 0.0 if block is None else math.inf if block == infinite else 1.0
        loss(model, step, block or 0, factor).backward()


def train(model, optimizer=torch.optim.AdamW, steps=STEPS, max_norm=0.05, **blocks):
    """Digests of each step's gradients, its norm, digests of the clipped gradients and of the parameters after it."""
    gradients = exact_gradients(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer(trained, lr=1e-2)
    rows = []
    for step in range(steps):
        backwards(model, step, **blocks)
        gradients.write(TOKENS)
        row = [digest(p.grad for p in trained)]
        row.append(float(clip_grad_norm_(trained, max_norm)).hex())
        row.append(digest(p.grad for p in trained))
        optimizer.step()
        optimizer.zero_grad()
        rows.append([*row, digest(model.parameters())])
    return rows


def ordinary(model):
    """Digest of a step's gradients as FSDP2 sums them, whose bits depend on the number of ranks."""
    backwards(model, 0)
    return digest(p.grad * float(dist.get_world_size()) for p in model.parameters())  # FSDP2 divides by the ranks


def refusals():
    """Messages of mistakes that need two ranks."""
    model = shard(transformer(layers=0))
    gradients, messages = exact_gradients(model), []
    loss(model, 0, 0).backward()
    alone = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    buffers = torch.zeros(4), torch.zeros(4)
    for mistake in (
        lambda: gradients.write(TOKENS + dist.get_rank()),
        lambda: gradients._shards[0](*buffers, alone, dist.ReduceOp.SUM),
    ):
        try:
            mistake()
        except ValueError as error:
            messages.append(str(error))
    return messages


HALF = {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)}
HALF_SENT = {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)}
CASES = {
    "sharded": lambda: train(shard(transformer())),
    "whole": lambda: train(shard(transformer(), whole=True), shift=4, order=-1),
    "kept": lambda: train(shard(transformer(), reshard_after_forward=False), shift=1),
    "replicated": lambda: train(DistributedDataParallel(transformer())),
    "shuffled": lambda: train(DistributedDataParallel(transformer(), gradient_as_bucket_view=True), shift=2, order=-1),
    "sgd": lambda: train(shard(transformer()), optimizer=torch.optim.SGD),
    "bfloat16": lambda: train(shard(transformer(), **HALF)),
    "bfloat16-sent": lambda: train(shard(transformer(), **HALF_SENT), shift=3),
    "experts": lambda: train(shard(experts())),
    "experts-replicated": lambda: train(DistributedDataParallel(experts(), find_unused_parameters=True), shift=1),
    "wide": lambda: train(shard(transformer(loud=True))),
    "wide-whole": lambda: train(shard(transformer(loud=True), whole=True), shift=1),
    "infinite": lambda: train(shard(transformer()), steps=1, infinite=2),
    "infinite-replicated": lambda: train(DistributedDataParallel(transformer()), steps=1, infinite=2, shift=1),
    "ordinary": lambda: ordinary(shard(transformer())),
    "refusals": refusals,
}
QUICK = ("sharded", "whole", "replicated", "bfloat16", "experts", "wide", "infinite", "ordinary")
"""cases that `make test` runs; `make soak` runs all"""


def main(place, names):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in names:
        result = CASES[name]()
        if dist.get_rank() == 0:
            (place / f"{name}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
