"""Pretrained weights of torchvision and timm, from caches that the tests write; nothing is sent or downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants
from small_runs import npz, prepare, refused, small_recipe

from noiseless.models import weights

NAME = "torchvision:squeezenet1_1"
"""the smallest of torchvision's: 1.2 million parameters; its head is a convolution"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The directory of torch's hub, empty; that of the Hugging Face hub is beside it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The value of --data for tiny grey images."""
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def in_torch_hub(hub, name, monkeypatch, seed=5):
    """A file of random weights where torchvision's weights would be, with the hash of its name; their state."""
    torch.manual_seed(seed)
    state = torchvision.models.get_model(name, weights=None).state_dict()
    torch.save(state, hub / "new.pth")
    digest = hashlib.sha256((hub / "new.pth").read_bytes()).hexdigest()[:8]
    entry = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(entry), "url", f"https://download.example/{name}-{digest}.pth", raising=False)
    return state, (hub / "new.pth").rename(hub / f"{name}-{digest}.pth")


def in_hf(tmp_path, repository, state):
    """A file of weights in the hub's cache, as `hf_hub_download` leaves it: a link to a blob named by its digest."""
    content = safetensors.torch.save(state)
    digest = hashlib.sha256(content).hexdigest()
    folder = tmp_path / "hf" / f"models--{repository.replace('/', '--')}"
    for part in ("blobs", "refs", "snapshots/abc"):
        (folder / part).mkdir(parents=True)
    (folder / "blobs" / digest).write_bytes(content)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc" / "model.safetensors").symlink_to(f"../../blobs/{digest}")
    return folder / "blobs" / digest


def test_torchvisions_weights_with_a_new_head_and_one_colour(hub, small, monkeypatch):
    state, path = in_torch_hub(hub, "squeezenet1_1", monkeypatch)
    recipe = small_recipe(small, "fb", model=NAME, pixels=32, init="pretrained", norm_block=None)
    experiment = prepare(recipe)
    new = prepare(small_recipe(small, "fb", model=NAME, pixels=32)).model.state_dict()
    for name, tensor in experiment.model.state_dict().items():
        if name == "features.0.weight":
            torch.testing.assert_close(tensor, state[name].sum(1, keepdim=True))
        else:
            assert torch.equal(tensor, new[name] if name.startswith("classifier.1.") else state[name]), name
    first, head, *rest = experiment.notes
    assert f"the weights IMAGENET1K_V1 of {NAME}, from {path}, whose SHA-256 is as stated" in first
    assert "classifier.1.weight ([1000, 512, 1, 1] there, [4, 512, 1, 1] here)" in head
    assert rest == []
    assert experiment.config.recipe.model.init == "pretrained"


def test_missing_and_damaged_weights_are_sentences(hub, small, monkeypatch, tmp_path):
    flags = ("--data", small, "--model", NAME, "--pixels", 32, "--run-dir", tmp_path / "run")
    names = ("IMAGENET1K_V1", f"{hub}/squeezenet1_1-", "do not exist", f"noiseless models {NAME} --fetch")
    refused("train", "fb", *flags, "--init", "pretrained", names=names)
    refused("train", "fb", *flags, "--init", "pretrained:V9", names=("weights of", "'V9'", "IMAGENET1K_V1"))
    refused("train", "fb", *flags[:2], *flags[4:], "--model", "resnet8", "--init", "pretrained", names=("resnet8",))
    _, path = in_torch_hub(hub, "squeezenet1_1", monkeypatch)
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    refused("train", "fb", *flags, "--init", "pretrained", names=(path, "is damaged", "torchvision states"))


def test_timms_weights_from_the_hub(hub, small, tmp_path):
    torch.manual_seed(7)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    blob = in_hf(tmp_path, "timm/test_resnet.r160_in1k", state)
    recipe = small_recipe(small, "fb", model="timm:test_resnet", pixels=32, init="pretrained:r160_in1k")
    experiment = prepare(recipe)
    for name, tensor in experiment.model.state_dict().items():
        if name == "conv1.0.weight":
            torch.testing.assert_close(tensor, state[name].sum(1, keepdim=True))
        elif not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name
    assert experiment.model.state_dict()["fc.weight"].shape[0] == 4
    assert "whose SHA-256 is as stated" in experiment.notes[0]
    assert "fc.weight ([1000, " in experiment.notes[1]
    other = small_recipe(small, "fb", model="timm:test_resnet", pixels=32)
    assert torch.equal(experiment.model.state_dict()["fc.weight"], prepare(other).model.state_dict()["fc.weight"])
    blob.write_bytes(blob.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="is damaged"):
        prepare(recipe)


def test_timms_weights_that_are_not_there(hub, tmp_path):
    found = weights.find("timm:test_resnet")
    assert found.path is None
    with pytest.raises(ValueError, match=r"r160_in1k of timm:test_resnet are not on .*models--timm--test_resnet"):
        found.file()
    with pytest.raises(ValueError, match="'V9'"):
        weights.find("timm:test_resnet", "V9")


def test_densenets_old_names_are_todays(hub):
    found = weights.find("torchvision:densenet121")
    module = torchvision.models.densenet121(weights=None)
    old = {}
    for name, tensor in module.state_dict().items():
        place, dot, rest = name.rpartition(".")
        short = place.rpartition(".")[2]
        renamed = f"{place[:-1]}.{place[-1]}{dot}{rest}" if short in ("norm1", "norm2", "conv1", "conv2") else name
        old[renamed] = tensor
    assert old.keys() != module.state_dict().keys()
    assert weights.converted(found, old, module, 3, {}).keys() == module.state_dict().keys()


def test_fetch_compares_the_hash_and_names_the_cause(hub, monkeypatch, tmp_path):
    source = tmp_path / "served"
    source.mkdir()
    _, path = in_torch_hub(hub, "squeezenet1_1", monkeypatch)
    served = path.rename(source / path.name)
    entry = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    monkeypatch.setattr(type(entry), "url", served.as_uri())
    assert weights.fetch(NAME).path == hub / served.name
    (hub / served.name).unlink()
    served.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"could not be downloaded from file:.*invalid hash"):
        weights.fetch(NAME)
    assert list(hub.iterdir()) == []


def test_the_command_needs_names(hub):
    refused("models", "--fetch", names=("--fetch needs the names",))
    refused("models", "resnet8", "--fetch", names=("there are no pretrained weights of resnet8",))
    refused("models", "--weights", "V1", names=("does nothing without --fetch",))
    refused("models", "torchvision:resnet19", "--fetch", names=("torchvision has no model resnet19",))


def test_images_of_the_librarys_normalisation_need_no_message():
    found = weights.find("torchvision:resnet18")
    assert weights.normalisation(found, found.mean, found.std) is None
    assert "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225" in weights.normalisation(found, (0.5,) * 3, (0.2,) * 3)
    assert Path(found.places[0]).name == "resnet18-f37072fd.pth"
