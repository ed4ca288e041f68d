"""The digest of a run's parameters from the bytes of their file, without torch: `noiseless digest` in a moment."""

from __future__ import annotations

from pathlib import Path

from noiseless.files.atomic import sha256
from noiseless.files.directory import RunDirectory
from noiseless.files.heads import DAMAGED, raw_tensors
from noiseless.plain import read_file

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""dtype in a safetensors file -> torch's name of it"""


def plain_digest(path: Path) -> str | None:
    """The digest of all tensors in a safetensors file, as `checkpoint.digest` computes it.

    Args:
        path: of the file.

    Returns:
        The digest; None if the file cannot be read, or has a tensor of another dtype than those of `DTYPES`.
    """
    try:
        tensors = raw_tensors(read_file(path))
    except DAMAGED:
        return None
    if any(tensor["dtype"] not in DTYPES for tensor in tensors.values()):
        return None
    parts = []
    for name, tensor in sorted(tensors.items()):
        described = f"{name} torch.{DTYPES[tensor['dtype']]} {list(tensor['shape'])}\n"
        parts.append(described.encode() + bytes(tensor["data"]))
    return sha256(b"".join(parts))


def final_digest(directory: RunDirectory) -> str | None:
    """The digest of a run's final parameters and buffers.

    Args:
        directory: of the run.

    Returns:
        The digest; None if the run has not ended, or if `directory.state` has to tell what is wrong with the file.
    """
    end = directory.end()
    digest = None if end is None else plain_digest(directory.model)
    return digest if end is not None and digest == end.digests.get("model") else None
