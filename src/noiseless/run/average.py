"""The exponential average of a model's states over the steps, which is evaluated in the model's place.

Step 9 of a training step: the average follows the step that is done, and training does not see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


class Average:
    """An exponential average of a model's parameters and buffers.

    It begins as a copy of the model's state, and with each step becomes

        average <- momentum * average + (1 - momentum) * state

    element by element, in each tensor's own dtype: t steps later the first state has the weight `momentum**t`. Whole
    numbers, like batch norm's counters, are taken over as they are. (Averaging of iterates: Polyak and Juditsky, 1992,
    doi 10.1137/0330046.)

    Args:
        model: whose states are averaged.
        momentum: in [0, 1); with 0 the average is the newest state.

    Attributes:
        state: the average by state name.

    Raises:
        ValueError: for a momentum out of range.
    """

    def __init__(self, model: nn.Module, momentum: float):
        if not 0 <= momentum < 1:
            raise ValueError(f"the momentum of an average must be a number in [0, 1), not {momentum}")
        self._model, self._momentum = model, momentum
        self.state: dict[str, Tensor] = {name: t.clone() for name, t in model.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes the average that a checkpoint holds."""
        for name, average in self.state.items():
            average.copy_(state[name])

    def follow(self) -> None:
        """Takes in the state of the model after a step."""
        for name, now in self._model.state_dict().items():
            average = self.state[name]
            if average.is_floating_point():
                # each operation rounds by itself: a fused one might be used for a part of the elements only
                average.mul_(self._momentum).add_(now * (1 - self._momentum))
            else:
                average.copy_(now)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it the model's state is the average; after it, bit by bit what it was.

        Yields:
            Nothing.
        """
        trained = {name: t.clone() for name, t in self._model.state_dict().items()}
        self._model.load_state_dict(self.state)
        try:
            yield
        finally:
            self._model.load_state_dict(trained)
