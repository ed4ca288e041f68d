"""FSDP2 with exact gradients: a transformer learns to copy digits, with the same bits for any number of processes.

    torchrun --nproc-per-node 2 examples/fsdp.py

prints the same digest with 1, 2 or 4 in place of 2. The global batch of a step is always cut into the same 4 blocks.
"""

from __future__ import annotations

import hashlib
import math

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from noiseless.distributed import clip_grad_norm_, exact_gradients

BLOCKS, EXAMPLES, WORDS, STEPS = 4, 8, 10, 5


def main() -> None:
    """Trains for a few steps, and prints loss, norm and the digest of the parameters."""
    torch.set_num_threads(1)  # one number of threads for all ranks: it changes the bits of a block gradient
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(WORDS, 32), layer, nn.Flatten(0, 1), nn.Linear(32, WORDS))
    mesh = init_device_mesh("cpu", (ranks,))
    fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    gradients = exact_gradients(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    for step in range(STEPS):
        losses = []
        for block in range(rank, BLOCKS, ranks):  # each rank computes whole blocks
            rng = torch.Generator().manual_seed(step * BLOCKS + block)
            x = torch.randint(WORDS, (EXAMPLES, 12), generator=rng)
            loss = nn.functional.cross_entropy(model(x), x.flatten())  # the mean over the block
            loss.backward()
            losses.append(loss.item())
        gradients.write(divide_by=BLOCKS)
        norm = clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()

        all_losses: list[list[float]] = [[] for _ in range(ranks)]
        dist.all_gather_object(all_losses, losses)
        mean = math.fsum(x for of_rank in all_losses for x in of_rank) / BLOCKS  # fsum: the same in any order
        if rank == 0:
            print(f"step {step}: loss {mean!r}, gradient norm {norm.item()!r}")

    whole = [p.full_tensor().detach() for p in model.parameters()]  # type: ignore[attr-defined]
    digest = hashlib.sha256(b"".join(p.numpy().tobytes() for p in whole)).hexdigest()
    if rank == 0:
        print(f"parameters {digest}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
