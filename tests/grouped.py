"""A launcher that is not torchrun: makes a process group by hand, and calls the program in a thread, as Ray Train does.

Arguments: the group's file, rank, number of processes, and one command line of the program or more, divided by `then`.
"""

import sys
import threading
from datetime import timedelta
from itertools import groupby

import torch
import torch.distributed as dist

import noiseless.commands.console  # noqa: F401  in a launcher's process it may be older than the group
from noiseless import cli


def main(file: str, rank: str, count: str, *arguments: str) -> int:
    """Returns the first exit code that is not 0."""
    method = f"file://{file}" if "/" in file else f"tcp://127.0.0.1:{file}"
    dist.init_process_group("gloo", method, timedelta(seconds=90), int(count), int(rank))
    codes: list[int] = []
    for is_line, words in groupby(arguments, key=lambda word: word != "then"):
        if is_line:
            thread = threading.Thread(target=lambda line=list(words): codes.append(cli.run(line)))
            thread.start()
            thread.join()
    if not any(codes):  # the group is as it was
        total = torch.tensor([int(rank)])
        dist.all_reduce(total)
        assert int(total) == sum(range(int(count)))
    dist.destroy_process_group()
    return next((code for code in codes if code), 0) if codes else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
