"""Each optimizer, search and layer transform in a short run: the loss falls, and a resumed run has the same bits."""

from __future__ import annotations

import itertools
import json

import pytest
import worker_script
from optim import searching_worker
from small_runs import call, npz, record, refused, resume, run, small_recipe

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.recipes.flags import with_flags
from noiseless.run import team

PLAIN = {"name": "fb", "schedule": "constant", "warmup": 0, "augment": "none", "steps": 4, "horizon": 4}
KINDS = {
    "armijo": PLAIN | {"line_search": "armijo", "lr": 5.0},
    "wolfe": PLAIN | {"line_search": "wolfe", "lr": 0.5, "line_search_options": "c2=0.5,trials=8"},
    "non-monotone": PLAIN | {
        "line_search": "non-monotone", "lr": 5.0, "line_search_options": "memory=2,remember=True",
    },
    "restarting": PLAIN | {"line_search": "restarting", "lr": 1.0, "line_search_options": "memory=1"},
    "damped": PLAIN | {
        "optimizer": "DampedLBFGS", "lr": 0.5, "line_search": "armijo", "optimizer_options": "history_size=2",
    },
    "fista": PLAIN | {"optimizer": "FISTA", "lr": 0.2, "optimizer_options": "restart=True", "sam": 0.01},
    "muon": PLAIN | {"optimizer": "Muon", "lr": 0.02, "optimizer_options": "inner_lr_ratio=0.5", "decay_biases": False},
    "parts": PLAIN | {"optimizer": "Muon", "lr": 0.01, "parts": 3, "shuffle": True},
    "lars": PLAIN | {"layer_rate": "lars", "lr": 1.0, "agc": 0.5, "clip": 10.0, "decay_biases": False},
    "larc": PLAIN | {"layer_rate": "larc", "lr": 0.2},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def recipe_of(kind, data):
    changes = dict(KINDS[kind])
    return small_recipe(data, changes.pop("name"), **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_a_resumed_run_has_the_same_bits(kind, data, tmp_path):
    recipe = recipe_of(kind, data)
    digest, rows = record(run(tmp_path / "whole", recipe))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    directory = run(tmp_path / "stopped", recipe, stop_after=1)
    assert resume(directory) == []
    assert record(directory) == (digest, rows)


@pytest.mark.parametrize("kind", ["armijo", "wolfe", "non-monotone", "restarting"])
def test_trials_count_as_passes_and_the_checkpoint_has_the_search_state(kind, data, tmp_path):
    directory = run(tmp_path / "run", recipe_of(kind, data))
    assert directory.rows()[-1]["passes"] > 4
    _, state = checkpoint.read(sorted(directory.checkpoints.glob("*.json"))[-1])
    search = state["optimizer"]["search"]
    assert kind == "restarting" or search["size"] > 0
    assert len(search.get("values", [])) == {"non-monotone": 2, "restarting": 1}.get(kind, 0)


def test_values_under_armijo_never_rise(data, tmp_path):
    directory = run(tmp_path / "run", with_flags(recipe_of("armijo", data), weight_decay=0.0))
    losses = [row["train_loss"] for row in directory.rows()]
    assert all(after < before for before, after in itertools.pairwise(losses))


def test_the_command_line_reads_their_flags(data, tmp_path):
    tiny = ("--data", data, "--model", "resnet2", "--block", 24, "--steps", 2, "--threads", 1, "--schedule", "constant")
    flags = {
        "wolfe": ("--line-search", "wolfe", "--penalty", 0.5, "--penalty-method", "exact", "--warmup", 0),
        "sam": ("--sam", 0.05, "--optimizer", "Muon", "--no-decay-biases", "--agc", 0.1, "--layer-rate", "larc"),
    }
    for name, arguments in flags.items():
        answer = call("train", "fb", *tiny, *arguments, "--run-dir", tmp_path / name)
        assert answer.code == 0, answer.err
        assert len(RunDirectory(tmp_path / name).rows()) == 2


def test_a_stochastic_run_may_search_and_be_sharpness_aware(data, tmp_path):
    for name, changes in (("search", {"line_search": "armijo"}), ("sam", {"sam": 0.05, "penalty": 0.5})):
        directory = run(tmp_path / name, small_recipe(data, "sgd", steps=2, warmup=0, **changes))
        passes = directory.rows()[-1]["passes"]
        assert passes == 8 if name == "sam" else passes >= 4  # 2 steps: of 2 sweeps by 2 gradients; of 1 trial or more


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--line-search", "armijo", "--penalty", 0.5), ("armijo", "--penalty-method exact")),
        (("--line-search", "wolfe", "--sam", 0.1), ("wolfe", "leave out --sam")),
        (("--line-search", "restarting", "--agc", 0.1), ("restarting", "agc(0.1)", "leave out --agc")),
        (("--line-search", "wolfe", "--layer-rate", "lars"), ("wolfe", "lars", "leave out --layer-rate")),
        (("--line-search", "armijo", "--optimizer", "AdamW"), ("AdamW's weight decay (0.0005)", "SGD")),
        (("--line-search", "armijo", "--optimizer", "LBFGS"), ("LBFGS", "DampedLBFGS")),
        (("--line-search", "armijo", "--line-search-options", "c2=0.5"), ("armijo 'c2'", "c1, shrink, trials")),
        (("--line-search", "armio"), ("unknown line search 'armio'", "did you mean armijo", "wolfe")),
        (("--line-search", "armijo", "--line-search-options", "c1"), ("--line-search-options", "NAME=VALUE")),
        (("--line-search-options", "c1=0.1"), ("--line-search-options", "armijo")),
        (("--layer-rate", "larc", "--optimizer-options", "weight_decay=0.1"), ("larc", "--weight-decay")),
        (("--optimizer", "Muon", "--optimizer-options", "adjust_lr_fn=orignal"), ("noiseless.optim.Muon", "original")),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_together_are_refused(flags, names, data, tmp_path):
    path = tmp_path / "run"
    refused("train", "fb", "--data", data, "--block", 24, "--steps", 2, *flags, "--run-dir", path, names=names)
    assert not path.exists()


@pytest.mark.slow
def test_two_workers_give_the_same_bits(data, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_script, "recipe", None)  # restored after the test
    directories = [tmp_path / "alone", tmp_path / "together"]
    for directory in directories:
        directory.mkdir()
    searching_worker.main(directories[0], data)
    assert team.launch(2, [str(directories[1]), data], restarts=0, program="optim.searching_worker") == 0
    digests = set()
    for name in searching_worker.NAMES:
        alone, together = (json.loads((directory / f"{name}.json").read_text()) for directory in directories)
        assert alone["rows"] == together["rows"]
        assert alone["digest"] == together["digest"]
        digests.add(alone["digest"])
    assert len(digests) == len(searching_worker.NAMES)
    assert alone["rows"][-1]["passes"] > 3  # of three steps: the search had something to do
