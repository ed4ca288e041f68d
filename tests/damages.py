"""Ways to damage a file: cut, changed, or of another kind. `forgeries.py` has those with digests that fit."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HOLE = "a value that is replaced"
NESTED = "[" * 5000 + "]" * 5000
TEXTS = (
    "null", "true", "-1", "0", "0.5", '"x"', '""', "[]", "{}", "[[1]]", '{"a": 1}', "1e999", "-1e999", "NaN",
    "Infinity", "1e308", "9" * 30, "9" * 400, "9" * 5000, NESTED, '{"a":' * 3000 + "1" + "}" * 3000, '"\\ud800"',
    '"\\u001b[31m"',
    '"' + "x" * 100_000 + '"', "", "1.", "'x'",
)  # fmt: skip
"""of other values, some of which are no JSON"""
Damage = Callable[[random.Random, Path], None]


# any file


def _bytes(change: Callable[[random.Random, bytearray], bytes | bytearray]) -> Damage:
    def damage(rng: random.Random, path: Path) -> None:
        path.write_bytes(change(rng, bytearray(path.read_bytes())))

    return damage


def _flip(rng: random.Random, content: bytearray) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 4))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _noise(rng: random.Random, content: bytearray) -> bytearray:
    start = rng.randrange(len(content))
    length = min(len(content) - start, rng.choice((1, 16, 512)))
    content[start : start + length] = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
    return content


def _moved(rng: random.Random, content: bytearray) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return bytes(content[:start] + content[end:] + content[start:end])


def _instead(make: Callable[[Path], None]) -> Damage:
    def damage(rng: random.Random, path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _elsewhere(rng: random.Random, path: Path) -> None:
    outside = path.parents[len(path.parts) - 1 - path.parts.index("case")] / "outside"
    outside.mkdir(exist_ok=True)
    path.symlink_to(path.rename(outside / path.name))


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    server = socket.socket(socket.AF_UNIX)
    try:
        server.bind(f"/proc/self/fd/{here}/{path.name}")  # a path of any length
    finally:
        server.close()
        os.close(here)


ANY: dict[str, Damage] = {
    "cut": _bytes(lambda rng, content: content[: rng.randrange(len(content))]),
    "begun later": _bytes(lambda rng, content: content[rng.randrange(len(content)) :]),
    "flip": _bytes(_flip),
    "noise": _bytes(_noise),
    "moved": _bytes(_moved),
    "two copies": _bytes(lambda rng, content: content + content),
    "empty": _bytes(lambda rng, content: b""),
    "gone": _instead(lambda path: None),
    "link elsewhere": _elsewhere,
    "link to nothing": _instead(lambda path: path.symlink_to(path.with_name("nothing"))),
    "link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "link to a device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "pipe": _instead(os.mkfifo),
    "socket": _instead(_socket),
    "directory": _instead(lambda path: path.mkdir()),
}
"""name -> damage of a file of any form"""


# JSON


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a value, itself included."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, part in parts for found in places(part, (*place, key)))]


def part_at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _text(rng: random.Random, text: str) -> str:
    """The text of a JSON value with another text in place of a random part, or with a key twice."""
    value = json.loads(text)
    place = rng.choice(places(value))
    part = json.dumps(part_at(value, place))
    other = rng.choice([text for text in TEXTS if text != part])
    if place and isinstance(place[-1], str) and rng.random() < 0.25:
        other = f"{part}, {json.dumps(place[-1])}: {rng.choice((part, other))}"
    return json.dumps(_with(value, place, HOLE)).replace(json.dumps(HOLE), other, 1)


def _with(value: Any, place: tuple[Any, ...], part: Any) -> Any:
    if not place:
        return part
    value = copy.deepcopy(value)
    part_at(value, place[:-1])[place[-1]] = part
    return value


def _json(rng: random.Random, path: Path) -> None:
    path.write_text(_text(rng, path.read_text()))


def _line(rng: random.Random, path: Path) -> None:
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    kind = rng.random()
    if kind < 0.1:
        lines.insert(number, rng.choice((lines[number], lines[0])))
    elif kind < 0.2:
        del lines[number]
    else:
        lines[number] = _text(rng, lines[number])
    path.write_text("".join(f"{line}\n" for line in lines))


# other forms


def _header(rng: random.Random, path: Path) -> None:
    """Another text in the header of a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = _text(rng, content[8 : 8 + length].decode()).encode()
    claimed = len(text) if rng.random() < 0.8 else rng.choice((0, 2**20, 2**40, 2**63))
    path.write_bytes(claimed.to_bytes(8, "little") + text + content[8 + length :])


def _arrays(rng: random.Random, path: Path) -> None:
    """An npz file of which one array has another dtype, shape, name or header."""
    with np.load(path) as file:
        arrays = dict(file)
    name = rng.choice(sorted(arrays))
    array = arrays.pop(name)
    kind = rng.randrange(8)
    if kind == 0:
        header = rng.choice(("(" * 9000, "{'descr': '|u1', 'fortran_order': False, 'shape': (10**30,), }", "x", NESTED))
        size = len(header).to_bytes(4, "little")
        np.savez(path, **arrays)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(f"{name}.npy", b"\x93NUMPY\x02\x00" + size + header.encode() + bytes(64))
        return
    others = {
        1: lambda: array.astype(float) * np.nan, 2: lambda: array[:0], 3: lambda: array.reshape(-1)[:5],
        4: lambda: np.array([print], object), 5: lambda: array.astype("U8"), 6: lambda: array.astype("m8[s]"),
    }  # fmt: skip
    np.savez(path, **(arrays if kind == 7 else arrays | {name: others[kind]()}))


def _pickle(rng: random.Random, path: Path) -> None:
    """A pickle that would start a program, or that nests or names what no published file does."""
    opened = b"\x80\x02}("
    nested = opened + b")" + b"\x85" * 100_000 + b"K\x01u."
    reduced = b"\x80\x02cos\nsystem\n(U\x04trueoR."
    path.write_bytes(
        rng.choice((nested, reduced, b"\x80\x02chostile_code\nmake\n)R.", b"\x80\x02]q\0h\0a.", opened + b"u."))
    )


SETTINGS = (
    "trusted = 1\n", "trusted = [[[", "trusted = [1]\n", 'trusted = ["os"]\n', "[trusted]\n", "\ufeff", "a = 1e999\n",
    f"trusted = {NESTED}", 'trusted = ["a b"]\n', f"a = {'9' * 5000}\n",
)  # fmt: skip
"""texts of settings"""


def _words(rng: random.Random, path: Path) -> None:
    other = rng.choice(SETTINGS)
    path.write_text(other if rng.random() < 0.7 else path.read_text() + other)


def _rewrite(rng: random.Random, path: Path) -> None:
    """A zip archive with another content in one member, and the checksum that fits."""
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(path, "w") as new:
        chosen = rng.choice(old.namelist())
        for member in old.namelist():
            data = old.read(member)
            new.writestr(member, _flip(rng, bytearray(data or b"x")) if member == chosen else data)


FORMS: dict[str, dict[str, Damage]] = {
    "json": {"another value": _json, "another text": _json},
    "lines": {"another value": _line, "another line": _line, "another text": _line},
    "safetensors": {"another header": _header},
    "npz": {"another array": _arrays, "another member": _rewrite},
    "pickle": {"another pickle": _pickle},
    "zip": {"another member": _rewrite, "another pickle": _pickle},
    "toml": {"another text": _words},
    "other": {},
}
"""form -> further damages of its files, by name"""


def remove(path: Path) -> None:
    """Removes a directory, if there is one."""
    if path.exists():
        shutil.rmtree(path)
