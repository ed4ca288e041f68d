"""A user's mistake in a name or a number: exit code 2, one line that names the value and the remedy, no traceback."""

import pytest
import torch
from small_runs import call, npz, refused, start_program

SMALL = ("--model", "resnet8", "--block", "16", "--steps", "3", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def train(data, tmp_path):
    """Asserts that training with these flags is refused, before anything is written."""

    def attempt(*flags, names, recipe="fb"):
        message = refused(
            "train", recipe, "--data", data, *SMALL, *flags, "--run-dir", tmp_path / "run", names=names
        )  # fmt: skip
        assert not (tmp_path / "run").exists()
        return message

    return attempt


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("trian",), ("unknown command 'trian'", "did you mean train", "reproduce")),
        (("frobnicate",), ("'frobnicate'", "train, plan, reproduce, race, resume")),
        (("train", "fb-regularised"), ("unknown recipe 'fb-regularised'", "fb-regularized")),
        (("train", "zzz"), ("'zzz'", "sgd, fb, fb-longer")),
        (("train", "--model", "resnet19", "--run-dir", "{tmp}/r"), ("unknown model 'resnet19'", "did you mean resnet")),
        (("train", "--data", "digit", "--run-dir", "{tmp}/r"), ("'digit'", "did you mean digits")),
        (("train", "--optimizer", "adamv", "--run-dir", "{tmp}/r"), ("unknown optimizer 'adamv'", "Adam", "SGD")),
        (("recipes", "--form", "smal"), ("unknown form 'smal'", "small")),
        (("reproduce", "--rows", "fb", "fb-cliped", "--run-dir", "{tmp}/r"), ("'fb-cliped'", "fb-clipped")),
        (("reproduce", "--seeds", "0", "--run-dir", "{tmp}/r"), ("--seeds", "at least 1", "0")),
        (("reproduce", "--model", "vgg", "--rows", "fb", "--run-dir", "{tmp}/r"), ("'vgg'", "resnet8")),
        (("reproduce", "--data", "digit", "--rows", "fb", "--run-dir", "{tmp}/r"), ("'digit'", "digits")),
    ],
)
def test_unknown_names_come_with_the_nearest(arguments, names, tmp_path):
    refused(*(a.format(tmp=tmp_path) for a in arguments), names=names)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flag", "value", "names"),
    [
        ("--block", "0", ("--block", "0", "at least 1")),
        ("--block", "-1", ("--block", "-1", "at least 1")),
        ("--block", "49", ("block 49", "48", "at most 48")),
        ("--norm-block", "0", ("--norm-block", "0")),
        ("--norm-block", "5", ("norm_block 5", "divide", "16")),
        ("--norm-block", "32", ("norm_block 32", "at most 16")),
        ("--steps", "0", ("--steps", "0", "at least 1")),
        ("--lr", "-0.1", ("--lr", "-0.1", "positive")),
        ("--lr", "nan", ("--lr", "nan", "positive")),
        ("--warmup", "-1", ("--warmup", "-1")),
        ("--horizon", "0", ("--horizon", "0")),
        ("--clip", "0", ("--clip", "0", "positive")),
        ("--penalty", "-1", ("--penalty", "-1")),
        ("--penalty", "inf", ("--penalty", "inf", "finite")),
        ("--momentum", "-1", ("--momentum", "-1")),
        ("--flip", "2", ("--flip", "2", "0 and 1")),
        ("--padding", "-1", ("--padding", "-1")),
        ("--seed", "-1", ("--seed", "-1")),
        ("--seed", str(2**64), ("--seed", str(2**64))),
        ("--threads", "0", ("--threads", "0")),
        ("--chunk", "0", ("--chunk", "0")),
        ("--keep", "0", ("--keep", "0")),
        ("--switch", "2", ("--switch", "--regime switch")),
        ("--mean", "nan", ("--mean", "nan")),
        ("--std", "0", ("--std", "0")),
        ("--device", "gpu", ("'gpu'", "cpu, cuda")),
        ("--device", "meta", ("'meta'", "cpu, cuda")),
        ("--optimizer-options", "momentum", ("--optimizer-options", "NAME=VALUE")),
        ("--optimizer-options", "dampning=0.1", ("dampning", "dampening")),
        ("--optimizer-options", "params=1", ("params",)),
        ("--optimizer", "SparseAdam", ("SparseAdam",)),
        ("--agc", "0", ("--agc", "0", "positive")),
        ("--trust", "-1", ("--trust", "-1", "positive")),
        ("--sam", "-1", ("--sam", "-1", "at least 0")),
        ("--line-search-options", "c1=0.1", ("--line-search-options", "--line-search")),
        ("--trust", "0.5", ("--trust 0.5", "--layer-rate")),
        ("--norm-target", "3", ("--norm-target 3", "--norm-bias")),
        ("--clip-type", "max", ("--clip-type max", "--clip")),
        ("--decay", "0.5", ("--decay 0.5", "--schedule exponential")),
    ],
)
def test_a_number_that_cannot_be_names_itself_and_what_would_do(train, flag, value, names):
    train(flag, value, names=names)


