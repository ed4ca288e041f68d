"""The parameter space: a module's trainable parameters as one flat vector `theta [P]` with named views.

Optimizers, penalties, Hessian products and landscapes all work with vectors `[P]`. Copies are avoided: each parameter's
data is a part of the memory of `theta`, each parameter's `.grad` a part of that of one gradient vector.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from noiseless.objective.storages import are_parts, parts_of

_spaces: WeakKeyDictionary[nn.Module, ParameterSpace] = WeakKeyDictionary()


def parameter_space(module: nn.Module) -> ParameterSpace:
    """The parameter space of a module: the same one at every call, so that all objectives on it share `theta`.

    Returns:
        The module's existing space; a new one at the first call, or if the set of trainable parameters has changed.

    Raises:
        ValueError: if the module has no trainable parameter, they differ in dtype or device, or one of them is complex,
            has no shape yet, or shares memory with another parameter.
    """
    space = _spaces.get(module)
    if space is None or not space.describes(module):
        space = _spaces[module] = ParameterSpace(module)
    return space


@contextmanager
def borrowed(module: nn.Module) -> Iterator[None]:
    """A context in which objectives may use a module; at its end each parameter has its memory of before again.

    What objectives keep for the module is dropped, too, unless there were objectives of it before.

    Yields:
        Nothing.
    """
    lazy = UninitializedParameter
    tensors = [(p, p.data) for p in module.parameters() if p.requires_grad and not isinstance(p, lazy)]
    before = _spaces.get(module)
    try:
        yield
    finally:
        for p, data in tensors:
            p.data = data
        if before is None:
            _spaces.pop(module, None)


class ParameterSpace:
    """The trainable parameters of a module as one flat vector `theta [P]`.

    Frozen parameters (`requires_grad=False`) are not part of it; a parameter that two modules share is counted once.

    Attributes:
        names: the parameters' names, in the module's order.
        shapes: their shapes.
        sizes: their numbers of elements; they sum to `P`.
        dimensions: numbers of dimensions by name, of all parameters of the module, frozen ones included.
    """

    def __init__(self, module: nn.Module):
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("the module has no trainable parameter (requires_grad=True): there is nothing to train")
        _refuse(module, named)
        self.names = [name for name, _ in named]
        self._parameters = [p for _, p in named]
        self.shapes = [p.shape for p in self._parameters]
        self.sizes = [p.numel() for p in self._parameters]
        self.dimensions = {name: p.ndim for name, p in module.named_parameters()}
        self._module = ref(module)
        self._theta = self._gather()
        self._gradient: Tensor | None = None
        self._gradients: list[Tensor] = []

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def theta(self) -> Tensor:
        """The parameters, `[P]`; writing into it moves the module.

        If the parameters' data have been replaced (by `module.to(...)`), the vector is made anew.

        Raises:
            ValueError: if the parameters themselves have been replaced, frozen or added to.
        """
        module = self._module()
        if module is not None and not self.describes(module):
            raise ValueError("the module's trainable parameters have been replaced: make a new objective for it")
        if not are_parts(self._parameters, self._theta):
            self._theta = self._gather()
        return self._theta

    @property
    def module(self) -> nn.Module:
        """The module whose parameters these are.

        Raises:
            ValueError: if the module no longer exists.
        """
        module = self._module()
        if module is None:
            raise ValueError("the module of this parameter space no longer exists: keep it while its objective is used")
        return module

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self._parameters[0].device

    @property
    def parameters(self) -> tuple[torch.nn.Parameter, ...]:
        """The module's parameters, in the order of `names`."""
        return tuple(self._parameters)

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[None]:
        """A context in which the parameters have other values.

        They are written into the module, so that every way in which its forward reaches a parameter sees them. The
        backward has to run in the context, too, as it may run parts of the forward again (activation checkpointing).

        Args:
            vector: the values, `[P]`; `theta` itself costs nothing.

        Yields:
            Nothing.
        """
        theta = self.theta
        if vector.data_ptr() == theta.data_ptr():
            yield
            return
        saved = theta.clone()
        theta.copy_(vector)
        try:
            yield
        finally:
            theta.copy_(saved)

    def gradient(self, value: Tensor, along: Tensor | None = None, create_graph: bool = False) -> Tensor:
        """The gradient of a value with respect to the parameters, at the values that they have.

        Args:
            value: a scalar, or with `along` a vector.
            along: vector v of value's shape; the gradient is then that of the scalar `value . v`.
            create_graph: whether the gradient is to be differentiable.

        Returns:
            `[P]`; 0 where the value does not depend on a parameter.
        """
        return self.joined(self.derivatives(value, along, create_graph))

    def derivatives(
        self, value: Tensor, along: Tensor | None = None, create_graph: bool = False
    ) -> tuple[Tensor | None, ...]:
        """As `gradient`, parameter by parameter: None where the value does not depend on it."""
        if not value.requires_grad:
            return (None,) * len(self._parameters)
        retain = create_graph or along is not None
        return torch.autograd.grad(value, self._parameters, along, retain, create_graph, allow_unused=True)

    def joined(self, parts: Sequence[Tensor | None]) -> Tensor:
        """One vector `[P]` from one tensor for each parameter, with 0 for None."""
        filled = (p.new_zeros(p.shape) if g is None else g for p, g in zip(self._parameters, parts, strict=True))
        return torch.cat([part.reshape(-1) for part in filled])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector in the parameters' shapes.

        Args:
            vector: `[..., P]`; leading dimensions (several vectors at once) are kept.

        Returns:
            Parameter name -> its part of the vector, `[..., *shape]`.

        Raises:
            ValueError: if the last dimension is not `P`.
        """
        if vector.shape[-1] != len(self):
            raise ValueError(f"a vector of this parameter space has {len(self)} elements, not {vector.shape[-1]}")
        parts = vector.split(self.sizes, dim=-1)
        return {
            name: part.reshape((*part.shape[:-1], *shape))
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def set_gradient(self, gradient: Tensor, unused: Collection[str] = ()) -> None:
        """Writes a gradient `[P]` where `torch.optim` looks for it: into the parameters' `.grad`.

        Args:
            gradient: of all parameters.
            unused: names of the parameters whose `.grad` becomes None, so that optimizers leave them as they are.
        """
        theta = self.theta
        if self._gradient is None or self._gradient.device != theta.device or self._gradient.dtype != theta.dtype:
            self._gradient, self._gradients = torch.empty_like(theta), []
        self._gradient.copy_(gradient)
        if not (self._gradients and are_parts(self._gradients, self._gradient)):
            self._gradients = parts_of(self._gradient, self.shapes)
        for name, p, part in zip(self.names, self._parameters, self._gradients, strict=True):
            p.grad = None if name in unused else part

    def describes(self, module: nn.Module) -> bool:
        """Whether this is still the list of the module's trainable parameters."""
        trainable = [p for p in module.parameters() if p.requires_grad]
        return len(trainable) == len(self._parameters) and all(
            a is b for a, b in zip(trainable, self._parameters, strict=True)
        )

    def _gather(self) -> Tensor:
        kinds = {(str(p.dtype), str(p.device)) for p in self._parameters}
        if len(kinds) > 1:
            seen = ", ".join(f"{dtype} on {device}" for dtype, device in sorted(kinds))
            raise ValueError(
                f"all trainable parameters must have one dtype and one device, found {seen}; use module.to"
            )
        theta = torch.cat([p.detach().reshape(-1) for p in self._parameters])
        for p, part in zip(self._parameters, parts_of(theta, self.shapes), strict=True):
            p.data = part
        return theta


