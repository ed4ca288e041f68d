"""Second and third derivatives through torch's layers and losses, against central differences of the derivative below.

What torch lacks or has wrong, `AnyOrder` replaces; test_usercode.py has what is refused instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext

import derivatives
import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from derivatives import COUNT, Around, Call
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from noiseless import EmpiricalRisk, GradientPenalty, cross_entropy
from noiseless.objective.elementary import AnyOrder

STEP = 1e-5
# step**2 times a derivative two orders higher (1e2 at most) plus 2**-53 / step; a missing term changes some percent
TOLERANCE = 1e-6


def _problem(make: Callable[[], nn.Module], shape: tuple[int, ...], loss=derivatives.curved, target=None):
    torch.manual_seed(0)
    x = torch.randn(COUNT, *shape, dtype=torch.float64) if shape else torch.randint(7, (COUNT, 3))
    module = Around(make(), shape).double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return EmpiricalRisk(module, loss, (x, torch.zeros(COUNT) if target is None else target))


def _check(risk: EmpiricalRisk) -> None:
    theta, v = risk.space.theta.clone(), torch.randn(len(risk.space), dtype=torch.float64)
    penalty = GradientPenalty(risk, 1.0, lr=8.0, method="exact")
    for objective in (risk, penalty):
        gradients = []
        for sign in (1, -1):
            risk.space.theta.copy_(theta + sign * STEP * v)
            gradients.append(objective.evaluate().gradient)
        risk.space.theta.copy_(theta)
        difference = (gradients[0] - gradients[1]) / (2 * STEP)
        error = (objective.hvp(v[None])[0] - difference).norm()
        assert error <= TOLERANCE * max(1.0, float(difference.norm())), type(objective).__name__


@pytest.mark.parametrize("name", derivatives.LAYERS)
def test_layers_have_right_second_and_third_derivatives(name):
    _check(_problem(*derivatives.LAYERS[name]))


@pytest.mark.parametrize("name", derivatives.LOSSES)
def test_losses_have_right_second_and_third_derivatives(name):
    loss, target = derivatives.LOSSES[name]
    _check(_problem(lambda: nn.Linear(4, 4), (4,), loss, derivatives.target(target)))


@pytest.mark.soak
@pytest.mark.parametrize("name", derivatives.FURTHER)
def test_further_operations_have_right_second_and_third_derivatives(name):
    _check(_problem(*derivatives.FURTHER[name]))


@pytest.mark.parametrize("name", derivatives.REPLACED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_replacements_have_the_values_and_the_dtype_of_torch(name, dtype):
    make, shape = derivatives.LAYERS[name]
    module, x = make().to(dtype), derivatives.inputs(shape).to(dtype) if shape else derivatives.inputs(shape)
    got, want = [], []
    for outputs, mode in ((want, nullcontext()), (got, AnyOrder())):
        for autocast in (False, True):
            with mode, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                outputs.append(module(x.clone()))
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        # one rounding of the result, and some of the operations before it in the dtype of their arguments
        eps = torch.finfo(torch.bfloat16 if autocast else dtype).eps
        torch.testing.assert_close(one, other, rtol=4 * eps, atol=8 * eps)


@pytest.mark.parametrize(
    ("loss", "kind"), [(F.multi_margin_loss, "class"), (F.multilabel_margin_loss, "labels")], ids=["multi", "label"]
)
def test_replaced_losses_have_torchs_values_for_any_reduction_and_a_single_example(loss, kind):
    output, target = problems.targets(COUNT, 4), derivatives.target(kind)
    for arguments in (
        (output, target), (output[0], target[0]), (output, target, None, None, "sum"), (output, target, False),
        (output, target, None, False), (output, target, True, True),
    ):  # fmt: skip
        named = dict(zip(("size_average", "reduce", "reduction"), arguments[2:], strict=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old arguments
            want = loss(*arguments[:2], **named)
            with AnyOrder():
                got = loss(*arguments[:2], **named)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("inplace", [F.hardsigmoid, nn.Hardsigmoid(inplace=True)], ids=["function", "module"])
def test_an_operation_in_place_stays_one(inplace):
    x = problems.targets(COUNT, 4) * 3
    with AnyOrder():
        changed = x.clone()
        result = inplace(changed, inplace=True) if inplace is F.hardsigmoid else inplace(changed)
    assert result is changed
    torch.testing.assert_close(changed, F.hardsigmoid(x))
    with AnyOrder():
        assert torch.equal(torch._C._nn.hardsigmoid_(x.clone()), changed)


def test_a_functional_norm_writes_its_statistics_once_and_raises_torchs_errors():
    x, statistics = problems.targets(COUNT, 4), []
    for mode in (nullcontext(), AnyOrder()):
        mean, variance = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
        with mode:
            F.batch_norm(x, mean, variance, training=True)
        statistics.append((mean, variance))
    assert all(torch.equal(*pair) for pair in zip(*statistics, strict=True))
    with AnyOrder(), pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        F.batch_norm(x[:1], None, None, training=True)
    with AnyOrder(), pytest.raises(RuntimeError, match="normalized_shape"):
        F.layer_norm(x, (3,))


def test_the_kernels_of_attention_are_restored():
    flags = (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.math_sdp_enabled)
    before = [flag() for flag in flags]
    with pytest.raises(ArithmeticError), AnyOrder():
        assert [flag() for flag in flags] == [False, True]
        raise ArithmeticError
    assert [flag() for flag in flags] == before


def _weight_normalised() -> nn.Module:
    return problems.fill(nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 3)))


def test_hessian_and_exact_penalty_through_weight_norm_are_those_of_its_formula():
    module, (x, y) = _weight_normalised(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y))

    def by_formula(theta: Tensor) -> Tensor:
        p = risk.space.split(theta)
        g, v = (p[f"0.parametrizations.weight.original{k}"] for k in (0, 1))
        hidden = torch.tanh(x @ (g * v / v.square().sum(1, keepdim=True).sqrt()).T + p["0.bias"])
        return F.cross_entropy(hidden @ p["2.weight"].T + p["2.bias"], y)

    theta = risk.space.theta.clone()
    gradient = torch.autograd.functional.jacobian(by_formula, theta)
    hessian = torch.autograd.functional.hessian(by_formula, theta)
    torch.testing.assert_close(risk.hvp(torch.eye(len(theta), dtype=torch.float64)), hessian, **oracles.ROUNDING)
    penalty = GradientPenalty(risk, 1.0, lr=8.0, method="exact")  # (lr / 4) strength = 2
    torch.testing.assert_close(penalty.evaluate().gradient, gradient + 2 * hessian @ gradient, **oracles.ROUNDING)


def test_a_recurrent_layer_is_computed_without_cudnn():
    seen = []

    class Recording(nn.LSTM):
        def forward(self, x):
            return super().forward(x)

    layer = Recording(3, 3)
    x = torch.randn(2, 1, 3)
    original = torch.backends.cudnn.flags
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "flags", lambda **kind: seen.append(kind) or original(**kind))
        with AnyOrder():
            output = layer(x)[0]
    assert seen == [{"enabled": False}]
    torch.testing.assert_close(output, layer(x)[0])


def test_a_layer_called_as_a_function_has_the_same_replacement():
    x = problems.targets(COUNT, 4)
    with AnyOrder():
        for one, other in (
            (torch.layer_norm(x, (4,)), F.layer_norm(x, (4,))),
            (
                torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False),
                F.batch_norm(x, None, None, training=True),
            ),
            (torch.instance_norm(x[None], None, None, None, None, True, 0.1, 1e-5, False), F.instance_norm(x[None])),
            (torch._C._nn.hardsigmoid(x), Call(F.hardsigmoid)(x)),
        ):
            assert torch.equal(one, other)
