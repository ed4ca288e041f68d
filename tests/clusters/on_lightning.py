"""A run in two processes that Lightning Fabric launches, in the process group that it makes: the local digest.

PyPI: pip install lightning-fabric
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from short_run import ARGUMENTS, ENVIRONMENT, compare, local_digest

try:
    from lightning_fabric import Fabric
except ImportError as error:
    MISSING = str(error)
else:
    MISSING = ""


def work(fabric: Fabric, run: str) -> None:
    """Trains in a process of Fabric."""
    from noiseless import cli

    code = cli.run(["train", *ARGUMENTS, "--run-dir", run])
    fabric.barrier()  # Fabric's group is as it was
    if code:
        raise RuntimeError(f"noiseless has ended with {code}")


def main() -> int:
    """Returns 0 for equal digests, 2 where Lightning Fabric is not installed."""
    if MISSING:
        print(f"on_lightning: Fabric is not installed for {sys.executable} ({MISSING}): pip install lightning-fabric")
        return 2
    os.environ |= ENVIRONMENT
    with TemporaryDirectory(prefix="on-lightning-") as name:
        run = Path(name) / "run"
        Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(work, str(run))
        return compare("Fabric", run, local_digest(Path(name)), "two processes in the group of Lightning Fabric")


if __name__ == "__main__":
    sys.exit(main())