def _refuse(module: nn.Module, named: list[tuple[str, nn.Parameter]]) -> None:
    """Raises for parameters that cannot be parts of one vector, or that are not independent of each other."""
    empty = [name for name, p in named if isinstance(p, UninitializedParameter)]
    if empty:
        raise ValueError(f"{', '.join(empty)} of a lazy layer has no shape yet: call the module once on a few examples")
    complex_ = [f"{name} ({p.dtype})" for name, p in named if p.is_complex()]
    if complex_:
        raise ValueError(
            f"complex parameters cannot be trained: {', '.join(complex_)}. Keep real and imaginary parts in a real"
            " parameter of shape [..., 2], and use torch.view_as_complex in the forward"
        )
    extents = sorted((*_extent(p), name) for name, p in module.named_parameters() if p.numel() and not p.is_meta)
    for (_, end, one), (start, _, other) in pairwise(extents):
        if start < end:
            raise ValueError(
                f"the parameters {one} and {other} share memory, but each would be moved by itself: register one"
                " parameter, and compute the other from it in the forward (its transpose, a part of it)"
            )


def _extent(p: Tensor) -> tuple[int, int]:
    """Addresses of the first byte of a tensor's elements and of the byte after the last one."""
    last = sum((length - 1) * stride for length, stride in zip(p.shape, p.stride(), strict=True))
    return p.data_ptr(), p.data_ptr() + (last + 1) * p.element_size()
