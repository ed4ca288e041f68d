"""From a recipe to optimizer and transforms: where the weight decay is, which parameters decay, and the order."""

from __future__ import annotations

import pytest
from small_runs import npz, prepare, small_recipe

from noiseless.optim import Muon, NonMonotoneSearch, Searched


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def prepare_with(data, **changes):
    return prepare(small_recipe(data, "fb", **changes))


def test_the_transforms_are_chained_in_their_order(data):
    experiment = prepare_with(
        data, norm_bias=0.1, norm_target=1.0, agc=0.2, clip=0.3, additive_noise=0.4, multiplicative_noise=0.5,
        layer_rate="larc", trust_coefficient=0.6,
    )  # fmt: skip
    assert experiment.transform.name == (
        "norm_bias(0.1, 1, l2) -> agc(0.2) -> clip_norm(0.3, l2) -> additive_noise(0.4) -> multiplicative_noise(0.5)"
        " -> larc(0.6)"
    )
    assert prepare_with(data, layer_rate="lars").transform.name == "lars(0.02)"


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Muon", "FISTA"])
@pytest.mark.parametrize("biases", [True, False])
def test_with_decay_biases_off_only_matrices_decay(data, optimizer, biases):
    experiment = prepare_with(data, optimizer=optimizer, decay_biases=biases, weight_decay=0.1)
    decays = {id(p): group["weight_decay"] for group in experiment.optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(experiment.model.parameters()))
    for name, p in experiment.model.named_parameters():
        assert decays[id(p)] == (0.1 if biases or p.ndim > 1 else 0.0), name


@pytest.mark.parametrize("rate", ["lars", "larc"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_with_a_layer_rate_the_decay_is_in_the_rate_and_not_in_the_optimizer(data, rate, optimizer):
    # AdamW's default would be 0.01
    experiment = prepare_with(data, layer_rate=rate, optimizer=optimizer, weight_decay=None)
    assert [group["weight_decay"] for group in experiment.optimizer.param_groups] == [0.0]
    zero = experiment.space.theta * 0
    changed, _ = experiment.transform.update(zero, experiment.transform.init(zero), experiment.space.theta, 1)
    assert not changed.any()
    decayed = prepare_with(data, layer_rate=rate, optimizer=optimizer, weight_decay=0.1, decay_biases=False)
    changed, _ = decayed.transform.update(zero, decayed.transform.init(zero), decayed.space.theta, 1)
    for name, part in decayed.space.split(changed).items():
        w = decayed.space.split(decayed.space.theta)[name]
        assert bool(part.any()) == (w.ndim > 1), name
    assert all(group["weight_decay"] == 0.0 for group in decayed.optimizer.param_groups)


def test_an_optimizer_without_decay_has_none_in_its_layer_rate(data):
    experiment = prepare_with(data, layer_rate="lars", optimizer="LBFGS", weight_decay=0.1, decay_biases=False)
    zero = experiment.space.theta * 0
    assert not experiment.transform.update(zero, experiment.transform.init(zero), experiment.space.theta, 1)[0].any()


def test_a_search_is_around_the_optimizer_of_the_recipe(data):
    experiment = prepare_with(
        data, line_search="non-monotone", line_search_options="memory=3,c1=0.1", optimizer="muon", weight_decay=0
    )
    assert isinstance(experiment.optimizer, Searched)
    assert isinstance(experiment.optimizer.base, Muon)
    assert experiment.optimizer.search == NonMonotoneSearch(memory=3, c1=0.1)
