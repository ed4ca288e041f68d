"""Exact gradients of FSDP2 and DistributedDataParallel: the bits of one process, for any number of ranks and order."""

from __future__ import annotations

import functools
import json

import pytest
import sharded
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from noiseless.distributed import exact_gradients
from noiseless.distributed.gradients import Ranks
from noiseless.run import team


@pytest.fixture(scope="module", autouse=True)
def _group():
    """This process as the only rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(_group):
    """What a case gives on one rank, computed once."""
    return functools.cache(lambda name: sharded.CASES[name]())


def _job(ranks, names, path):
    assert team.launch(ranks, [str(path), *names], restarts=0, program="sharded") == 0
    return {name: json.loads((path / f"{name}.json").read_text()) for name in names}


OTHER_MODELS = {"experts": sharded.experts, "wide": lambda: sharded.transformer(loud=True)}
FULL = [name for name in sharded.CASES if not name.startswith(("bfloat16", "refusals", "ordinary"))]
"""cases in float32"""


@pytest.mark.parametrize("name", FULL)
def test_gradients_are_the_exact_sum_of_whole_vectors(alone, name):
    # "wide" has gradients below 2**-40 of the largest, so the position of the bins, which is that of the whole, shows
    kind = name.partition("-")[0]
    infinite = 2 if kind == "infinite" else None
    expected = sharded.plain(OTHER_MODELS.get(kind, sharded.transformer)(), infinite=infinite)
    assert all(g.isfinite().all() for g in expected) == (infinite is None)
    assert alone(name)[0][0] == sharded.digest(expected)
    assert (alone(name)[0][1] in ("nan", "inf")) == (infinite is not None)


def test_neither_wrapping_nor_order_nor_replication_changes_a_bit(alone):
    for names in (
        ("sharded", "whole", "kept", "replicated", "shuffled"),
        ("experts", "experts-replicated"),
        ("wide", "wide-whole"),
        ("bfloat16", "bfloat16-sent"),  # block gradients are bfloat16 in both, and the second sends them so
    ):
        assert len({json.dumps(alone(name)) for name in names}) == 1, names
    assert len({json.dumps(alone(name)) for name in ("sharded", "sgd", "bfloat16", "experts", "wide", "infinite")}) == 6


def test_two_ranks_have_the_bits_of_one(alone, tmp_path):
    job = _job(2, [*sharded.QUICK, "refusals"], tmp_path)
    for name in sharded.QUICK:
        assert (job[name] == alone(name)) == (name != "ordinary"), name  # what FSDP2 gives by itself differs
    differ, changed = job["refusals"]
    assert differ.startswith(f"divide_by is {sharded.TOKENS} on one rank and {sharded.TOKENS + 1} on another")
    assert changed.startswith("the gradients are reduced over 1 ranks, and the exact sum began with 2")


@pytest.mark.soak
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_more_ranks_have_the_bits_of_one(alone, tmp_path, ranks):
    names = [name for name in sharded.CASES if name not in ("ordinary", "refusals")]
    job = _job(ranks, names, tmp_path)
    for name in names:
        assert job[name] == alone(name), name


def _refused(match, function, *arguments):
    with pytest.raises(ValueError, match=match) as refused:
        function(*arguments)
    assert "\n" not in str(refused.value)


def _small():
    return sharded.transformer(layers=0)


def test_models_that_are_not_sharded_are_refused():
    _refused("no module in this Transformer is sharded: call fully_shard", exact_gradients, _small())
    model = _small()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh, ignored_params={model.embedding.weight})
    _refused(r"embedding.weight is in no FSDP module.*requires_grad_\(False\)", exact_gradients, model)
    replicas = init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicate", "shard"))
    _refused(
        "embedding.weight has the placements .*one dimension", exact_gradients, fully_shard(_small(), mesh=replicas)
    )


def test_a_group_without_the_parameters_device_is_refused():
    _refused("the parameters are on meta.*move the model", Ranks, dist.group.WORLD, torch.device("meta"))


def test_a_step_without_blocks_and_wrong_divisors_are_refused():
    for model in (sharded.shard(_small()), DistributedDataParallel(_small())):
        gradients = exact_gradients(model)
        _refused("no backward pass since the last write", gradients.write, 1)
        sharded.loss(model, 0, 0).backward()
        for wrong in (0, -1, float("nan"), float("inf")):
            _refused(f"divide_by is {wrong}: give the number of blocks", gradients.write, wrong)
        gradients.write(10)
        _refused("no backward pass since the last write", gradients.write, 1)


def test_sums_that_would_be_made_before_the_exact_one_are_refused():
    model = sharded.shard(_small())
    exact_gradients(model)
    _refused(r"set_requires_gradient_sync\(False\) adds block", model.set_requires_gradient_sync, False)
    model = DistributedDataParallel(_small())
    gradients = exact_gradients(model)
    with model.no_sync():
        _refused("no_sync adds block gradients", sharded.loss, model, 0, 0)
    sharded.loss(model, 0, 0).backward()
    gradients.write(10)
    _refused(r"last step .* call optimizer.zero_grad\(\)", sharded.loss, model, 1, 0)
    with torch.no_grad():
        sharded.loss(model, 1, 0)


def test_gradients_in_float16_are_refused():
    policy = MixedPrecisionPolicy(param_dtype=torch.float16, reduce_dtype=torch.float16)
    model = sharded.shard(_small(), mp_policy=policy)
    exact_gradients(model)
    _refused("the gradients are float16.*reduce_dtype=torch.float32", sharded.loss(model, 0, 0).backward)


def test_parameters_that_were_replaced_are_noticed():
    model = sharded.shard(_small())
    gradients = exact_gradients(model)
    model.load_state_dict({k: torch.nn.Parameter(v.clone()) for k, v in model.state_dict().items()}, assign=True)
    sharded.loss(model, 0, 0).backward()
    _refused("parameters of the model were replaced", gradients.write, 10)


def test_a_second_call_takes_over():
    model = sharded.shard(_small())
    exact_gradients(model)
    gradients = exact_gradients(model)
    sharded.backwards(model, 0)
    gradients.write(sharded.TOKENS)
    assert sharded.digest(p.grad for p in model.parameters()) == sharded.digest(sharded.plain(_small()))


def test_gradients_of_the_last_step_do_not_enter_the_next():
    model = sharded.shard(_small())
    gradients = exact_gradients(model)
    for step in range(2):  # without zero_grad
        sharded.backwards(model, step)
        gradients.write(sharded.TOKENS)
    assert sharded.digest(p.grad for p in model.parameters()) == sharded.digest(sharded.plain(_small(), 1))
