"""A saved model is uploaded, file by file as it is; a damaged one, a wrong token or name is one sentence."""

from __future__ import annotations

import pytest
import torch
from hub_server import TOKEN, hub
from huggingface_hub import constants

from noiseless import from_pretrained, models, save_pretrained
from noiseless.exchange.description import Description
from noiseless.exchange.hub import push_to_hub


@pytest.fixture
def saved(tmp_path):
    description = Description("resnet8", 1, 4)
    save_pretrained(models.build("resnet8", 1, 4), tmp_path / "model", description)
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def _lfs(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by LFS, which the server speaks


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub 2.4 with httpx2
def test_a_model_is_uploaded_and_loads_again(saved, tmp_path):
    (saved / "notes.txt").write_text("not sent")
    with hub() as server:
        options = {"token": TOKEN, "endpoint": server.endpoint}
        address = push_to_hub(saved, "me/small", private=True, message="First", **options)
        assert address.startswith(f"{server.endpoint}/me/small/commit/")
        push_to_hub(saved, "me/small", revision="other", **options)  # which exists by now
    names = [(item["organization"], item["name"]) for item in server.created]
    assert names == [("me", "small")] * 2
    assert "private" in str(server.created[0])
    assert "private" not in str(server.created[1])
    assert [commit["summary"] for commit in server.commits] == ["First", "Upload a model of noiseless"]
    assert server.paths[-1].endswith("/commit/other")
    assert {path: (saved / path).read_bytes() for path in server.files} == server.files
    assert set(server.files) == {"model.safetensors", "config.json", "README.md"}
    received = tmp_path / "received"
    received.mkdir()
    for name, content in server.files.items():
        (received / name).write_bytes(content)
    sent, loaded = from_pretrained(saved).state_dict(), from_pretrained(received).state_dict()
    assert all(torch.equal(sent[name], loaded[name]) for name in sent)


def test_what_cannot_be_uploaded_is_one_sentence(saved, tmp_path):
    with hub() as server:
        options = {"token": TOKEN, "endpoint": server.endpoint}
        with pytest.raises(ValueError, match=r"was not uploaded to me/small at http.*hf auth login") as refused:
            push_to_hub(saved, "me/small", **(options | {"token": "hf_wrong"}))
        assert "hf_wrong" not in str(refused.value)
        with pytest.raises(ValueError, match="'a/b/c' is no name of a repository"):
            push_to_hub(saved, "a/b/c", **options)
        with pytest.raises(ValueError, match="holds no model"):
            push_to_hub(tmp_path / "lacking", "me/small", **options)
        before = len(server.paths)
        content = bytearray((saved / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (saved / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            push_to_hub(saved, "me/small", **options)
        assert len(server.paths) == before  # nothing of a damaged model is sent
        assert not server.files


def test_no_server_is_one_sentence(saved):
    with pytest.raises(ValueError, match=r"was not uploaded to me/small at http://127\.0\.0\.1:9: .*network"):
        push_to_hub(saved, "me/small", token=TOKEN, endpoint="http://127.0.0.1:9")
