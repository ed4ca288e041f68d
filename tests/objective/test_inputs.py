"""Second moments of layers' inputs against plain loops over examples and places."""

from __future__ import annotations

import dataclasses

import oracles
import problems
import pytest
import torch
from oracles import ROUNDING
from torch import Tensor, nn

from noiseless import EmpiricalRisk, GradientPenalty, cross_entropy, parameter_space
from noiseless.objective import SharpnessAware
from noiseless.objective.inputs import InputMoments
from noiseless.objective.workers import Alone


def deep() -> nn.Module:
    """Strides, padding, dilation and oblong kernels between two batch norms, `[n, 1, 4, 4]` -> `[n, 3]`."""
    return problems.fill(
        nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.Tanh(),
            nn.Conv2d(2, 3, (3, 1), stride=(2, 1), padding=(1, 0)), nn.BatchNorm2d(3), nn.Tanh(),
            nn.Conv2d(3, 2, 2, dilation=(1, 2)), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3),
        )
    )  # fmt: skip


def patches(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """What a layer meets, one vector a place and example, cut out by hand."""
    if isinstance(layer, nn.Linear):
        return list(x.reshape(-1, x.shape[-1]))
    (top, left), (down, right), (high, wide) = layer.padding, layer.stride, layer.kernel_size
    padded = torch.zeros(*x.shape[:2], x.shape[2] + 2 * top, x.shape[3] + 2 * left, dtype=x.dtype)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    tall, broad = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    found = []
    for row in range(0, padded.shape[2] - tall, down):
        for column in range(0, padded.shape[3] - broad, right):
            cut = padded[
                :, :, row : row + tall + 1 : layer.dilation[0], column : column + broad + 1 : layer.dilation[1]
            ]
            assert cut.shape[2:] == (high, wide)
            found += list(cut.flatten(1))
    return found


def by_hand(module: nn.Module, data: tuple[Tensor, Tensor], block: int, norm_block: int) -> dict[str, Tensor]:
    """The mean of `x x^T` over all vectors that each layer meets, block by block."""
    module = oracles.ghosted(module, norm_block)
    met: dict[str, list[Tensor]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda m, x, n=name: met.setdefault(f"{n}.weight", []).extend(patches(m, x[0])))
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        for part in oracles.slices(len(data[0]), block):
            module(data[0][part])
    for hook in hooks:
        hook.remove()
    return {name: torch.stack([torch.outer(v, v) for v in vectors]).mean(0) for name, vectors in met.items()}


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("count", "block", "norm_block"), [(12, 12, 4), (12, 4, 2), (10, 4, 2), (11, 3, 3)])
def test_they_are_the_mean_over_all_that_a_layer_meets(count, block, norm_block, chunk):
    module, data = deep(), problems.pictures(count)
    expected = by_hand(module, data, block, norm_block)
    risk = EmpiricalRisk(module, cross_entropy, data, block=block, norm_block=norm_block, chunk=chunk)
    plain, found = risk.evaluate(), dataclasses.replace(risk, input_moments=True).evaluate()
    assert list(found.input_moments) == ["0.weight", "3.weight", "6.weight", "9.weight"]
    for name, moment in found.input_moments.items():
        torch.testing.assert_close(moment, expected[name], **ROUNDING)
        assert torch.equal(moment, moment.T)
    assert plain.input_moments == {}  # and to ask for them changes nothing else
    assert torch.equal(plain.gradient, found.gradient)
    assert torch.equal(plain.statistics, found.statistics)
    assert plain.loss == found.loss


class Parts(Alone):
    """One worker that sums every other chunk by itself, the last first, and merges the two partial sums."""

    def share(self, partial):
        numbers = list(super().share(partial))
        own = {name: each.tensors() for name, each in partial.sums().items()}
        empty = {f"{name}.{key}": t.clone() for name, each in own.items() for key, t in each.items()}
        rest = {"scalars": torch.zeros_like(partial.scalars), "done": torch.zeros_like(partial.done)}
        self.other = partial.filled(empty | rest)
        yield from reversed(numbers[::2])
        for name in ("vector", "statistics", "moments", "scalars", "done"):
            kept = getattr(partial, name)
            setattr(partial, name, getattr(self.other, name))
            setattr(self.other, name, kept)
        yield from numbers[1::2]

    def combine(self, partial):
        partial.merge(self.other)
        super().combine(partial)


