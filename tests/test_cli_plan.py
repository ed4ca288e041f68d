"""noiseless plan: what it prints, from a measurement and from figures, and what it refuses."""

import json

import pytest
from small_runs import call, files, npz, refused, words

from noiseless.commands import plan as plan_command

FIGURES = ("--flops", "4e14", "--memory-bandwidth", "3e12", "--link-bandwidth", "5e10")
IMAGENET = (
    "plan", "fb-regularized", "--form", "paper", "--data", "imagenet", "--pixels", 224, "--model", "resnet152",
    "--stem", "standard", "--workers", 512,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    monkeypatch.setattr(plan_command, "LEAST", 0.05)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_imagenet_with_512_workers_needs_no_data(tmp_path):
    data_dir = tmp_path / "data"
    answer = call(*IMAGENET, *FIGURES, "--data-dir", data_dir)
    assert answer.code == 0, answer.err
    text = words(answer.out.replace("│", " "))
    # torchvision's ResNet-152 has 60,192,808 parameters; 10,010 blocks of 128 for 512 workers are at most 20 each
    for part in ("passes a step 2", "passes 6,000", "parameters 60,192,808", "20 of 10,010", "10 evaluations"):
        assert part in text
    assert "limited by: activations through memory" in text
    assert not data_dir.exists()


def test_json_has_the_same_numbers(tmp_path):
    answer = call(*IMAGENET, *FIGURES, "--data-dir", tmp_path, "--json")
    assert answer.code == 0, answer.err
    (line,) = answer.out.splitlines()
    plan = json.loads(line)
    # 3 * 8 bytes of each parameter and of the statistics of 151,579, 40 and 8 * 9 a block, 1 a chunk; a ring of 512
    sent = 2 * 511 / 512 * (24 * (60_192_808 + 151_579) + 113 * 10_010)
    assert plan["wire"] == pytest.approx(sent)
    assert plan["passes"] == 6000
    # 11.5e9 multiplications in an image's forward (arXiv 1512.03385, table 1, has 11.3e9), twice as many backward
    assert plan["flops"] == pytest.approx(6000 * 1_281_167 * 6 * 11.5e9, rel=0.02)
    assert plan["time"] == pytest.approx(3000 * plan["seconds"]["step"] + 10 * plan["evaluation"])
    assert plan["memory"]["total"] == sum(size for name, size in plan["memory"].items() if name != "total")


def test_the_number_of_pixels_scales_the_operations(tmp_path):
    small, large = (
        json.loads(call("plan", "fb", "--data", "cifar10", "--pixels", p, "--flops", 1e12, "--json").out)["flops"]
        for p in (16, 32)
    )
    assert large / small == pytest.approx(4, rel=0.01)  # but for the linear layer


def test_without_figures_a_run_is_measured_and_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--form", "small", "--data", data, "--steps", 4, "--block", 16, "--threads", 1)
    before = files(tmp_path)
    answer = call("plan", "fb-clipped", *flags)
    assert answer.code == 0, answer.err
    assert files(tmp_path) == before
    for part in ("passes a step", "memory of a worker", "time to finish", "from a short measurement on this machine"):
        assert part in words(answer.out)
    plan = json.loads(call("plan", "fb-clipped", *flags, "--json").out)
    assert plan["seconds"]["step"] > 0
    assert plan["time"] > plan["steps"] * plan["seconds"]["step"]


def test_workers_without_work_give_a_note(data):
    flags = ("--data", data, "--form", "small", "--steps", 2, "--block", 16, "--threads", 1)
    answer = call("plan", "fb", *flags, "--workers", 5, "--chunk", 1)
    assert "5 workers for 3 blocks in 3 chunks: 2 of them have nothing to do" in words(answer.out)
    one_chunk = words(call("plan", "fb", *flags, "--workers", 2, "--chunk", 3, "--flops", 1e12).out)
    assert "1 of them have nothing to do; a smaller --chunk would give them some" in one_chunk
    assert "without --link-bandwidth, the all-reduce is not counted" in one_chunk


@pytest.mark.parametrize(
    ("flags", "several"),
    [(("LBFGS",), True), (("DampedLBFGS",), False), (("DampedLBFGS", "--line-search", "wolfe"), True)],
)
def test_several_evaluations_a_step_give_a_note(flags, several, data):
    answer = call("plan", "fb", "--data", data, "--block", 24, "--flops", 1e12, "--optimizer", *flags)
    assert answer.code == 0, answer.err
    assert (f"{flags[0]} may evaluate several times a step" in words(answer.out + answer.err)) == several


def test_an_unknown_line_search_is_refused_before_anything_is_measured(data):
    flags = ("--data", data, "--block", 24, "--flops", 1e12, "--line-search", "wolf")
    refused("plan", "fb", *flags, names=("unknown line search 'wolf'", "did you mean wolfe"))


@pytest.mark.parametrize("flag", ["--flops", "--memory-bandwidth", "--link-bandwidth"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_wrong_figures_are_refused(flag, value):
    refused("plan", "fb", flag, value, names=(flag, value, "positive number"))


def test_other_mistakes_are_refused(tmp_path):
    refused("plan", "fb", "--flops", names=("--flops", "none is given"))
    refused("plan", "fb", "--memory-bandwidth", "1e12", names=("--memory-bandwidth", "--flops"))
    refused("plan", "fb", "--workers", 0, names=("--workers", "0"))
    refused("plan", "fbb", names=("fbb",))
    refused("plan", "--seed", 1, "fb", names=("noiseless plan fb",))
    refused("plan", "fb", "--steps", 0, names=("--steps", "0"))
    refused("plan", "fb", "--block", 600, "--flops", "1e12", names=("block 600", "512"))
    refused("plan", "fb", "--norm-block", 5, "--flops", "1e12", names=("norm_block 5", "32"))
    refused("plan", "fb", "--model", "resnet9", "--flops", "1e12", names=("resnet9", "resnet8"))
    refused("plan", "fb", "--data", "imagenet", "--flops", "1e12", names=("imagenet", "--pixels"))
    data_dir = tmp_path / "data"
    refused("plan", "fb", "--data", "cifar10", "--data-dir", data_dir, names=("cifar10", "--flops", "--link-bandwidth"))
    assert not data_dir.exists()
