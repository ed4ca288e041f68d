"""A user's mistake in a name or a number: exit code 2, one line that names the value and the remedy, no traceback."""

import pytest
from small_runs import call, npz, refused, start_program

SMALL = ("--model", "resnet8", "--block", "16", "--steps", "3", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def train(data, tmp_path):
    """Asserts that training with these flags is refused, before anything is written."""

    def assert_refused(*flags, names):
        refused("train", "fb", "--data", data, *SMALL, *flags, "--run-dir", tmp_path / "run", names=names)
        assert not (tmp_path / "run").exists()

    return assert_refused


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("trian",), ("unknown command 'trian'", "did you mean train", "reproduce")),
        (("frobnicate",), ("'frobnicate'", "train, plan, reproduce, race, resume")),
        (("train", "fb-regularised"), ("unknown recipe 'fb-regularised'", "fb-regularized")),
        (("train", "zzz"), ("'zzz'", "sgd, sgd-longer, fb")),
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
def test_unknown_names_are_refused_with_the_nearest(arguments, names, tmp_path):
    refused(*(a.format(tmp=tmp_path) for a in arguments), names=names)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--block", "0"), ("--block", "0", "at least 1")),  # before the data are read: recipes/test_checks.py
        (("--block", "49"), ("block 49", "48", "at most 48")),  # once they are known: run/test_refused.py
        (("--mean", "nan"), ("--mean", "nan")),
        (("--seed", str(2**64)), ("--seed", str(2**64))),
        (("--mean", "0.5", "0.5", "0.5"), ("--mean", "3 values", "1 channel")),
        (("--clip-type", "max"), ("--clip-type max", "--clip")),
    ],
)
def test_values_that_a_check_refuses_end_the_command_before_it_writes(train, flags, names):
    train(*flags, names=names)


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
def test_wrong_flags_are_named(arguments, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert all(name in answer.err for name in names), answer.err
    assert not any(tmp_path.iterdir())


def test_a_recipe_behind_the_flags_is_refused_with_the_right_order():
    refused("train", "--lr", "1", "fb", "--steps", "3", names=("noiseless train fb --lr 1 --steps 3",))


def test_a_real_process_prints_one_line_without_a_traceback(tmp_path):
    program = start_program("train", "fb", "--block", 0, "--run-dir", tmp_path / "run")
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (2, "")
    assert err == "error: --block must be a finite number of at least 1, not 0\n"


def test_a_traceback_is_printed_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("NOISELESS_TRACEBACK", "1")
    answer = call("train", "fb", "--block", 0, "--run-dir", tmp_path / "run")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert "error: --block" in answer.err
