"""SpeedNet: its size, its function written out, and the convolution that whitens patches of the training images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import small_runs
import torch
import torch.nn.functional as F
from small_models import images, member, perturbed
from small_runs import prepare, record, resume, small_recipe
from torch import nn
from torch.func import functional_call, grad, vmap

from noiseless import EmpiricalRisk, Execution, cross_entropy, models
from noiseless.models import Form
from noiseless.models.speednet import EPSILON, SpeedNet, Whitening
from noiseless.objective import parameter_space
from noiseless.objective.compiled import Compiler
from noiseless.recipes.recipe import Recipe
from noiseless.run.work import work_of

STD = (0.25, 0.24, 0.26)


# Convolutions have no bias before a norm: in * out * 9 weights; a norm has 2 numbers a channel, the head no bias.
# speednet128: 24 biases of the whitening; 24*32*9 + 64 + 32*32*9 + 64 = 16,256; 32*128*9 + 256 + 128*128*9 + 256
# = 184,832; 2 * (128*128*9 + 256) = 295,424; 128*10 = 1,280; in all 497,816.
# speednet256: 24; 24*64*9 + 128 + 64*64*9 + 128 = 50,944; 64*256*9 + 512 + 256*256*9 + 512 = 738,304;
# 2 * (256*256*9 + 512) = 1,180,672; 256*10 = 2,560; in all 1,972,504.
#
# FLOPs of a forward, 2 a weight and place: maps of 31 x 31 (whitening and first convolution), 15 x 15 after the first
# pool, 7 x 7, 3 x 3. speednet128: 2 * (961 * (24*12 + 6,912) + 225 * (9,216 + 36,864) + 49 * 2 * 147,456 + 9 * 147,456
# + 1,280) = 66,132,544. speednet256: 2 * (961 * (24*12 + 13,824) + 225 * (36,864 + 147,456) + 49 * 2 * 589,824
# + 9 * 589,824 + 2,560) = 236,294,720. A gradient has three times as many: 0.198 and 0.709 GFLOP.
@pytest.mark.parametrize(
    ("name", "parameters", "forward"),
    [("speednet128", 497_816, 66_132_544), ("speednet256", 1_972_504, 236_294_720)],
)
def test_parameters_and_flops_are_those_of_the_formula(name, parameters, forward):
    work = work_of(Recipe(), models.outline(name), torch.empty(1, 3, 32, 32, device="meta"), 1)
    assert (work.parameters, work.gradient_flops) == (parameters, 3 * forward)


def test_a_hundred_classes_have_ninety_more_rows_in_the_head():
    module = models.outline("speednet128", classes=100)
    assert sum(p.numel() for p in module.parameters()) == 497_816 + 90 * 128
    assert module(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 100)


def test_the_scores_equal_the_function_written_out():
    module, (x, _) = perturbed(member("speednet", 3, 5)), images(4, 3, 17)
    state = dict(module.state_dict())  # as it is before the forward writes batch norm's buffers

    def batch_norm(y, name):
        mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (state[f"stages.{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (y - mean) / (variance + 1e-5).sqrt() * scale + shift

    y = F.gelu(F.conv2d(x, state["whiten.weight"], state["whiten.bias"]))
    for first in (0, 7, 14):  # convolution, pool, norm, GELU, convolution, norm, GELU
        y = F.conv2d(y, state[f"stages.{first}.weight"], padding=1)
        n, c, h, w = y.shape
        y = y[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
        y = F.gelu(batch_norm(y, first + 2))
        y = F.gelu(batch_norm(F.conv2d(y, state[f"stages.{first + 4}.weight"], padding=1), first + 5))
    expected = y.flatten(2).max(2).values @ state["head.weight"].T / 9
    # float64: seven layers whose norms over few values amplify roundings of 1e-16 by some powers of ten
    torch.testing.assert_close(module.train()(x), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("convolution", ["standard", "weight-standardized"])
def test_initial_convolutions_pass_their_inputs_on(convolution):
    module = models.build("speednet128", 3, 10, Form(convolution=convolution))
    for layer in (m for m in module.stages if isinstance(m, torch.nn.Conv2d)):
        count = min(layer.in_channels, layer.out_channels)
        x = torch.randn(2, layer.in_channels, 5, 5, generator=torch.Generator().manual_seed(0))
        y = F.conv2d(x, layer.weight, padding=1)
        torch.testing.assert_close(y[:, :count], x[:, :count], rtol=0, atol=0)
        rest = layer.weight[count:].detach()
        bound = 1 / math.sqrt(layer.in_channels * 9)  # torch's own: uniform within it
        assert not len(rest) or 0.9 * bound < float(rest.abs().max()) <= bound


# --- forms ---


def test_a_group_norm_has_no_buffers_and_none_has_biases():
    batch, group, none = (models.outline("speednet128", form=Form(norm)) for norm in ("batch", "group", "none"))
    buffers = [{name for name, _ in module.named_buffers()} for module in (batch, group, none)]
    assert buffers[1] == buffers[2] == {"whiten.weight"} < buffers[0]
    counts = [sum(p.numel() for p in module.parameters()) for module in (batch, group, none)]
    # two numbers a channel of the norms, or one of the biases: the six layers have 2 * (32 + 128 + 128) channels
    assert counts == [497_816, 497_816, 497_816 - 576]


@pytest.mark.parametrize(
    ("form", "choice"),
    [
        (Form(stem="standard"), "stem standard"), (Form(stem="efficient"), "stem efficient"),
        (Form(shortcut="A"), "shortcut A"), (Form("skipinit"), "norm skipinit"), (Form(zero_init=True), "zero_init"),
    ],
)  # fmt: skip
def test_forms_of_residual_networks_are_refused(form, choice):
    with pytest.raises(ValueError, match=rf"speednet128 cannot be built with {choice}.*: a SpeedNet is one chain"):
        models.build("speednet128", 3, 10, form)


# --- whitening ---


def smooth_images(count=60, channels=3, size=9, seed=0):
    """Bytes `[n, C, H, W]` in which neighbours and channels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(count, 1, size, size)).cumsum(2).cumsum(3) * 12
    independent = rng.normal(size=(count, channels, size, size)) * np.array([2, 4, 6])[:channels, None, None]
    return torch.from_numpy((smooth + independent + 110).clip(0, 255).astype(np.uint8))


