"""Linear mode connectivity: how two states have parted, and the loss on the straight line between them.

Both are questions about two states of one module: those that two runs have reached from one start. (Frankle et al.,
arXiv 1912.05671.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from noiseless.analysis.landscape import LandscapePoint
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.objective import EmpiricalRisk
from noiseless.objective.base import FORWARD, SLICE

State = Mapping[str, Tensor]
"""parameters and buffers by name, as `module.state_dict()` has them"""
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""bytes of an element -> the integer dtype that has its bits"""


@dataclass(frozen=True)
class Divergence:
    """How far two states a and b are apart that were reached from one start s."""

    distance: float
    """`||a - b||`"""
    first_displacement: float
    """`||a - s||`"""
    second_displacement: float
    """`||b - s||`"""
    cosine: float | None
    """`(a - s) . (b - s) / (||a - s|| ||b - s||)`; None where a or b is the start"""
    different: int
    """number of parameters in which a and b differ"""


def divergence(start: Tensor, first: Tensor, second: Tensor) -> Divergence:
    """Distance of two states, and the cosine of their displacements from a common start, in float64.

    Args:
        start: s, `[P]`.
        first: a, `[P]`.
        second: b, `[P]`.

    Returns:
        Both, and the lengths of the displacements. They are 0 where the states are equal to the bit.

    Raises:
        ValueError: if the shapes differ.
    """
    if not start.shape == first.shape == second.shape:
        shapes = [list(vector.shape) for vector in (start, first, second)]
        raise ValueError(f"the three states are {shapes[0]}, {shapes[1]} and {shapes[2]}: they are not of one model")
    squares = torch.zeros(4, dtype=torch.float64)
    different = 0
    for s, a, b in zip(*(vector.detach().cpu().split(SLICE) for vector in (start, first, second)), strict=True):
        along, across = a.double() - s.double(), b.double() - s.double()
        apart = a.double() - b.double()
        squares += torch.stack([apart @ apart, along @ along, across @ across, along @ across])
        different += int((a != b).sum())
    distance, one, other = squares[:3].sqrt().tolist()
    cosine = float(squares[3]) / (one * other) if one and other else None
    return Divergence(distance, one, other, cosine, different)


@dataclass(frozen=True)
class Barrier:
    """The height of a function on a line above the chord between its ends."""

    height: float
    """`max_k (f(a_k) - ((1 - a_k) f(0) + a_k f(1)))` over the inner points a_k; below 0 where the function lies under
    the chord, as a convex one does"""
    at: float
    """the a_k where it is largest"""
    over_mean: float
    """`max_k f(a_k) - (f(0) + f(1)) / 2` over all points: the instability of arXiv 1912.05671 where f is the error"""


def barrier(coordinates: Sequence[float], values: Sequence[float | None]) -> Barrier | None:
    """The barrier of a function on a line from 0 to 1.

    Args:
        coordinates: a_k, rising from 0 to 1, at least three.
        values: `f(a_k)`; None: not finite.

    Returns:
        The barrier; None if a value is not finite.

    Raises:
        ValueError: for other coordinates, or another number of values.
    """
    if len(coordinates) != len(values) or len(values) < 3 or (coordinates[0], coordinates[-1]) != (0, 1):
        raise ValueError(
            f"a barrier needs at least three points from 0 to 1 and a value at each, not {len(values)} values at"
            f" {list(coordinates)}"
        )
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(finite) < len(values):
        return None
    begin, end = finite[0], finite[-1]
    inner = list(zip(coordinates, finite, strict=True))[1:-1]
    height, at = max(((f - ((1 - a) * begin + a * end), a) for a, f in inner), key=lambda pair: pair[0])
    return Barrier(height, at, max(finite) - (begin + end) / 2)


