"""Checkpoints: what is written is read back to the bit; a damaged one is recognised and the one before it used."""

import json
import math

import pytest
import safetensors.torch
import torch
from small_runs import call, copy, files, record, resume

from noiseless.files import checkpoint

NEWEST, BEFORE = "step-00000003", "step-00000002"


def truncated(part):
    return lambda content: content[: min(int(len(content) * part), len(content) - 2)]


def flipped(part, bit):
    def damage(content):
        offset = min(int(len(content) * part), len(content) - 1)
        return content[:offset] + bytes([content[offset] ^ (1 << bit)]) + content[offset + 1 :]

    return damage


DAMAGES = {
    "empty": lambda content: b"",
    "missing": lambda content: None,
    "zeros": lambda content: bytes(len(content)),
    "not-json": lambda content: b"[1, 2]",
    **{f"truncated-{part}": truncated(part) for part in (0.001, 0.3, 0.9, 0.9999)},
    **{f"flipped-{part}-{bit}": flipped(part, bit) for part in (0.0, 0.01, 0.5, 0.9) for bit in (0, 5, 7)},
}


@pytest.fixture
def unfinished(practice, tmp_path):
    """The finished run without its end: checkpoints after 0, 1, 2 and 3 of 3 steps."""
    directory = copy(practice, tmp_path / "run")
    directory.model.unlink()
    return directory


def apply_damage(path, damage):
    content = damage(path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(unfinished, suffix, damage):
    apply_damage(unfinished.checkpoints / (NEWEST + suffix), DAMAGES[damage])
    newest = checkpoint.newest(unfinished.checkpoints)
    assert newest is not None
    assert newest.step == 2
    assert len(newest.damaged) == 1
    assert NEWEST in newest.damaged[0]


@pytest.mark.parametrize(("suffix", "damage"), [(".json", "truncated-0.9"), (".safetensors", "flipped-0.5-5")])
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_to_the_same_bits(practice, unfinished, suffix, damage):
    for name in (NEWEST, BEFORE):  # two in a row
        apply_damage(unfinished.checkpoints / (name + suffix), DAMAGES[damage])
    messages = resume(unfinished)
    assert [name in message for name, message in zip((NEWEST, BEFORE), messages, strict=True)] == [True, True]
    assert all("going on from step 1" in message for message in messages)
    assert record(unfinished) == record(practice)


def test_the_resume_command_names_the_damaged_checkpoint(practice, unfinished):
    apply_damage(unfinished.checkpoints / f"{NEWEST}.safetensors", DAMAGES["empty"])
    answer = call("resume", unfinished.path)
    assert answer.code == 0
    assert f"{NEWEST}.json is damaged" in answer.out + answer.err
    assert "going on from step 2" in answer.out + answer.err
    assert record(unfinished) == record(practice)


def test_damage_to_all_checkpoints_is_an_error_that_changes_nothing(unfinished):
    for path in unfinished.checkpoints.glob("*.safetensors"):
        apply_damage(path, DAMAGES["truncated-0.9"])
    before = files(unfinished.path)
    for command in ("resume", "evaluate", "digest"):
        answer = call(command, unfinished.path)
        assert answer.code == 2
        assert "all checkpoints in" in answer.err
        assert str(unfinished.checkpoints) in answer.err
        assert "Traceback" not in answer.err
    before.pop("lock")
    assert {name: content for name, content in files(unfinished.path).items() if name != "lock"} == before


def test_a_half_written_file_is_never_seen_under_its_name(unfinished):
    """A kill during a write leaves a temporary file, under a name that no reader opens."""
    (unfinished.checkpoints / ".step-00000009.json.77.tmp").write_text('{"step": 9, "sta')
    newest = checkpoint.newest(unfinished.checkpoints)
    assert newest is not None
    assert (newest.step, newest.damaged) == (3, [])


def test_old_checkpoints_are_removed_and_the_newest_kept(tmp_path):
    for step in (0, 5, 10, 100):
        checkpoint.save(tmp_path, step, {"x": torch.tensor([float(step)])}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"step-{step:08d}.{kind}" for step in (10, 100) for kind in ("json", "safetensors")
    ]


def test_a_state_is_read_back_to_the_bit(tmp_path):
    state = {
        "tensors": {
            "bf16": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
            "scalar": torch.tensor(3, dtype=torch.int64),
            "empty": torch.zeros(0, 4),
            "nan": torch.tensor([math.nan, math.inf]),
        },
        "groups": [{"betas": (0.9, 0.999), "lr": 0.1, "foreach": None, "params": [0, 1]}],
        "by number": {0: {"history": [torch.ones(2), None]}, 1: {}},
        "third": 1 / 3,
        "text": 'quote " and ü',
        "big": 2**63,
        "flag": True,
    }
    checkpoint.save(tmp_path, 7, state, keep=1)
    step, restored = checkpoint.read(tmp_path / "step-00000007.json")
    assert step == 7
    tensors = restored.pop("tensors")
    for name, tensor in state.pop("tensors").items():
        assert tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(restored["by number"][0]["history"].pop(0), state["by number"][0]["history"].pop(0))
    assert restored == state
    assert isinstance(restored["groups"][0]["betas"], tuple)


def test_checkpoints_are_plain_safetensors_and_json(practice):
    record = json.loads((practice.checkpoints / f"{NEWEST}.json").read_text())
    tensors = safetensors.torch.load_file(practice.checkpoints / f"{NEWEST}.safetensors")
    assert record["step"] == 3
    assert torch.equal(tensors["/model/fc.bias"], practice.state()["fc.bias"])
