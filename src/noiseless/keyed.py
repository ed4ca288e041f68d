"""Randomness as a pure function of (seed, stream, step, index).

Every draw of the program (initialisation, augmentation, shuffling, dropout, noise) comes from here. No generator
state runs on from one draw to the next, so neither the order of the blocks, nor the number of workers, nor a resumed
run can change what is drawn. The generator is Philox4x32-10 (Salmon et al., SC 2011, doi 10.1145/2063384.2063405).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_PART = 2**16
Word = TypeVar("Word", Tensor, int)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Philox4x32-10: encrypts a 128-bit counter under a 64-bit key.

    Args:
        counter: four tensors of one shape, int64, each holding a 32-bit word.
        key: two 32-bit words.

    Returns:
        Four random 32-bit words for each counter, int64 `[..., 4]`.
    """
    return torch.stack(_encrypted(*counter, *key), dim=-1)


def _encrypted(c0: Word, c1: Word, c2: Word, c3: Word, k0: int, k1: int) -> tuple[Word, Word, Word, Word]:
    """The cipher, on words that are all tensors or all numbers."""
    for _ in range(_ROUNDS):
        # A 32 x 32 bit product fills 64 bits; int64 wraps, and the arithmetic shift is masked, so no bit is lost.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            ((product0 >> 32) & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(seed: int, stream: str, step: int, index: Tensor) -> Tensor:
    """Four random 32-bit words for each index.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        stream: what the draw is for ("shuffle", "augment", ...); streams are independent.
        step: the step or epoch, 0 <= step < 2**32.
        index: example, block or element numbers, int64 of any shape.

    Returns:
        int64 `[*index.shape, 4]`, each word uniform on 0 ... 2**32 - 1.

    Raises:
        ValueError: if the seed or the step is out of range.
    """
    constant = torch.zeros_like(index)
    return torch.stack(_words(seed, stream, step, index, constant), dim=-1)


def _words(seed: int, stream: str, step: int, index: Word, zero: Word) -> tuple[Word, Word, Word, Word]:
    """`words` for a tensor or a number."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in 0 ... 2**64 - 1, not {seed}")
    if not 0 <= step < 2**32:
        raise ValueError(f"step must lie in 0 ... 2**32 - 1, not {step}")
    stream_word = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "little")
    counter = (index & _MASK, (index >> 32) & _MASK, zero + step, zero + stream_word)
    return _encrypted(*counter, seed & _MASK, seed >> 32)


def uniform(seed: int, stream: str, step: int, index: Tensor) -> Tensor:
    """One number for each index, uniform on the open interval (0, 1) with 52 bits: float64, shaped like `index`."""
    return _fraction(*words(seed, stream, step, index)[..., :2].unbind(-1))


def normal(seed: int, stream: str, step: int, index: Tensor) -> Tensor:
    """One standard normal number for each index (Box and Muller, 1958): float64, shaped like `index`."""
    w0, w1, w2, w3 = words(seed, stream, step, index).unbind(-1)
    return (-2 * _fraction(w0, w1).log()).sqrt() * (2 * torch.pi * _fraction(w2, w3)).cos()


def integers(seed: int, stream: str, step: int, index: Tensor, high: int) -> Tensor:
    """One integer for each index, uniform on 0 ... high - 1 up to a bias below high / 2**32: int64, like `index`."""
    return (words(seed, stream, step, index)[..., 0] * high) >> 32


def permutation(seed: int, stream: str, step: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """A random order of 0 ... count - 1: int64 `[count]`."""
    # in parts, because the words of n examples take some 30 int64 tensors of length n while they are computed
    parts = torch.arange(count, device=device).split(_PART)
    return torch.argsort(torch.cat([torch_seeds(seed, stream, step, part) for part in parts]), stable=True)


def torch_seeds(seed: int, stream: str, step: int, index: Tensor) -> Tensor:
    """One seed for torch's own generators for each index: 63 bits, int64, shaped like `index`."""
    return _torch_seed(words(seed, stream, step, index).unbind(-1))


def _torch_seed(random_words: Sequence[Word]) -> Word:
    return (random_words[0] << 31) | (random_words[1] >> 1)


@contextmanager
def torch_generators(seed: int, stream: str, step: int, index: int, device: torch.device) -> Iterator[None]:
    """Context manager that seeds torch's own generators, which dropout and `nn.init` use.

    The generators are seeded from (seed, stream, step, index) and restored at the end. So the code in the `with` block
    draws the same numbers whenever and wherever it runs, and the code around it is not affected.

    Yields:
        Nothing.
    """
    key = _torch_seed(_words(seed, stream, step, index, 0))
    accelerators = [device] if device.type not in ("cpu", "meta") else []
    with torch.random.fork_rng(accelerators, device_type=device.type if accelerators else "cuda"):
        torch.default_generator.manual_seed(key)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(key)
        yield


def _fraction(high: Tensor, low: Tensor) -> Tensor:
    # an integer of 52 bits plus 0.5 is exact in float64, so the result is never 0 and never 1
    return ((high << 20 | low >> 12).double() + 0.5) * 2.0**-52
