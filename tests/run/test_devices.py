"""On a GPU, operations without a deterministic form are refused by name before a run begins. Not run on a GPU."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from small_runs import prepare, small_recipe
from torch import nn

from noiseless.errors import ModuleError
from noiseless.files.environment import environment
from noiseless.objective import EmpiricalRisk, cross_entropy
from noiseless.run import devices


@pytest.fixture(autouse=True)
def _settings_as_before(monkeypatch):
    """Restores torch's settings for the process, and the environment."""
    monkeypatch.delenv(devices.WORKSPACE, raising=False)
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fills
    os.environ.pop(devices.WORKSPACE, None)


class Unpooled(nn.Module):
    """A network with an operation that has no deterministic form, not even on a CPU."""

    def __init__(self):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.unpool(*self.pool(x)).flatten(1))


def risk(model):
    return EmpiricalRisk(model, cross_entropy, (torch.randn(8, 1, 4, 4), torch.arange(8) % 2), block=4)


def test_a_cpu_is_left_as_it_is():
    devices.make_deterministic(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert devices.WORKSPACE not in os.environ
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_a_gpu_has_deterministic_operations_before_cuda_starts(monkeypatch):
    """What is known when torch starts CUDA, which it does when a GPU becomes the current device."""
    known = []

    def start(device):
        known.append((str(device), os.environ[devices.WORKSPACE], torch.are_deterministic_algorithms_enabled()))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", start)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.device_of("cuda") == torch.device("cuda:1")
    assert known == [("cuda:1", ":4096:8", True)]


def test_a_users_workspace_is_kept_or_refused(monkeypatch):
    monkeypatch.setenv(devices.WORKSPACE, ":16:8")
    devices.make_deterministic(torch.device("cuda"))
    assert os.environ[devices.WORKSPACE] == ":16:8"
    monkeypatch.setenv(devices.WORKSPACE, ":0:0")
    with pytest.raises(ValueError, match=r"CUBLAS_WORKSPACE_CONFIG=:0:0.*unset it"):
        devices.make_deterministic(torch.device("cuda"))


def test_an_operation_is_refused_by_name():
    devices.make_deterministic(torch.device("cuda"))
    with pytest.raises(ValueError, match="max_unpool") as error:
        devices.try_deterministic(risk(Unpooled()))
    text = str(error.value)
    assert "in forward)" in text  # the place in the user's file
    assert "upsample by nearest" in text
    assert "--device cpu" in text
    assert "warn_only" not in text  # torch's own remedy, with which the bits would change
    assert "\n" not in text


def test_other_errors_and_models_stay_as_they_are():
    devices.make_deterministic(torch.device("cuda"))
    devices.try_deterministic(risk(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))))
    with pytest.raises(ModuleError, match="Linear"):
        devices.try_deterministic(risk(nn.Sequential(nn.Flatten(), nn.Linear(17, 2))))
    assert devices.nondeterministic(RuntimeError("CUDA error: an illegal memory access")) is None


@pytest.mark.parametrize(
    ("torchs", "remedy"),
    [
        ("adaptive_max_pool2d_backward_cuda", "MaxPool2d with a fixed window"),
        ("adaptive_avg_pool2d_backward_cuda", "the mean over the pixels"),
        ("reflection_pad2d_backward_cuda", "models.layers.pad"),
        ("kthvalue CUDA", "replace it in the model"),
    ],
)
def test_each_has_its_remedy(torchs, remedy):
    told = devices.nondeterministic(RuntimeError(f"{torchs} does not have a deterministic implementation, but you"))
    assert remedy in told


def test_a_step_of_every_kind_is_deterministic(data):
    """The program's own operations have deterministic forms, as far as a CPU tells."""
    for name in ("sgd", "fb-practice", "fb-strong"):
        experiment = prepare(small_recipe(data, name))
        objective = next(iter(experiment.regime.objectives(0))).in_step(0, 0.1)
        before = objective.evaluate()
        devices.make_deterministic(torch.device("cuda"))
        after = objective.evaluate()
        torch.use_deterministic_algorithms(False)
        assert torch.equal(before.gradient, after.gradient)


def test_the_record_has_the_libraries_of_a_gpu(data, monkeypatch):
    config = prepare(small_recipe(data)).config
    assert "cuda" not in environment(config, "", [])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    on_gpu = replace(config, settings=replace(config.settings, device="cuda:0"))
    record = environment(on_gpu, "", [])
    assert record["device"] == "a GPU"
    assert "cuDNN" in record["cuda"]
