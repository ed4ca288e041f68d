"""A worker of a torchrun job in which `fit` makes the process group itself; writes its digests to DIR/digests-RANK.

Argument: DIR.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from problems import points, with_batch_norm

import noiseless


def digests(place: Path) -> list[str]:
    """Of a run that writes nothing, and of one that writes a directory: batch norm, penalty, clip, validation."""
    results = []
    for run_dir in (None, str(place / "run")):
        fitted = noiseless.fit(
            with_batch_norm(), torch.nn.CrossEntropyLoss(), points(), recipe="fb-regularized", steps=4, block=4,
            validation=points(), run_dir=run_dir,
        )  # fmt: skip
        assert fitted.validation is not None
        results.append(f"{fitted.digest} {fitted.train.loss.hex()} {fitted.validation.loss.hex()}")
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    lines = digests(folder)
    assert not dist.is_initialized()  # the group was that of `fit`, and ended with it
    (folder / f"digests-{os.environ['RANK']}").write_text("\n".join(lines))
