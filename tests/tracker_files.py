"""Reads the files of trackers as {name: {step: value}}; a step that occurs twice fails."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

Series = dict[str, dict[int, float]]
BLOCK, HEAD = 32768, 7
"""bytes of a block of a LevelDB log, and of the header of each part of a record"""


def gathered(points: Iterable[tuple[str, int, float]]) -> Series:
    """(name, step, value) as series."""
    series: Series = defaultdict(dict)
    for name, step, value in points:
        assert step not in series[name], f"{name} has step {step} twice"
        series[name][step] = value
    return dict(series)


def tensorboard(run: Path) -> Series:
    """The series in TensorBoard's files, by its own reader, which leaves out purged points."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={SCALARS: 0, TENSORS: 0})
    events.Reload()
    return gathered((tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag))


def wandb(run: Path) -> Series:
    """The series in wandb's files: all offline parts, in the order in which they are synced.

    A file is a head of 7 bytes and a LevelDB log (github.com/google/leveldb, doc/log_format.md) of records, which are
    messages of wandb's own protocol. The package has no public reader of it.
    """
    from wandb.proto import wandb_internal_pb2 as protocol

    points = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for content in _records(path.read_bytes()):
            record = protocol.Record.FromString(content)
            if record.WhichOneof("record_type") != "history":
                continue
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            step = items["_step"]
            points += [(name, step, value) for name, value in items.items() if not name.startswith("_")]
    return gathered(points)


def _records(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    offset, record = HEAD, b""
    while offset + HEAD <= len(content):
        if BLOCK - offset % BLOCK < HEAD:  # too short for a head: zeros to the end of the block
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, offset)
        record += content[offset + HEAD : offset + HEAD + length]
        offset += HEAD + length
        if kind in (1, 4):  # a full record, or its last part
            yield record
            record = b""
