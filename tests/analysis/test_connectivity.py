"""How two states have parted, and the line between them, beside naive loops in float64."""

from __future__ import annotations

import copy
import struct

import numpy as np
import pytest
import torch
from small_models import images, member, perturbed
from torch import nn

from noiseless import EmpiricalRisk, cross_entropy
from noiseless.analysis.connectivity import (
    LinearPath,
    barrier,
    changed_elements,
    divergence,
    flip_bit,
    linear_path,
)

POINTS = [0.0, 0.25, 0.5, 0.75, 1.0]


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A state of the module with each number moved; variances stay positive."""
    rng = torch.Generator().manual_seed(seed)
    return {
        name: t + 0.3 * torch.rand(t.shape, generator=rng, dtype=t.dtype) if t.is_floating_point() else t + seed
        for name, t in module.state_dict().items()
    }


def test_divergence_is_that_of_plain_vectors():
    rng = np.random.default_rng(0)
    s, a, b = rng.standard_normal((3, 300_000)).astype(np.float32)  # more than one slice
    b[:1000] = a[:1000]
    result = divergence(*map(torch.from_numpy, (s, a, b)))
    d, e = a.astype(float) - s, b.astype(float) - s
    assert result.distance == pytest.approx(np.linalg.norm(a.astype(float) - b), rel=1e-12)
    assert result.first_displacement == pytest.approx(np.linalg.norm(d), rel=1e-12)
    assert result.second_displacement == pytest.approx(np.linalg.norm(e), rel=1e-12)
    assert result.cosine == pytest.approx(d @ e / np.linalg.norm(d) / np.linalg.norm(e), rel=1e-12)
    assert result.different == 299_000


def test_equal_states_have_not_parted():
    s, a = torch.zeros(5), torch.ones(5)
    result = divergence(s, a, a.clone())
    assert (result.distance, result.different, result.cosine) == (0.0, 0, pytest.approx(1.0))
    assert divergence(s, s, a).cosine is None
    with pytest.raises(ValueError, match="not of one model"):
        divergence(s, a, torch.ones(4))


def test_the_barrier_is_the_height_over_the_chord():
    values = [1.0, 4.0, 2.5, 2.0, 3.0]
    chord = [1.0, 1.5, 2.0, 2.5, 3.0]
    result = barrier(POINTS, values)
    assert (result.height, result.at) == (max(v - c for v, c in list(zip(values, chord, strict=True))[1:-1]), 0.25)
    assert result.over_mean == 4.0 - 2.0
    assert barrier(POINTS, [1.0, None, 0.0, 0.0, 1.0]) is None
    for at, wrong in (([0.0, 1.0], [1.0, 1.0]), ([0.0, 0.5, 0.9], [1.0] * 3), (POINTS, [1.0] * 4)):
        with pytest.raises(ValueError, match="at least three points"):
            barrier(at, wrong)


def test_a_convex_loss_has_no_barrier():
    """Cross entropy of a linear model is convex: L((1 - a) x + a y) <= (1 - a) L(x) + a L(y)."""
    module = member("linear", 1, 3).double()
    risk = EmpiricalRisk(module, cross_entropy, images(12, 1, 8), block=5)
    for seed in range(3):
        path = LinearPath(risk, moved(module, 2 * seed), moved(module, 2 * seed + 1))
        losses = [point.loss for point in linear_path(path, POINTS)]
        assert barrier(POINTS, losses).height < 0
        assert path.passes == pytest.approx(1 / 3)  # forwards, as there is no batch norm


def naive(module: nn.Module, start: dict, end: dict, a: float, x: torch.Tensor, y: torch.Tensor, mode: str):
    """Loss, accuracy and scores in evaluation mode of a point, by plain torch, with blocks of 6 (and a short one)."""
    net = copy.deepcopy(module)
    net.load_state_dict({
        name: (1 - a) * start[name] + a * end[name] if start[name].is_floating_point() else start[name]
        for name in start
    })  # fmt: skip
    blocks = list(zip(x.split(6), y.split(6), strict=True))
    if mode == "running":
        net.eval()
        scores = torch.cat([net(part) for part, _ in blocks])
        return nn.functional.cross_entropy(scores, y).item(), (scores.argmax(1) == y).double().mean().item(), net(x)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0  # the buffers are then those of the last block
    net.train()
    loss, hits, sums = 0.0, 0, [[0.0, 0.0] for _ in norms]
    for part, target in blocks:
        scores = net(part)
        loss += nn.functional.cross_entropy(scores, target, reduction="sum").item()
        hits += int((scores.argmax(1) == target).sum())
        for layer, total in zip(norms, sums, strict=True):
            total[0] += len(part) * layer.running_mean
            total[1] += len(part) * layer.running_var
    for layer, (mean, variance) in zip(norms, sums, strict=True):
        layer.running_mean, layer.running_var = mean / len(x), variance / len(x)
    net.eval()
    return loss / len(x), hits / len(x), net(x)


@pytest.mark.parametrize("mode", ["block", "running"])
def test_points_of_the_line_are_those_of_a_naive_loop(mode):
    module = perturbed(member("resnet", 1, 3)).train()
    x, y = images(14, 1, 8)
    start, end, before = moved(module, 1), moved(module, 2), state(module)
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=6)
    path = LinearPath(risk, start, end, mode)
    assert path.passes == (1.0 if mode == "block" else pytest.approx(1 / 3))
    for a in (0.0, 0.3, 1.0):
        loss, accuracy, scores = naive(module, start, end, a, x, y, mode)
        with path.at(a) as point, torch.no_grad():
            assert point.loss == pytest.approx(loss, rel=1e-10)
            assert point.accuracy == pytest.approx(accuracy)
            module.eval()
            torch.testing.assert_close(module(x), scores, rtol=1e-9, atol=1e-9)
            module.train()
    assert changed_elements(before, state(module)) == {}
    assert module.training


def test_the_ends_of_the_line_are_exact():
    module = member("resnet", 1, 3)
    start, end = moved(module, 1), moved(module, 2)
    x, y = images(6, 1, 8)
    path = LinearPath(EmpiricalRisk(module, cross_entropy, (x.float(), y), block=6), start, end, "running")
    for a, expected in ((0.0, start), (1.0, end)):
        with path.at(a):
            assert changed_elements(state(module), expected) == {}


@pytest.mark.parametrize(
    ("dtype", "number", "whole"),
    [(torch.float32, "<f", "<I"), (torch.float64, "<d", "<Q"), (torch.float16, "<e", "<H")],
)
def test_one_bit_is_flipped(dtype, number, whole):
    tensor = torch.tensor([[1.5, -2.25, 3.0], [0.0, 0.1, 7.0]], dtype=dtype)
    bits = 8 * tensor.element_size()
    for bit in (0, 5, bits - 2, bits - 1):
        flipped = flip_bit(tensor, (1, 2), bit)
        (pattern,) = struct.unpack(whole, struct.pack(number, tensor[1, 2].item()))
        (expected,) = struct.unpack(number, struct.pack(whole, pattern ^ (1 << bit)))
        assert flipped[1, 2].item() == expected
        assert changed_elements({"w": tensor}, {"w": flipped}) == {"w": 1}
        assert torch.equal(flip_bit(flipped, (1, 2), bit), tensor)
    for index, bit, words in (((2, 0), 0, "no element"), ((0,), 0, "no element"), ((0, 0), bits, "no bit")):
        with pytest.raises(ValueError, match=words):
            flip_bit(tensor, index, bit)
