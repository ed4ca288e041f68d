"""Steps on a quadratic as a linear recursion, and the largest eigenvalue at which they do not grow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRID = 64
"""points on the unit circle for each part, between which a crossing is looked for"""


@dataclass(frozen=True)
class Recursion:
    """The steps of an optimizer with momentum along one eigenvector of a quadratic, with the eigenvalue a.

    With K parts, a direction is the mean of the newest gradients of all parts, `(a / K) sum_{j < K} x_{t-j}`, if the
    parts have one Hessian: each update renews one gradient of K. Then

        g_t = (a / K) sum_{j < K} x_{t-j} + coupled x_t
        v_{t+1} = momentum v_t + gain g_t
        x_{t+1} = (1 - lr decoupled) x_t - lr v_{t+1},    Nesterov: v_{t+1} replaced by g_t + momentum v_{t+1}.
    """

    lr: float
    momentum: float = 0.0
    gain: float = 1.0
    nesterov: bool = False
    coupled: float = 0.0
    """weight decay that is added to the gradient"""
    decoupled: float = 0.0
    """weight decay that is not"""

    def edge(self, parts: int = 1) -> float | None:
        """The smallest positive eigenvalue at which a root of the recursion reaches the unit circle.

        Along `z = exp(i phi)` the recursion fixes one complex a; the edge is the smallest real and positive one. For
        one part it lies at z = -1.

        Args:
            parts: K.

        Returns:
            The edge; None if there is none, as for a decay that lets steps grow at any eigenvalue.
        """
        edges = [float(self._eigenvalues(np.pi, parts).real)]
        if parts > 1:
            from scipy.optimize import brentq

            angles = np.linspace(0, np.pi, GRID * parts + 2)[1:-1]
            signs = np.sign(self._eigenvalues(angles, parts).imag)
            for k in np.flatnonzero(signs[:-1] != signs[1:]):
                angle = brentq(lambda angle: float(self._eigenvalues(angle, parts).imag), angles[k], angles[k + 1])
                at = complex(self._eigenvalues(angle, parts))
                if abs(at.imag) <= 1e-6 * abs(at.real):  # else the mean over the parts is zero there, and a infinite
                    edges.append(at.real)
        return min((edge for edge in edges if edge > 0), default=None)

    def _eigenvalues(self, angles: ArrayLike, parts: int) -> NDArray[np.complex128]:
        """The eigenvalue a at which `exp(i angle)` is a root, for each angle."""
        z = np.exp(1j * np.asarray(angles))
        step = 1 / (1 - self.momentum / z)
        step = self.lr * (1 + self.momentum * step if self.nesterov else self.gain * step)
        mean = np.mean(z[..., None] ** -np.arange(parts), axis=-1)
        return np.asarray(-((z - 1 + self.lr * self.decoupled) / step + self.coupled) / mean)
