"""Batch-norm layers that override `forward`: computed on norm blocks like the plain layer, or refused."""

from __future__ import annotations

import copy

import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy


def _with_activation():
    """The small convolution with its norm and tanh in one layer, and the plain one; their states are equal."""
    plain = problems.convolution()
    joined = nn.Sequential(plain[0], BatchNormAct2d(2, act_layer=nn.Tanh), nn.Identity(), *plain[3:]).double()
    joined[1].load_state_dict(plain[1].state_dict())
    return copy.deepcopy(joined), plain


@pytest.mark.parametrize("statistics", ["average", "ema"])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(("block", "norm_block"), [(3, 3), (4, 2), (11, 11), (6, 3)])
def test_batch_norm_with_activation_gives_the_bits_of_two_layers(block, norm_block, chunk, statistics):
    results = []
    for module in _with_activation():
        settings = {
            "block": block,
            "norm_block": norm_block,
            "statistics": statistics,
            "execution": Execution(chunk=chunk),
        }
        risk = EmpiricalRisk(module, cross_entropy, problems.images(), **settings)
        before = problems.state(module)
        evaluation = GradientPenalty(risk, 0.5, lr=0.1).evaluate()
        product = risk.hvp(evaluation.gradient[None])
        assert problems.same_bits(problems.state(module), before)  # probes leave no trace
        risk.accept(evaluation)
        results.append((evaluation.gradient, product, evaluation.loss, *problems.state(module).values()))
    assert all(a == b if isinstance(a, float) else torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert int(module[1].num_batches_tracked) > 0


def test_a_sweep_leaves_the_layer_unchanged():
    module, _ = _with_activation()
    twin = copy.deepcopy(module)
    buffers = dict(module[1].named_buffers())
    EmpiricalRisk(module, cross_entropy, problems.images(), block=4).evaluate()
    assert all(buffer is buffers[name] for name, buffer in module[1].named_buffers())
    x = problems.images()[0]
    assert torch.equal(module(x), twin(x))
    assert problems.same_bits(problems.state(module), problems.state(twin))


def test_in_eval_the_gradient_is_that_of_the_plain_layers():
    module, plain = (m.eval() for m in _with_activation())
    evaluation = EmpiricalRisk(
        module, cross_entropy, problems.images(), block=4, execution=Execution(chunk=2)
    ).evaluate()
    expected = oracles.block_loop(plain, cross_entropy, problems.images(), 4)
    torch.testing.assert_close(evaluation.gradient, expected.gradient, **oracles.ROUNDING)


def test_third_derivatives_are_those_of_the_plain_layers():
    module, plain = _with_activation()
    v = torch.ones(1, sum(p.numel() for p in module.parameters()), dtype=torch.float64)
    product, expected = (
        GradientPenalty(
            EmpiricalRisk(m, cross_entropy, problems.images(), block=4, norm_block=2), 0.5, lr=0.1, method="exact"
        ).hvp(v)
        for m in (module, plain)
    )
    torch.testing.assert_close(product, expected, **oracles.ROUNDING)


class _Scaled(nn.BatchNorm2d):
    """An allowed forward: one plus the weight, another eps, arguments by name."""

    def forward(self, x):
        weight = 1 + self.weight
        return F.batch_norm(
            input=x, running_mean=None, running_var=None, weight=weight, bias=self.bias, training=True, eps=0.5
        )


def test_a_forward_may_change_weight_eps_and_argument_style():
    module = problems.convolution()
    module[1] = _Scaled(2).double()
    evaluation = EmpiricalRisk(
        module, cross_entropy, problems.images(), block=4, execution=Execution(chunk=2)
    ).evaluate()
    expected = oracles.block_loop(copy.deepcopy(module), cross_entropy, problems.images(), 4)
    torch.testing.assert_close(evaluation.gradient, expected.gradient, **oracles.ROUNDING)


class _Never(nn.BatchNorm2d):
    def forward(self, x):
        return x - x.mean((0, 2, 3), keepdim=True)


class _Twice(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(super().forward(x))


class _Split(nn.BatchNorm2d):
    def forward(self, x):
        return torch.cat([super(_Split, self).forward(part) for part in x.split(2)])


class _ByHand(nn.BatchNorm2d):
    def forward(self, x):
        self.running_mean.add_(x.detach().mean())
        return super().forward(x)


class _Renormalised(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False)


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [*((kind, chunk) for kind in (_Never, _Twice, _Split, _Renormalised) for chunk in (1, 2)), (_ByHand, 1)],
)
def test_forwards_that_are_not_one_batch_norm_are_refused(kind, chunk):
    module = problems.convolution()
    module[1] = kind(2).double()
    before = problems.state(module)
    risk = EmpiricalRisk(module, cross_entropy, problems.images(), block=4, execution=Execution(chunk=chunk))
    with pytest.raises(ValueError, match=f"1 is a {kind.__name__}, whose forward differs from torch's BatchNorm"):
        risk.evaluate()
    assert problems.same_bits(problems.state(module), before)
    assert "forward" not in vars(module[1])
