"""Speed of runs: chunks, the choice to compile, work counted by hand, memory that is kept; runs of compiled code."""

from __future__ import annotations

import json
import subprocess
import sys

import printed
import pytest
from small_runs import IMAGES, call, files, prepare, record, resume, run, small_recipe, words
from torch import nn

from noiseless.ask import verify
from noiseless.files import checkpoint
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory
from noiseless.objective.workers import Alone
from noiseless.run import speed
from noiseless.run.work import Work, work

NO_COMPILER = "no-such-compiler"


@pytest.mark.parametrize(
    ("block", "parameters", "pixels", "expected"),
    [
        (32, 77_754, 64, 16),  # digits: 2**15 / (32 * 64), below 2**24 / 77,754 = 215
        (32, 2**21, 64, 8),  # 2**24 / 2**21
        (128, 11_173_962, 1024, 1),  # ResNet-18 on CIFAR: a block is more than 2**15 pixels
        (1, 2**25, 1, 1),  # more parameters than a chunk's gradients may have
    ],
)
def test_a_chunk_is_bounded_by_pixels_and_by_gradients(block, parameters, pixels, expected):
    assert speed.chunk(block, parameters, pixels) == expected


def work_of(flops, tensors=10):
    return Work(passes=1, examples=1, gradient_flops=flops, parameters=1, tensors=tensors)


# 10 tensors: 12 + 0.6 * 10 = 18 s of compiling, which must be saved twice. A quarter of a run's seconds is saved:
# 4 * 36 s at 1e11 FLOP/s are 1.44e13 FLOPs.
BREAK_EVEN = 1.44e13


@pytest.mark.parametrize(
    ("choice", "flops", "device", "expected"),
    [
        ("auto", BREAK_EVEN * 1.001, "cpu", True),
        ("auto", BREAK_EVEN * 0.999, "cpu", False),
        ("auto", BREAK_EVEN * 1000, "cuda", False),
        ("on", 1.0, "cpu", True),
        ("on", 1.0, "cuda", True),
        ("off", BREAK_EVEN * 1000, "cpu", False),
    ],
)
def test_auto_compiles_where_it_earns_its_time_back(monkeypatch, choice, flops, device, expected):
    monkeypatch.delenv("CXX", raising=False)
    decision, line = speed.compiling(choice, work_of(flops), device)
    assert decision is expected
    message = "compiling at the first step: about 18 s, unless the code was compiled before"
    assert line == (message if expected else None)


def test_auto_without_a_compiler_computes_uncompiled_and_prints_a_message_where_it_matters(monkeypatch):
    monkeypatch.setenv("CXX", NO_COMPILER)
    decision, line = speed.compiling("auto", work_of(BREAK_EVEN * 2), "cpu")
    assert not decision
    assert line.startswith(f"CXX names {NO_COMPILER}, which is not there: computing without compiled code")
    assert "Install g++" in line
    assert "\n" not in line
    assert speed.compiling("auto", work_of(BREAK_EVEN / 2), "cpu") == (False, None)
    assert speed.compiling("on", work_of(1.0), "cpu")[0]  # the first step refuses, with the remedy


def test_the_work_of_a_model_counted_by_hand(data):
    recipe = small_recipe(data, "fb", steps=5)
    train = prepare(recipe).train
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    model[1].eval()
    counted = work(recipe, model, train)
    # 8x8 pixels, 2 channels, 9 products each; 128 * 4 products; an addition with each; a backward is two forwards
    assert counted.gradient_flops == 3 * 2 * (64 * 2 * 9 + 128 * 4)
    assert (counted.passes, counted.examples) == (5, IMAGES)
    assert counted.flops == 5 * IMAGES * counted.gradient_flops
    assert counted.parameters == 2 * 9 + 2 + 2 * 2 + 128 * 4 + 4
    assert counted.tensors == 6
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model[1].num_batches_tracked == 0


