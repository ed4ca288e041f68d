"""Short calls of the analyses that take any module."""

from __future__ import annotations

from torch import nn

import noiseless

LOSS = nn.CrossEntropyLoss()

RESULTS = {
    "sharpness": lambda m, d, **o: noiseless.sharpness(m, LOSS, d, k=2, smallest=1, **o),
    "hessian_density": lambda m, d, **o: noiseless.hessian_density(m, LOSS, d, probes=2, steps=5, **o),
    "hessian_trace": lambda m, d, **o: noiseless.hessian_trace(m, LOSS, d, products=9, **o),
    "curvature_by_layer": lambda m, d, **o: noiseless.curvature_by_layer(m, LOSS, d, k=2, probes=3, **o),
    "gradient_noise_scale": lambda m, d, **o: noiseless.gradient_noise_scale(m, LOSS, d, **{"block": 3} | o),
    "loss_landscape": lambda m, d, **o: noiseless.loss_landscape(m, LOSS, d, points=(3, 4), **o),
    "flatness": lambda m, d, **o: noiseless.flatness(m, LOSS, d, most=5, **o),
}
"""name of each analysis -> a short call of it"""