def test_any_order_and_split_of_the_chunks_gives_the_same_bits():
    # float32: products of float32 numbers, whose sums in another order would differ
    module, (x, y) = deep().float(), problems.pictures(22)
    risk = EmpiricalRisk(module, cross_entropy, (x.float(), y), block=2, input_moments=True)
    found, other = risk.evaluate(), dataclasses.replace(risk, workers=Parts()).evaluate()
    assert torch.equal(found.gradient, other.gradient)
    for name, moment in found.input_moments.items():
        assert torch.equal(moment, other.input_moments[name])


def test_they_are_of_the_point_itself_and_of_full_precision():
    data = problems.pictures(12)
    risk = EmpiricalRisk(deep(), cross_entropy, data, block=4, norm_block=2, input_moments=True)
    found = risk.evaluate().input_moments
    for objective in (GradientPenalty(risk, strength=0.5, lr=0.8), SharpnessAware(risk, rho=0.1)):
        again = objective.evaluate().input_moments
        assert all(torch.equal(moment, again[name]) for name, moment in found.items())
    x = data[0].float()
    halved = EmpiricalRisk(
        deep().float(), cross_entropy, (x, data[1]), block=4, norm_block=2, input_moments=True, autocast=torch.bfloat16
    )
    first = by_hand(deep(), (x.double(), data[1]), 4, 2)["0.weight"]  # of images: nothing is rounded before
    torch.testing.assert_close(halved.evaluate().input_moments["0.weight"], first, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(
    ("parts", "asked"),
    [(2, [(0, 1, 2), (3, 4, 0), (1, 2, 3)]), (3, [(0, 1), (2, 3), (4, 0)]), (5, [(0,), (1,), (2,)]), (9, [(0,), (1,)])],
)
def test_a_part_of_the_blocks_reports_them_at_each_step_the_next(parts, asked, chunk):
    module, (x, y) = deep(), problems.pictures(14)  # blocks of 3, the last of 2
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=3, chunk=chunk, input_moments=parts)
    whole = dataclasses.replace(risk, input_moments=0).evaluate()
    for step, blocks in enumerate(asked):
        found = dataclasses.replace(risk, step=step).evaluate()
        weights = torch.tensor([min(3, 14 - 3 * b) for b in blocks], dtype=torch.float64)
        each = [by_hand(module, (x[3 * b : 3 * b + 3], y), 3, 3) for b in blocks]
        for name, moment in found.input_moments.items():
            expected = sum(w * one[name] for w, one in zip(weights, each, strict=True)) / weights.sum()
            torch.testing.assert_close(moment, expected, **ROUNDING)
        torch.testing.assert_close(found.gradient, whole.gradient, **ROUNDING)
        assert len(found.input_moments) == 4


@pytest.mark.parametrize("value", [-1, 0.5])
def test_no_number_of_parts_is_refused(value):
    with pytest.raises(ValueError, match="input_moments must be True, False or a number of parts"):
        EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points(), input_moments=value)


def test_layers_that_have_none_are_left_out():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1, groups=2), shared, shared,
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.Conv2d(2, 2, 3, padding="same"),
        nn.Flatten(), nn.Linear(32, 4), nn.Linear(4, 3),
    )  # fmt: skip
    module[7].weight.requires_grad_(False)
    inputs = InputMoments(problems.fill(module), parameter_space(module))
    assert inputs.length == 9 * 10 // 2 + 18 * 19 // 2 + 4 * 5 // 2
    data = problems.pictures()
    found = EmpiricalRisk(module, cross_entropy, data, block=4, input_moments=True).evaluate().input_moments
    assert list(found) == ["0.weight", "2.weight", "8.weight"]
    # a layer that is called twice: the mean over both calls
    first = module[:2](data[0])
    calls = [torch.stack([torch.outer(v, v) for v in patches(shared, x)]).mean(0) for x in (first, shared(first))]
    torch.testing.assert_close(found["2.weight"], (calls[0] + calls[1]) / 2, **ROUNDING)


def test_an_evaluation_sets_them_where_muon_looks():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), input_moments=True)
    risk.closure()()
    found = risk.evaluate().input_moments
    assert torch.equal(module[0].weight.input_moment, found["0.weight"])
    assert torch.equal(module[2].weight.input_moment, found["2.weight"])
    assert not hasattr(module[0].bias, "input_moment")
    dataclasses.replace(risk, input_moments=0).closure()()  # which knows none: the old ones are of another place
    assert not any(hasattr(p, "input_moment") for p in module.parameters())
