"""From a recipe to optimizer and transforms: who holds the weight decay, which parameters decay, and the order."""

from __future__ import annotations

import pytest
from small_runs import npz, prepare, small_recipe

from noiseless.optim import Muon, NonMonotoneSearch, Searched


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def made(data, **changes):
    return prepare(small_recipe(data, "fb", **changes))


def test_the_chain_stands_in_its_order(data):
    found = made(
        data, norm_bias=0.1, norm_target=1.0, agc=0.2, clip=0.3, additive_noise=0.4, multiplicative_noise=0.5,
        layer_rate="larc", trust=0.6,
    )  # fmt: skip
    assert found.transform.name == (
        "norm_bias(0.1, 1, l2) -> agc(0.2) -> clip_norm(0.3, l2) -> additive_noise(0.4) -> multiplicative_noise(0.5)"
        " -> larc(0.6)"
    )
    assert made(data, layer_rate="lars").transform.name == "lars(0.02)"


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Muon", "FISTA"])
@pytest.mark.parametrize("biases", [True, False])
def test_with_decay_biases_off_only_matrices_decay(data, optimizer, biases):
    found = made(data, optimizer=optimizer, decay_biases=biases, weight_decay=0.1)
    decays = {id(p): group["weight_decay"] for group in found.optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(found.model.parameters()))
    for name, p in found.model.named_parameters():
        assert decays[id(p)] == (0.1 if biases or p.ndim > 1 else 0.0), name


@pytest.mark.parametrize("rate", ["lars", "larc"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_layer_rate_takes_the_decay_from_the_optimizer(data, rate, optimizer):
    found = made(data, layer_rate=rate, optimizer=optimizer, weight_decay=None)  # AdamW's own would be 0.01
    assert [group["weight_decay"] for group in found.optimizer.param_groups] == [0.0]
    zero = found.space.theta * 0
    changed, _ = found.transform.update(zero, found.transform.init(zero), found.space.theta, 1)
    assert not changed.any()
    decayed = made(data, layer_rate=rate, optimizer=optimizer, weight_decay=0.1, decay_biases=False)
    changed, _ = decayed.transform.update(zero, decayed.transform.init(zero), decayed.space.theta, 1)
    for name, part in decayed.space.split(changed).items():
        w = decayed.space.split(decayed.space.theta)[name]
        assert bool(part.any()) == (w.ndim > 1), name
    assert all(group["weight_decay"] == 0.0 for group in decayed.optimizer.param_groups)


def test_an_optimizer_without_decay_has_none_in_its_layer_rate(data):
    found = made(data, layer_rate="lars", optimizer="LBFGS", weight_decay=0.1, decay_biases=False)
    zero = found.space.theta * 0
    assert not found.transform.update(zero, found.transform.init(zero), found.space.theta, 1)[0].any()


def test_a_search_is_around_the_optimizer_of_the_recipe(data):
    found = made(
        data, line_search="non-monotone", line_search_options="memory=3,c1=0.1", optimizer="muon", weight_decay=0
    )
    assert isinstance(found.optimizer, Searched)
    assert isinstance(found.optimizer.base, Muon)
    assert found.optimizer.search == NonMonotoneSearch(memory=3, c1=0.1)
