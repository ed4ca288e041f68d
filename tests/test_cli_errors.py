"""A user's mistake in a name or a number: exit code 2, one line that names the value and the remedy, no traceback."""

import io

import pytest
import torch
from small_runs import call, npz, refused, start_program

from noiseless import cli

SMALL = ("--model", "resnet2", "--block", "16", "--steps", "3", "--threads", "1")


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
        (("frobnicate",), ("'frobnicate'", "train, plan, reproduce, race, dial, resume")),
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
        (("--padding", "9"), ("--padding 9", "a side of 8 pixels", "at most 8")),
        (("--data", "digits", "--pixels", "16384"), ("1,797 images of --pixels 16,384 would take 482.4 GB of memory",)),
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
        (("train", "fb", "--bogus", "1"), ("error: unknown flag --bogus; noiseless train --help",)),
        (("train", "fb", "--lrr=1"), ("error: unknown flag --lrr; did you mean --lr? noiseless train",)),
        (("train", "--stepz", "3", "--lrr", "2"), ("error: unknown flag --stepz; did you mean --steps? noiseless",)),
        (("train", "fb", "--worker", "2"), ("unknown flag --worker; did you mean --workers?",)),
        (("train", "fb", "--steps", "3", "4"), ("error: unknown argument '4'; noiseless train --help",)),
        (("trust", "--trust"), ("error: unknown flag --trust; noiseless trust --help",)),
        (("evaluate",), ("error: RUN[@STEP] is missing; noiseless evaluate --help",)),
        (("train", "fb", "--lr", "fast"), ("--lr must be a number, not 'fast'",)),
        (("train", "fb", "--steps", "2.5"), ("--steps must be a whole number, not '2.5'",)),
        (("train", "fb", "--pixels", "9" * 5000), ("--pixels must be a whole number", "5,000 characters")),
        (("train", "fb", "--augment", "mixup"), ("--augment must be one of none, crop-flip, not 'mixup'",)),
        (("train", "fb", "--dtype", "float16"), ("float16", "float64")),
        (("train", "fb", "--lr"), ("--lr must be followed by a value, but none is given",)),
        (("train", "fb", "--workers"), ("--workers must be followed by a value, but none is given",)),
        (("train", "fb", "--mean", "--lr", "1"), ("--mean must be followed by at least one value",)),
        (("train", "fb", "--steps", "3", "--warmup", "4"), ("--warmup 4 is longer than the run of --steps 3",)),
        (("train", "fb", "--workers", "9" * 400), ("--workers must be a whole number of at most 1,000,000",)),
        (
            ("train", "fb", "--workers", "9999"),
            ("--workers must be at most", "for each core of this machine, not 9999"),
        ),
        (("plan", "--workers", "100000000000"), ("--workers must be a whole number of at most 1,000,000",)),
        (("reproduce", "--rows"), ("--rows must be followed by at least one value",)),
        (("reproduce", "--seeds", "1001"), ("--seeds must be a whole number of at most 1,000, not 1001",)),
        (("reproduce", "--quick", "--run-dir", "/proc/runs"), ("/proc is not writable: choose another --run-dir",)),
        (("race", "--contenders", ","), ("--contenders ',' names none",)),
        (("race", "--budgets", "1" + "0" * 400), ("--budgets must be a whole number of at most 1,000,000",)),
        (("models", "--pixels", "1000000"), ("--pixels must be a whole number of at most 4,096",)),
        (("train", "--steps", "3", "fb"), ("fb",)),
        (("resume",), ("RUN is missing",)),
        (("digest", "a", "b"), ("unknown argument 'b'",)),
    ],
)
def test_wrong_flags_are_named(arguments, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*arguments, names=names)
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


def test_a_terminal_that_lacks_a_character_gets_another(monkeypatch):
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", printed)
    assert cli.run(["--version"]) == 0
    print("trace 3 ± 1, \udcff and é")
    printed.flush()
    assert printed.buffer.getvalue().decode().splitlines()[1] == "trace 3 +- 1, \\udcff and \\xe9"


def test_memory_that_cannot_be_had_is_one_sentence(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "digest", cli.Command(lambda arguments: len(torch.empty(10**18)), "", ""))
    refused("digest", names=("there is not enough memory", "--chunk"))
    monkeypatch.setitem(cli.COMMANDS, "digest", cli.Command(lambda arguments: torch.empty(2) @ torch.empty(3), "", ""))
    with pytest.raises(RuntimeError, match="inconsistent"):
        cli.run(["digest"])