def fitted(pixels, batch=None):
    """A whitening layer fitted to the images, in float64, which shows the roundings of a sum that is not exact."""
    layer = Whitening(pixels.shape[1]).double()
    layer.fit(pixels.split(batch or len(pixels)), STD[: pixels.shape[1]])
    return layer


def patch_covariance(x):
    """The covariance of all 2x2 patches of images `[n, C, H, W]`, one after the other, in float64."""
    patches = [
        image[:, row : row + 2, column : column + 2].ravel()
        for image in x.numpy()
        for row in range(x.shape[2] - 1)
        for column in range(x.shape[3] - 1)
    ]
    deviations = np.array(patches) - np.mean(patches, 0)
    return sum(np.outer(d, d) for d in deviations) / len(patches)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_outputs_are_white_up_to_epsilon(channels):
    pixels = smooth_images(channels=channels)
    mean, std = (torch.tensor(v[:channels], dtype=torch.float64)[:, None, None] for v in ((0.4, 0.5, 0.6), STD))
    x = (pixels.double() / 255 - mean) / std
    values = np.linalg.eigvalsh(patch_covariance(x))[::-1]
    assert values[0] > 100 * values[-1] and values[-1] < 20 * EPSILON  # so that whitening and epsilon matter
    layer, length = fitted(pixels), 4 * channels
    with torch.no_grad():
        y = layer(x)
    assert y.shape == (60, 2 * length, 8, 8)
    assert torch.equal(y[:, length:], -y[:, :length])
    outputs = y[:, :length].transpose(0, 1).flatten(1)
    covariance = torch.cov(outputs, correction=0)
    expected = torch.from_numpy(values / (values + EPSILON))
    assert expected[-1] < 0.98  # the effect of epsilon
    # float64: 1e-16 of sums of squares near 1, of patches whose whitened parts are differences of numbers 50 times as
    # large; what C is off by, 1e-16 lambda_1, is divided by lambda + eps
    torch.testing.assert_close(covariance, expected.diag(), rtol=0, atol=1e-11)


def test_the_largest_entry_of_each_eigenvector_is_positive():
    for seed in range(3):
        rows = fitted(smooth_images(seed=seed)).weight.flatten(1)[:12]
        assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()


def test_neither_order_nor_batches_nor_threads_change_a_bit():
    pixels = smooth_images(1000)
    expected = fitted(pixels).weight
    order, threads = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(1)), torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for batch in (7, 500, None):
                assert torch.equal(fitted(pixels[order], batch).weight, expected)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(fitted(pixels[1:]).weight, expected)