@dataclass(frozen=True)
class LinearPath:
    """The straight line between two states of a module: parameters and buffers `(1 - a) start + a end`.

    A point is computed in float64 and rounded to the dtype of each tensor, so that the ends are exact. Buffers of whole
    numbers are those of the nearer end.

    With `batch_norm="block"`, loss and accuracy are those of training, by the statistics of each norm block, and batch
    norm's buffers become the average of these statistics over all blocks at the point, which costs a full pass. With
    `"running"` they are those of evaluation, with the buffers on the line. Without batch norm both need forwards only.
    """

    risk: EmpiricalRisk
    """over the training examples; its module is moved, and restored"""
    start: State
    """the state at 0"""
    end: State
    """the state at 1"""
    batch_norm: BatchNorm = "block"

    @property
    def passes(self) -> float:
        """Cost of a point, in passes."""
        return self.risk.passes * (1.0 if self._estimates else FORWARD)

    @property
    def _estimates(self) -> bool:
        """Whether a point gets batch-norm statistics of its own."""
        return self.batch_norm == "block" and self.risk.norm.length > 0

    @contextmanager
    def at(self, coordinate: float) -> Iterator[LandscapePoint]:
        """A context in which the module holds the point of a coordinate, to evaluate it on other examples, too.

        Args:
            coordinate: a.

        Yields:
            Loss and accuracy on the risk's examples, without a penalty.
        """
        module = self.risk.space.module
        saved = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        try:
            _write(module, {name: _between(self.start[name], self.end[name], coordinate) for name in saved})
            with module_mode(module, self.batch_norm):
                yield self._measured()
        finally:
            _write(module, saved)

    def _measured(self) -> LandscapePoint:
        """Loss and accuracy at the module's parameters; writes batch norm's buffers where they are estimated."""
        if not self._estimates:
            measured = self.risk.measure()
            loss, accuracy = measured.loss, measured.accuracy
        else:
            risk = replace(self.risk, statistics="average")
            evaluation = risk.evaluate()
            risk.accept(evaluation)
            loss, accuracy = evaluation.loss, evaluation.accuracy
        finite = math.isfinite(loss)
        return LandscapePoint(loss if finite else None, accuracy if finite else None, None, self.passes)


def linear_path(
    path: LinearPath, coordinates: Sequence[float], on_point: Callable[[LandscapePoint], None] = lambda point: None
) -> list[LandscapePoint]:
    """Loss and accuracy at points of the line between two states.

    Args:
        path: the line.
        coordinates: a of each point.
        on_point: called with each point while the module holds it.

    Returns:
        The points. `barrier` has the height of the loss between them.
    """
    points = []
    for coordinate in coordinates:
        with path.at(coordinate) as point:
            on_point(point)
        points.append(point)
    return points


def flip_bit(tensor: Tensor, index: Sequence[int], bit: int) -> Tensor:
    """A copy of a tensor in which one bit of one element is the other one.

    Args:
        tensor: of any real dtype.
        index: of the element, one number for each dimension.
        bit: from 0, the lowest of the mantissa, to the sign, which is the highest.

    Returns:
        The copy.

    Raises:
        ValueError: if there is no such element or bit.
    """
    shape, bits = list(tensor.shape), 8 * tensor.element_size()
    if len(index) != len(shape) or not all(0 <= k < size for k, size in zip(index, shape, strict=True)):
        raise ValueError(f"there is no element {list(index)} in a tensor of shape {shape}: indices count from 0")
    if not 0 <= bit < bits:
        raise ValueError(f"a number of {tensor.dtype} has the bits 0 to {bits - 1}, and no bit {bit}")
    flipped = tensor.detach().clone(memory_format=torch.contiguous_format)
    pattern = flipped.view(INTEGERS[tensor.element_size()])
    mask = 1 << bit
    pattern[tuple(index)] ^= mask - (1 << bits) if bit == bits - 1 and bits > 8 else mask  # signed integers
    return flipped


def changed_elements(first: State, second: State) -> dict[str, int]:
    """The tensors in which two states of one module differ to the bit, with the number of elements.

    Args:
        first: a state.
        second: another one, with the same tensors.

    Returns:
        Name -> number of elements whose bits differ, without tensors that are equal.
    """
    counts = {}
    for name, tensor in first.items():
        integers = INTEGERS[tensor.element_size()]
        one, other = (t.detach().cpu().contiguous().view(integers) for t in (tensor, second[name]))
        if different := int((one != other).sum()):
            counts[name] = different
    return counts


@torch.no_grad()
def _write(module: nn.Module, state: State) -> None:
    """Copies a state into a module's tensors, which stay where they are."""
    for name, tensor in module.state_dict().items():
        tensor.copy_(state[name])


def _between(start: Tensor, end: Tensor, coordinate: float) -> Tensor:
    """`(1 - a) start + a end`, rounded to the dtype; for whole numbers the nearer end."""
    if not start.is_floating_point():
        return start if coordinate < 0.5 else end
    if coordinate in (0, 1):
        return end if coordinate else start
    return ((1 - coordinate) * start.double() + coordinate * end.double()).to(start.dtype)
