"""Which parameters an objective's value depends on. Torch's own loop leaves `.grad` None where it does not.

Each block reports the parameters that its loss does not reach, as bits in float64 numbers, which ride in the sweep's
table of numbers by block. So the answer is the same for any number of workers and after a restart.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from noiseless.objective.space import ParameterSpace

BITS = 52
"""parameters in one number; float64 holds integers of 53 bits"""


def rows(parameters: int) -> int:
    """R, how many numbers hold one bit for each parameter tensor."""
    return -(-parameters // BITS)


@lru_cache(maxsize=64)
def packed(unreached: tuple[bool, ...], device: torch.device) -> Tensor:
    """One bit for each parameter.

    Args:
        unreached: whether a block's loss does not reach the parameter.
        device: of the result.

    Returns:
        float64 `[R]`; it is shared, so it must not be modified.
    """
    parts = [unreached[first : first + BITS] for first in range(0, len(unreached), BITS)]
    numbers = [sum(bit << place for place, bit in enumerate(part)) for part in parts]
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def unused(table: Tensor, space: ParameterSpace, gradient: Tensor) -> tuple[str, ...]:
    """The parameters that no block reaches, and whose gradient is 0.

    Args:
        table: by block, what `packed` returns, float64 `[R, blocks]` on the CPU.
        space: of the parameters.
        gradient: `[P]`; where it is not 0, something else than the blocks' losses reaches the parameter.

    Returns:
        Their names.
    """
    common = [_common(numbers) for numbers in table] if table.any() else [0]
    if not any(common):
        return ()
    names = [name for place, name in enumerate(space.names) if common[place // BITS] >> place % BITS & 1]
    parts = space.split(gradient)
    return tuple(name for name in names if not parts[name].any())


def _common(numbers: Tensor) -> int:
    """The bits that all numbers have."""
    bits = -1
    for number in numbers.unique().tolist():
        bits &= int(number)
    return bits