def test_without_images_the_rows_are_random_and_orthonormal():
    first, second = (models.build("speednet128", 3, 10, seed=seed).whiten.weight.flatten(1) for seed in (0, 1))
    torch.testing.assert_close(first[:12] @ first[:12].T, torch.eye(12), rtol=0, atol=1e-6)  # float32 sums of 12
    assert torch.equal(first[12:], -first[:12])
    assert not torch.equal(first, second)


def test_other_models_read_no_image():
    def batches():
        raise AssertionError("an image is read")
        yield

    models.whiten(models.build("resnet8", 3, 10), batches(), STD)


def test_only_the_bias_is_trained():
    module = models.build("speednet128", 3, 10)
    assert "whiten.weight" in dict(module.named_buffers())
    space = parameter_space(module)
    assert len(space) == 497_816
    assert "whiten.bias" in space.names and "whiten.weight" not in space.names


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_chunks_and_vmap_give_the_same_gradient(norm):
    pixels = smooth_images(12, 3, 8)
    module = perturbed(member("speednet", 3, 3, Form(norm)))
    models.whiten(module, [pixels], STD)
    data = ((pixels.double() / 255 - 0.45) / 0.25, torch.arange(12) % 3)
    one, three = (
        EmpiricalRisk(module, cross_entropy, data, block=4, execution=Execution(chunk=chunk)).evaluate()
        for chunk in (1, 3)
    )
    # float64: the same operations in another order, amplified by norms over few values (see test_families)
    close = {"rtol": 1e-7, "atol": 1e-9}
    torch.testing.assert_close(three.gradient, one.gradient, **close)
    assert three.loss == pytest.approx(one.loss, rel=1e-9)
    state = {name: p.detach() for name, p in module.named_parameters()}
    for norm_layer in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm_layer.track_running_stats, norm_layer.running_mean, norm_layer.running_var = False, None, None

    def value(parameters, x, y):
        return cross_entropy(functional_call(module, parameters, (x,)), y).mean()

    blocks = vmap(grad(value), (None, 0, 0))(state, *(t.unflatten(0, (3, 4)) for t in data))
    torch.testing.assert_close(torch.cat([g.mean(0).flatten() for g in blocks.values()]), one.gradient, **close)


# --- a run ---


def test_a_run_and_a_resumed_one_have_the_whitening_of_their_images(tmp_path):
    recipe = small_recipe("digits", "fb", model="speednet128", images=64, steps=3, warmup=0, lr=0.05)
    uninterrupted = small_runs.run(tmp_path / "whole", recipe)
    stopped = small_runs.run(tmp_path / "stopped", recipe, stop_after=0)
    assert len(stopped.rows()) == 1
    resume(stopped)
    assert record(stopped) == record(uninterrupted)
    experiment = prepare(recipe)
    layer = Whitening(1)
    layer.fit([experiment.train.images[experiment.train.chosen]], experiment.config.recipe.data.std)
    state = uninterrupted.state()
    assert torch.equal(state["whiten.weight"], layer.weight)
    assert torch.equal(experiment.model.whiten.weight, layer.weight)
    assert bool(state["whiten.bias"].any())  # from 0: it has been trained
    assert not torch.equal(models.build("speednet128", 1, 10).whiten.weight, layer.weight)


@pytest.mark.soak  # half a minute of compiling; objective/test_accuracy.py compiles a group norm in make test
def test_with_group_norm_it_is_compiled():
    messages = []
    torch.manual_seed(0)
    chain = SpeedNet((8, 16), 3, 10, Form("group"))
    # half of its first stage has every kind of layer; the others would only take longer
    module = nn.Sequential(chain.whiten, nn.GELU(), *chain.stages[:4], nn.Flatten(), nn.Linear(8 * 7 * 7, 10)).double()
    data = torch.randn(12, 3, 16, 16, dtype=torch.float64), torch.arange(12) % 10
    expected = EmpiricalRisk(module, cross_entropy, data, block=6).evaluate()
    evaluation = EmpiricalRisk(
        module, cross_entropy, data, block=6, execution=Execution(compiler=Compiler(messages.append))
    ).evaluate()
    assert messages == []
    # float64: operations in another order
    torch.testing.assert_close(evaluation.gradient, expected.gradient, rtol=1e-8, atol=1e-11)