def test_an_option_of_the_wrong_kind(train):
    train("--optimizer", "AdamW", "--optimizer-options", "eps=tiny", names=("eps", "tiny"))


def test_mean_and_std_have_one_value_a_channel(train):
    train("--mean", "0.5", "0.5", "0.5", names=("--mean", "3 values", "1 channel"))
    train("--std", "0.5", "0.5", names=("--std", "2 values", "1 channel"))


def test_a_switch_that_is_never_reached(train):
    train("--regime", "switch", "--switch", "3", names=("--switch 3", "--steps 3"))


def test_max_up_needs_draws_that_differ(train):
    train("--max-up", "2", "--padding", "0", "--flip", "0", names=("--max-up", "--padding", "--policy"))


def test_parts_belong_to_the_full_batch_and_have_images(train):
    for words in (("--regime", "stochastic"), ("--drop-last",), ("--regime", "switch", "--switch", "1")):
        train("--parts", "2", *words, names=("--parts 2", "--regime full-batch without --drop-last"))
    train("--parts", "2", "--additive-noise", "1e-3", names=("--additive-noise", "--parts 1"))
    train("--parts", "0", names=("--parts must be", "at least 1"))
    train("--parts", "49", names=("parts 49 is larger than the 48 images",))
    train("--parts", "2", "--line-search", "armijo", names=("armijo", "one part"))


def test_replacement_belongs_to_the_stochastic_regime(train):
    train("--replacement", names=("--replacement", "stochastic"))


def test_a_stochastic_block_larger_than_what_a_step_visits(train):
    train("--copies", "3", "--block", "60", recipe="sgd", names=("block 60", "48"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here there is a GPU")
def test_a_gpu_that_is_not_there(train):
    train("--device", "cuda", names=("cuda", "0 CUDA devices", "--device cpu"))


def test_a_gpu_number_that_is_not_there(train):
    train("--device", "cuda:77", names=("cuda:77", "--device cpu"))


def test_a_line_search_on_a_direction_that_is_no_gradient(train):
    search = ("--optimizer", "LBFGS", "--optimizer-options", "line_search_fn=strong_wolfe")
    train(*search, "--penalty", "0.5", names=("strong_wolfe", "exact"))
    train(*search, "--clip", "0.25", names=("strong_wolfe", "clip"))


def test_options_of_an_optimizer_may_be_pairs(data, tmp_path):
    flags = ("--optimizer", "AdamW", "--lr", "1e-3", "--optimizer-options", "betas=(0.8,0.95),amsgrad=True")
    answer = call("train", "fb", "--data", data, *SMALL, *flags, "--run-dir", tmp_path / "run")
    assert answer.code == 0, answer.err


def test_an_option_that_the_schedule_would_overwrite_is_refused(train):
    train("--optimizer-options", "lr=0.5", names=("--lr",))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("train", "fb", "--bogus", "1"), ("--bogus",)),
        (("train", "fb", "--lr", "fast"), ("--lr", "fast")),
        (("train", "fb", "--steps", "2.5"), ("--steps", "2.5")),
        (("train", "fb", "--augment", "mixup"), ("mixup", "crop-flip")),
        (("train", "fb", "--dtype", "float16"), ("float16", "float64")),
        (("train", "fb", "--lr"), ("--lr",)),
        (("train", "--steps", "3", "fb"), ("fb",)),
        (("resume",), ("directory of the run",)),
        (("digest", "a", "b"), ("b",)),
    ],
)
def test_flags_that_are_wrong_are_named(arguments, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert all(name in answer.err for name in names), answer.err
    assert not any(tmp_path.iterdir())


def test_a_recipe_behind_the_flags_is_told_its_place():
    refused("train", "--lr", "1", "fb", "--steps", "3", names=("noiseless train fb --lr 1 --steps 3",))


def test_a_real_process_says_it_in_one_line_without_a_traceback(tmp_path):
    program = start_program("train", "fb", "--block", 0, "--run-dir", tmp_path / "run")
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (2, "")
    assert err == "error: --block must be a finite number of at least 1, not 0\n"


def test_a_traceback_can_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("NOISELESS_TRACEBACK", "1")
    answer = call("train", "fb", "--block", 0, "--run-dir", tmp_path / "run")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert "error: --block" in answer.err
