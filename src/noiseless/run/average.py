"""An exponential average of a model's parameters and buffers over the steps, evaluated in the model's place.

Step 9 of a training step: the average is updated after the step and has no influence on training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class Average:
    """An exponential average of a model's parameters and buffers.

    It begins as a copy of the model's state. Each step changes it to

        average <- momentum * average + (1 - momentum) * state

    element by element, in the dtype of each tensor: after t steps the first state has the weight `momentum**t`.
    Integers, such as batch norm's counters, are copied from the state. (Averaging of iterates: Polyak and Juditsky,
    1992, doi 10.1137/0330046.)

    Args:
        model: the model to average.
        momentum: in [0, 1); with 0 the average is the newest state.

    Attributes:
        state: the average, by names of the model's state dict.

    Raises:
        ValueError: for a momentum out of range.
    """

    def __init__(self, model: nn.Module, momentum: float):
        if not 0 <= momentum < 1:
            raise ValueError(f"the momentum of an average must be a number in [0, 1), not {momentum}")
        self._model, self._momentum = model, momentum
        self.state: dict[str, Tensor] = {name: t.clone() for name, t in model.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Sets the average to one from a checkpoint."""
        for name, average in self.state.items():
            average.copy_(state[name])

    def update(self) -> None:
        """Updates the average with the model's state after a step."""
        for name, tensor in self._model.state_dict().items():
            average = self.state[name]
            if average.is_floating_point():
                # separate operations, each of which rounds: a fused one might be used for a part of the elements only
                average.mul_(self._momentum).add_(tensor * (1 - self._momentum))
            else:
                average.copy_(tensor)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """A context in which the model holds the average; at its end the model gets its state back, bit by bit.

        Yields:
            Nothing.
        """
        trained = {name: t.clone() for name, t in self._model.state_dict().items()}
        self._model.load_state_dict(self.state)
        try:
            yield
        finally:
            self._model.load_state_dict(trained)
