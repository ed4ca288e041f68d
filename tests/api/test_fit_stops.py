"""Ctrl-C during `fit` with a directory leaves a checkpoint of that moment; `copy_to` keeps a copy elsewhere."""

from __future__ import annotations

import signal

import pytest
from problems import perceptron, points
from torch import nn

import noiseless
from noiseless.files import heads
from noiseless.run import team

LOSS = nn.CrossEntropyLoss()


class SignalledLoss(nn.Module):
    """Cross entropy that raises a signal at its n-th call."""

    def __init__(self, call, number=signal.SIGINT):
        super().__init__()
        self.left, self.number = call, number

    def forward(self, output, target):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)
        return nn.functional.cross_entropy(output, target, reduction="none")


def trained(place, loss=LOSS, module=None, **changes):
    arguments = {"optimizer": "SGD", "lr": 0.1, "momentum": 0.9, "steps": 6, "block": 2, "checkpoint_seconds": 3600}
    module = perceptron() if module is None else module
    arguments["execution"] = noiseless.Execution(check=False)  # so that the calls of the loss are those of the sweeps
    return noiseless.fit(module, loss, points(), run_dir=place, **(arguments | changes))


def test_ctrl_c_between_steps_leaves_a_checkpoint(tmp_path, capfd):
    whole = trained(tmp_path / "whole")

    def interrupt(row):
        if row["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", callbacks=[interrupt])
    assert "go on with: fit with the same arguments" in capfd.readouterr().err
    assert heads.steps(tmp_path / "run/checkpoints") == [0, 3]
    rows = []
    again = trained(tmp_path / "run", callbacks=[rows.append])
    assert [row["step"] for row in rows] == [3, 4, 5]
    assert again.digest == whole.digest
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_within_a_step_keeps_its_sweep(tmp_path):
    whole = trained(tmp_path / "whole", loss := SignalledLoss(-1))
    calls = -1 - loss.left
    with pytest.raises(KeyboardInterrupt):  # 6 blocks a step: in the fourth one of step 2
        trained(tmp_path / "run", SignalledLoss(16))
    assert heads.steps(tmp_path / "run/checkpoints") == [0, 2]
    again = trained(tmp_path / "run", loss := SignalledLoss(-1))
    assert again.digest == whole.digest
    assert -1 - loss.left == calls - 16


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    def interrupt(row):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", callbacks=[interrupt])
    assert heads.steps(tmp_path / "run/checkpoints") == [0]


def test_without_a_directory_ctrl_c_is_pythons():
    rows = []
    with pytest.raises(KeyboardInterrupt):
        trained(None, SignalledLoss(8), callbacks=[rows.append])
    assert len(rows) == 1


def test_a_handler_of_the_program_is_left_alone(tmp_path):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        result = trained(tmp_path / "run", SignalledLoss(8, signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert len(result.history) == 6


def test_workers_that_are_told_to_stop_otherwise_are_heard(tmp_path):
    workers = team.Alone(lambda: True)
    with pytest.raises(KeyboardInterrupt, match="fit with the same arguments"):
        trained(tmp_path / "run", execution=noiseless.Execution(workers=workers))
    assert workers.stop()


def test_a_copy_is_kept_elsewhere(tmp_path):
    whole = trained(tmp_path / "run", copy_to=tmp_path / "bucket/run")
    run, copy = tmp_path / "run", tmp_path / "bucket/run"
    for name in ("config.json", "metrics.jsonl", "model.safetensors", "report.html"):
        assert (copy / name).read_bytes() == (run / name).read_bytes(), name
    assert heads.steps(copy / "checkpoints") == heads.steps(run / "checkpoints")
    with pytest.raises(ValueError, match=r"copy_to=\S+ holds a run already.* go on with the same call, or choose"):
        trained(tmp_path / "other", copy_to=copy)
    with pytest.raises(ValueError, match="copy_to copies a run's directory: give run_dir, too"):
        trained(None, copy_to=copy)
    assert trained(tmp_path / "run", copy_to=copy).digest == whole.digest  # after the end, again
