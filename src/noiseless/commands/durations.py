"""Durations as shares of the run: `--warmup 10%` is a number of steps before the parser sees it."""

from __future__ import annotations

import re

from noiseless.commands.parsing import given_flags
from noiseless.errors import shown

DURATIONS = {
    "warmup": 0, "horizon": 1, "switch": 1, "evaluate_every": 1, "keep_every": 1, "sharpness_every": 1,
    "noise_every": 1, "layers_every": 1,
}  # fmt: skip
"""flag whose value may be a share of --steps -> its smallest number of steps"""
SHARE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)%")


def without_shares(arguments: list[str], steps: int) -> list[str]:
    """The arguments with each share of the run replaced by its number of steps.

    Args:
        arguments: of the command.
        steps: of the run where `--steps` is not given.

    Returns:
        The arguments.

    Raises:
        ValueError: for a share in a flag that is no duration.
    """
    values = given_flags(arguments)
    text = values.get("steps", "")
    steps = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else steps
    changed: list[str] = []
    flag = ""
    for argument in arguments:
        before, flag = flag, argument.partition("=")[0] if argument.startswith("--") else ""
        name, value = (flag, argument.partition("=")[2]) if "=" in argument and flag else (before, argument)
        match = SHARE.fullmatch(value) if name else None
        duration = name.removeprefix("--").replace("-", "_")
        if match is None:
            changed.append(argument)
            continue
        if duration not in DURATIONS:
            raise ValueError(f"{name} takes no share of the steps, such as {shown(value)}: give a number")
        count = str(max(DURATIONS[duration], round(float(match[1]) / 100 * steps)))
        changed.append(count if value == argument else f"{flag}={count}")
    return changed