PROGRAM = """
import resource, torch
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.empty(2**24).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
from noiseless.run.speed import keep_memory
faults()
fresh = faults()
keep_memory()
faults()
print(fresh, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept():
    program = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    fresh_faults, kept_faults = (int(word) for word in program.stdout.split())
    # 10 times 64 MiB are at least 320 huge pages of 2 MiB; of kept memory no page is new, except for Python's own
    assert fresh_faults >= 320
    assert kept_faults < 32


COMPILED = {"compile": "on", "chunk": 1, "evaluate_every": 2, "checkpoint_seconds": 0, "keep": 9}


def compiled_recipe(data):
    """Penalty, clip and fresh blocks of 16 at each of 3 steps; the smallest model, as its compiling takes seconds."""
    return small_recipe(data, "fb-practice", model="linear")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return run(tmp_path_factory.mktemp("compiled") / "run", compiled_recipe(data), **COMPILED)


def settings_of(directory):
    return json.loads((directory.path / "config.json").read_text())["settings"]


def test_the_choice_to_compile_is_recorded(undisturbed, data):
    assert settings_of(undisturbed)["compile"] == "on"
    for choice in ("auto", "off"):  # a run of three steps does not earn the time back
        experiment = prepare(compiled_recipe(data), compile=choice)
        assert experiment.config.settings.compile == "off"
        assert experiment.compiler is None


@pytest.mark.parametrize("step", [0, 1])
def test_a_resumed_run_of_compiled_code_has_the_bits_of_an_undisturbed_one(undisturbed, data, tmp_path, step):
    directory = run(tmp_path / "run", compiled_recipe(data), stop_after=step, **COMPILED)
    assert not directory.model.exists()
    assert resume(directory) == []
    assert record(directory) == record(undisturbed)


def test_without_the_compiler_a_run_is_not_resumed_and_loses_nothing(undisturbed, data, tmp_path, monkeypatch):
    directory = run(tmp_path / "run", compiled_recipe(data), stop_after=0, **COMPILED)
    before = files(directory.path)
    monkeypatch.setenv("CXX", NO_COMPILER)
    answer = call("resume", directory.path)
    assert answer.code == 2
    assert f"CXX names {NO_COMPILER}, which is not there. Install g++" in words(answer.err)
    assert "start a new run with --compile off" in words(answer.err)
    assert "Traceback" not in answer.err
    after = files(directory.path)
    assert {name for name in before | after if before.get(name) != after.get(name)} <= {"lock"}
    monkeypatch.delenv("CXX")
    resume(directory)
    assert record(directory) == record(undisturbed)


def test_a_run_of_compiled_code_is_evaluated_without_a_compiler(undisturbed, monkeypatch):
    monkeypatch.setenv("CXX", NO_COMPILER)
    answer = call("evaluate", undisturbed.path)
    assert (answer.code, answer.err) == (0, "")
    assert f"{100 * undisturbed.rows()[-1]['test_accuracy']:.2f}" in answer.out


def test_verify_uses_compiled_code_in_its_smaller_chunks_too(data, tmp_path, monkeypatch):
    # stopped before its first sweep: no code is compiled for the run's own chunk of three blocks
    directory = run(tmp_path / "run", compiled_recipe(data), stop_after=-1, **COMPILED | {"chunk": 3})
    digests = {
        verify._digest(verify.gradient(StateAddress(directory, None), verify._RecordingAlone(permuted)))
        for permuted in (False, True)
    }
    assert len(digests) == 1
    monkeypatch.setenv("CXX", NO_COMPILER)
    with pytest.raises(ValueError, match="this is to be computed by compiled code"):
        verify.gradient(StateAddress(directory, None), Alone())


def test_two_workers_have_the_bits_of_one_and_torch_prints_nothing(data, tmp_path, monkeypatch):
    arguments = ["train", "fb", "--data", data, "--model", "linear", "--block", "16", "--steps", "3", "--chunk", "1"]
    arguments += ["--threads", "1", "--compile", "on", "--run-dir"]
    assert call(*arguments, tmp_path / "alone").code == 0
    # a directory that would be CUDA's, of which torch takes note in its log where there is no GPU
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    code, out = printed.launch(2, tmp_path / "log", *arguments, tmp_path / "two")
    assert code == 0, out
    assert "compiling at the first step: about 13 s, unless the code was compiled before" in out  # of 2 tensors
    assert "CUDA" not in out
    digests = [checkpoint.digest(RunDirectory(tmp_path / name).state()) for name in ("alone", "two")]
    assert digests[0] == digests[1]


def test_an_unknown_choice_is_refused_with_the_choices(data, tmp_path):
    answer = call("train", "fb", "--data", data, "--compile", "maybe", "--run-dir", tmp_path / "run")
    assert answer.code == 2
    for word in ("--compile", "auto", "on", "off"):
        assert word in answer.err
    assert "Traceback" not in answer.err
    assert not (tmp_path / "run").exists()
