"""Recipes that do not fit the data, the model or the machine are refused where a run is built, with the remedy."""

import pytest
import torch
from small_runs import prepare, small_recipe


def refused(data, *names, row="fb", device="cpu", **changes):
    """Asserts that a run with these changes is refused with a message that holds all names."""
    with pytest.raises(ValueError, match=r"\S") as error:
        prepare(small_recipe(data, row, **changes), device=device)
    for name in names:
        assert name in str(error.value)
    assert "\n" not in str(error.value)


STRONG_WOLFE = {"optimizer": "LBFGS", "optimizer_options": "line_search_fn=strong_wolfe"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"block": 49}, ("block 49", "48", "at most 48")),
        ({"norm_block": 5}, ("norm_block 5", "divide", "16")),
        ({"norm_block": 32}, ("norm_block 32", "at most 16")),
        ({"parts": 49}, ("parts 49 is larger than the 48 images",)),
        ({"row": "sgd", "copies": 3, "block": 60}, ("block 60", "48")),
        ({"std": (0.0,)}, ("standard deviation must be positive", "--std")),
        ({"mean": (0.5, 0.5, 0.5)}, ("--mean", "3 values", "1 channel")),
        ({"std": (0.5, 0.5)}, ("--std", "2 values", "1 channel")),
        ({"device": "gpu"}, ("'gpu'", "cpu, cuda")),
        ({"device": "meta"}, ("'meta'", "cpu, cuda")),
        ({"device": "cuda:77"}, ("cuda:77", "--device cpu")),
        ({"optimizer_options": "momentum"}, ("--optimizer-options", "NAME=VALUE")),
        ({"optimizer_options": "dampning=0.1"}, ("dampning", "dampening")),
        ({"optimizer_options": "params=1"}, ("params",)),
        ({"optimizer_options": "lr=0.5"}, ("--lr",)),  # which the schedule would overwrite
        ({"optimizer": "AdamW", "optimizer_options": "eps=tiny"}, ("eps", "tiny")),
        ({"optimizer": "SparseAdam"}, ("SparseAdam",)),
        ({"line_search_options": "c1=0.1"}, ("--line-search-options", "--line-search")),
        ({"parts": 2, "line_search": "armijo"}, ("armijo", "leave out --parts")),
        # a direction that is no gradient of the value
        ({**STRONG_WOLFE, "penalty": 0.5}, ("strong_wolfe", "exact")),
        ({**STRONG_WOLFE, "clip": 0.25}, ("strong_wolfe", "clip")),
    ],
)
def test_recipes_that_do_not_fit_are_refused(data, changes, names):
    refused(data, *names, **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(data):
    refused(data, "cuda", "0 CUDA devices", "--device cpu", device="cuda")


def test_options_of_an_optimizer_may_be_pairs(data):
    experiment = prepare(
        small_recipe(data, "fb", optimizer="AdamW", lr=1e-3, optimizer_options="betas=(0.8,0.95),amsgrad=True")
    )
    (group,) = experiment.optimizer.param_groups
    assert (group["betas"], group["amsgrad"]) == ((0.8, 0.95), True)
