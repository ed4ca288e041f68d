"""Parts of the parameter space, such as layers, and the block of an operator that belongs to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from noiseless.analysis.operator import Operator, VectorSpace
from noiseless.objective.space import ParameterSpace


@dataclass(frozen=True)
class Part:
    """Some of the parameters as a vector space of its own, in the order of the whole."""

    of: ParameterSpace
    """all parameters"""
    names: tuple[str, ...]
    """names of the parameters that belong to the part, in the order of the space"""

    def __post_init__(self) -> None:
        if not self.names or [name for name in self.of.names if name in set(self.names)] != list(self.names):
            raise ValueError(f"a part takes parameters of the space, each once and in its order, not {self.names}")

    def __len__(self) -> int:
        return sum(size for name, size in zip(self.of.names, self.of.sizes, strict=True) if name in self.names)

    @property
    def theta(self) -> Tensor:
        """The parameters, `[p]`: a copy."""
        return self.extract(self.of.theta.detach())

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.of.device

    @property
    def shapes(self) -> list[torch.Size]:
        """Shapes of the parameters."""
        return [shape for name, shape in zip(self.of.names, self.of.shapes, strict=True) if name in self.names]

    def extract(self, V: Tensor) -> Tensor:
        """The part of vectors `[..., P]`: `[..., p]`."""
        parts = zip(self.of.names, V.split(self.of.sizes, dim=-1), strict=True)
        return torch.cat([part for name, part in parts if name in self.names], dim=-1)

    def embed(self, V: Tensor) -> Tensor:
        """Vectors `[..., p]` of the part, with zeros in all other parameters: `[..., P]`."""
        filled = V.new_zeros(*V.shape[:-1], len(self.of))
        start = 0
        for name, part in zip(self.of.names, filled.split(self.of.sizes, dim=-1), strict=True):
            if name in self.names:
                size = part.shape[-1]
                part.copy_(V[..., start : start + size])
                start += size
        return filled


@dataclass(frozen=True)
class Restricted:
    """The block of a symmetric matrix that belongs to a part of the parameters: `S^T A S`, `[p, p]`.

    S puts a vector of the part among zeros. A product costs what one of the whole matrix costs.
    """

    operator: Operator
    """A, on the whole parameter space"""
    space: Part
    """the part"""

    def product(self, V: Tensor) -> Tensor:
        """The products with each row of `V [K, p]`, in one sweep: `[K, p]`."""
        return self.space.extract(self.operator.product(self.space.embed(V)))

    def passes(self, vectors: int) -> float:
        """Cost of the operator's product, in passes."""
        return self.operator.passes(vectors)


def layer_positions(space: VectorSpace) -> dict[str, list[int]]:
    """The layers of a space: the modules that hold parameters themselves.

    Args:
        space: all parameters, or a part of them.

    Returns:
        Name of the layer -> places of its parameters in the list of names. Parameters of the module itself are the
        layer `""`.
    """
    named: dict[str, list[int]] = {}
    for place, name in enumerate(space.names):
        named.setdefault(name.rpartition(".")[0], []).append(place)
    return named


def layer_parts(space: ParameterSpace) -> dict[str, Part]:
    """The layers of a module, with all parameters that each holds itself, in the module's order."""
    positions = layer_positions(space).items()
    return {layer: Part(space, tuple(space.names[k] for k in places)) for layer, places in positions}


def matching_part(space: ParameterSpace, pattern: str) -> Part:
    """The parameters that a pattern names.

    Args:
        space: of the module.
        pattern: as in a shell (`*`, `?`, `[...]`; `*` matches dots, too), of names of parameters or of modules that
            hold them: `layer3.*` and `layer3` both take all of layer3.

    Returns:
        The part.

    Raises:
        ValueError: if it matches no parameter; lists some names.
    """

    def matches(name: str) -> bool:
        parts = name.split(".")
        return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))

    names = tuple(name for name in space.names if matches(name))
    if not names:
        raise ValueError(
            f"no parameter matches {pattern!r}: give a pattern of names such as {_examples(list(layer_parts(space)))}"
        )
    return Part(space, names)


def _examples(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names if name] or ["'*'"]
    return ", ".join(shown[:4]) + (f" (of {len(shown)} layers)" if len(shown) > 4 else "")
