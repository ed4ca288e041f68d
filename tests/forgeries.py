"""Changes of a run's files with the digests that fit: what is in them is computed with, or refused in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from damages import Damage, part_at, places

from noiseless.files.checkpoint import digest
from noiseless.files.parameters import write_parameters
from noiseless.plain import sealed

VALUES = (
    None, True, -1, 0, 2, 0.5, -0.5, 1e308, 10**30, "x", "", [], {}, [1], {"a": 1}, ["x", None], "hostile_code:make",
    "torch.hub:load", "os:system", "npz:/dev/zero", "folder:/dev", "/proc/self/mem", "../../x", "\x1b[31m", "\ud800",
)  # fmt: skip
"""plain values that a file with the digest that fits may hold; no large number for which a run would take long"""


def _replaced(rng: random.Random, value: Any, by: Any) -> Any:
    """A copy with another value at a random place; a number may also change a little, a key be removed or added."""
    value = copy.deepcopy(value)
    place = rng.choice(places(value)[1:] or [()])
    if not place:
        return by
    parent, key = part_at(value, place[:-1]), place[-1]
    kind = rng.random()
    if kind < 0.1:
        del parent[key]
    elif kind < 0.2 and isinstance(parent, dict):
        parent["more"] = by
    elif kind < 0.4 and type(parent[key]) in (int, float) and abs(parent[key]) < 1000:
        parent[key] += rng.choice((-1, 1))
    else:
        parent[key] = by
    return value


def _sealed_json(rng: random.Random, path: Path) -> None:
    values = json.loads(path.read_text())
    values.pop("sha256", None)
    changed = _replaced(rng, values, rng.choice(VALUES))
    path.write_text(json.dumps(sealed(changed) if isinstance(changed, dict) else changed))


def _tensors(rng: random.Random, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of which one has another name, dtype, shape or numbers, or is missing."""
    tensors = dict(tensors)
    name = rng.choice(sorted(tensors))
    tensor = tensors.pop(name)
    change = rng.randrange(9)
    if change == 1:
        tensors["other"] = tensor
    elif change == 2:
        tensors[name] = tensor.to(rng.choice((torch.float64, torch.int64, torch.bool, torch.complex64, torch.bfloat16)))
    elif change == 3:
        tensors[name] = tensor.reshape(-1)[: rng.randrange(max(1, tensor.numel()))].clone()
    elif change == 4:
        tensors[name] = torch.full(tensor.shape, rng.choice((torch.nan, torch.inf, 1e30))).to(tensor.dtype)
    elif change == 5:
        tensors[name] = tensor[None].repeat(2, *[1] * tensor.ndim)
    elif change == 6:
        tensors[name] = torch.zeros(0)
    elif change == 7:
        tensors |= {name: tensor, "more": torch.ones(2)}
    elif change == 8:
        tensors[name] = torch.zeros_like(tensor)
    return tensors


def _sealed_tensors(rng: random.Random, path: Path) -> None:
    """Other tensors in a checkpoint, with the hashes that fit."""
    content = safetensors.torch.save(_tensors(rng, safetensors.torch.load_file(path)))
    path.write_bytes(content)
    head = path.with_suffix(".json")
    values = {name: part for name, part in json.loads(head.read_text()).items() if name != "sha256"}
    head.write_text(json.dumps(sealed(values | {"tensors_sha256": hashlib.sha256(content).hexdigest()})))


def _sealed_parameters(rng: random.Random, path: Path) -> None:
    """Other final parameters, with the digest that fits; that of an export's `config.json` fits, too."""
    state = _tensors(rng, safetensors.torch.load_file(path))
    write_parameters(path, state)
    config = path.with_name("config.json")
    values = json.loads(config.read_text())
    if "library" in values:
        config.write_text(json.dumps(values | {"sha256": digest(state)}))


def _sealed_snapshot(rng: random.Random, path: Path) -> None:
    content = path.read_bytes()[32:]
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    content = safetensors.torch.save(_tensors(rng, safetensors.torch.load(content)), metadata)
    path.write_bytes(hashlib.sha256(content).digest() + content)


FORGERIES: dict[str, dict[str, Damage]] = {
    "json": {"a sealed value": _sealed_json, "another sealed value": _sealed_json},
    "checkpoint": {"sealed tensors": _sealed_tensors},
    "parameters": {"sealed parameters": _sealed_parameters},
    "snapshot": {"a sealed snapshot": _sealed_snapshot},
}
"""kind of seal -> changes with the digests that fit, by name: forgeries, which are computed with"""
