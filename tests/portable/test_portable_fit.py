"""`fit` with portable=True, and evaluations of portable runs: the same bits for any threads and instruction set."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from small_runs import call, npz
from torch import nn

import noiseless
from noiseless.objective import Execution
from noiseless.objective.compiled import Compiler

PROGRAM = """
import json, sys, torch, noiseless
torch.set_num_threads(int(sys.argv[1]))
x = torch.arange(20 * 6).reshape(20, 6).remainder(17).sub(8).div(8)
y = torch.arange(20) % 3
model = torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.GELU(), torch.nn.Linear(40, 3))
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.arange(p.numel()).reshape(p.shape).remainder(13).sub(6).div(16))
result = noiseless.fit(
    model, torch.nn.CrossEntropyLoss(), (x, y), optimizer="AdamW", schedule="cosine", steps=5, block=7,
    validation=(x[:5], y[:5]), portable=True, execution=noiseless.Execution(chunk=int(sys.argv[2])), progress=False,
)
print(json.dumps([result.digest, result.train.loss.hex(), result.validation.loss.hex()]))
"""
NO_VECTORS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def _fitted(environment: dict[str, str], *numbers: int) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
    out = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def test_threads_chunk_and_instructions_change_no_bit():
    assert _fitted({}, 1, 1) == _fitted(NO_VECTORS, 2, 3)


def _model() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return nn.Linear(3, 2), (torch.randn(8, 3), torch.arange(8) % 2)


class SGD(torch.optim.SGD):
    """An optimizer of the user's with a known name."""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "RMSprop"}, ["RMSprop", "AdamW"]),
        ({"optimizer": lambda p: SGD(p, lr=0.1), "lr": None}, ["--optimizer SGD"]),
        ({"scheduler": lambda step: 0.1}, ["scheduler", 'schedule="cosine"']),
        ({"execution": Execution(compiler=Compiler())}, ["--compile on"]),
        ({"loss": lambda output, target: torch.special.bessel_j0(output).sum(1)}, ["bessel_j0", "--portable"]),
    ],
)
def test_what_is_not_portable_is_refused(changes, words):
    model, data = _model()
    arguments = {"loss": nn.CrossEntropyLoss(), "optimizer": "SGD", "lr": 0.1, "steps": 2, "portable": True}
    with pytest.raises(ValueError, match="portable") as error:
        noiseless.fit(model, data=data, **{k: v for k, v in (arguments | changes).items() if v})
    assert all(word in str(error.value) for word in words), error.value


def test_an_optimizer_of_torch_is_taken():
    model, data = _model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    fitted = noiseless.fit(model, nn.CrossEntropyLoss(), data, optimizer=optimizer, steps=2, portable=True)
    assert len(fitted.history) == 2


def test_evaluate_and_predict_compute_what_the_run_recorded(tmp_path):
    place = tmp_path / "run"
    flags = ("--data", npz(tmp_path / "data.npz"), "--model", "resnet2", "--block", 16, "--steps", 2)
    answer = call("train", "fb", "--portable", *flags, "--run-dir", place)
    assert answer.code == 0, answer
    last = json.loads((place / "metrics.jsonl").read_text().splitlines()[-1])
    state = json.loads(call("evaluate", place, "--json").out)["states"][0]
    assert state["test"]["loss"] == last["test_loss"]
