"""Files of torch.save are read without running anything in them, and what would run is named."""

import importlib.util
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import HOME, parts, published_modules, write

from noiseless.files import untrusted
from noiseless.files.published import read_published
from noiseless.files.untrusted import Inert, RefusedError, looks_pickled, read

SLOTS = ("optimizer", "model", "scheduler", "scaler", "step")


@pytest.fixture(scope="module")
def content():
    return parts()


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    """The working directory is a temporary one, where a command that ran would leave a file."""
    monkeypatch.chdir(tmp_path)


class Runs:
    """Unpickling it calls its function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def touch_payload():
    return Runs(os.system, "touch ran")


@pytest.mark.parametrize("legacy", [False, True])
def test_schedules_in_a_file_are_inert_and_their_modules_are_not_imported(content, legacy, tmp_path):
    path = write(tmp_path / "a.pth", content, legacy)
    assert importlib.util.find_spec(HOME.partition(".")[0]) is None  # nobody could import it
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)  # torch's restricted load refuses a real file
    optimizer, model, schedule, scaler, step = read(path)
    assert (scaler, step) == (None, 3)
    assert all(torch.equal(model[name], tensor) for name, tensor in content[1].items())
    assert list(model) == list(content[1])
    momentum = optimizer["state"]
    assert all(
        torch.equal(momentum[k]["momentum_buffer"], v["momentum_buffer"]) for k, v in content[0]["state"].items()
    )
    after = schedule["after_scheduler"]
    assert isinstance(after, Inert)
    assert type(after).__qualname__ == "Cosine"
    assert after.state["T_max"] == 10
    assert isinstance(after.state["optimizer"], Inert)  # the SGD object, with the tensors that it holds
    assert len(after.state["optimizer"].state["state"]) == len(momentum)


def test_schedules_of_torch_are_inert_too(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])  # milestones are a Counter
    path = write(tmp_path / "a.pth", [optimizer.state_dict(), model.state_dict(), {"after_scheduler": steps}, None, 0])
    schedule = read(path)[2]["after_scheduler"]
    assert isinstance(schedule, Inert)
    assert schedule.state["milestones"] == {3: 1, 5: 1}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("slot", range(5), ids=SLOTS)
def test_a_command_in_any_slot_is_refused_by_name_and_not_run(slot, legacy, content, tmp_path):
    path = write(tmp_path / "a.pth", [touch_payload() if k == slot else part for k, part in enumerate(content)], legacy)
    with pytest.raises(
        RefusedError, match=rf"a\.pth is refused: it asks for {os.name}\.system, .*Nothing in it was run"
    ):
        read_published(path)
    assert not (tmp_path / "ran").exists()
    with published_modules():
        torch.load(path, weights_only=False)  # the payload is a real one
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Runs(eval, "1"), "builtins.eval"),
        (Runs(exec, "pass"), "builtins.exec"),
        (Runs(getattr, "a", "upper"), "builtins.getattr"),
        (Runs(__import__, "os"), "builtins.__import__"),
        (Runs(torch.load, "b.pth"), "torch.serialization.load"),
        (Runs(torch.hub.load, "b"), "torch.hub.load"),
        (Runs(torch.optim.lr_scheduler.partial, print), "functools.partial"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (Runs(torch.optim.lr_scheduler._format_param, "a", 1, 2), "torch.optim.lr_scheduler._format_param"),
    ],
)
def test_whatever_is_no_tensor_is_named(payload, name, tmp_path):
    with pytest.raises(RefusedError, match=f"it asks for {name}, "):
        read(write(tmp_path / "a.pth", {"a": payload}))


def archive(path, *pickles):
    """A zip file with these contents of data.pkl, as torch would name them."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in pickles:
            file.writestr(name, content)
        file.writestr("archive/version", "3\n")
    return path


PLAIN = b"\x80\x02}q\x00."  # an empty dict
SYSTEM = b"\x80\x02cos\nsystem\nX\x09\x00\x00\x00touch ran\x85R."
RAW = {
    "by its name": (SYSTEM, r"os\.system"),
    "by an instance": (b"(S'touch ran'\nios\nsystem\n.", r"os\.system"),
    "by names on the stack": (pickle.dumps(touch_payload(), 4), r"posix\.system in a way"),
    "through getattr": (
        b"\x80\x02cbuiltins\ngetattr\ncos\npath\nX\x02\x00\x00\x00os\x86R.",
        r"builtins\.getattr",
    ),
    "behind a name that may be there": (b"\x80\x02ctorch.optim.lr_scheduler\nwarnings.sys\n.", r"warnings\.sys"),
    "behind a class": (b"\x80\x02ctorch.optim.sgd\nSGD.step.__globals__\n.", r"__globals__"),
    "by an extension": (b"\x80\x02\x82\x01.", "extension"),
}


@pytest.mark.parametrize("way", RAW)
def test_other_ways_to_name_a_function_are_refused_too(way, tmp_path):
    content, name = RAW[way]
    zipped, plain = archive(tmp_path / "a.pth", ("archive/data.pkl", content)), tmp_path / "b.pth"
    plain.write_bytes(content)
    for path in (zipped, plain):
        with pytest.raises(RefusedError, match=name):
            read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "pickles",
    [
        [("archive/data.pkl", PLAIN), ("archive/deeper/data.pkl", SYSTEM)],
        [("archive/deeper/data.pkl", SYSTEM), ("archive/data.pkl", PLAIN)],
        [("archive/data.pkl", PLAIN), ("other/data.pkl", SYSTEM)],
        [("archive/data.pkl", PLAIN), ("archive/constants.pkl", SYSTEM)],  # as TorchScript has it
        [("archive/other.pkl", SYSTEM)],
        [],
    ],
)
def test_an_archive_with_another_pickle_or_none_is_refused(pickles, tmp_path):
    with pytest.raises(ValueError, match="it should hold one pickle"):
        read(archive(tmp_path / "a.pth", *pickles))
    assert not (tmp_path / "ran").exists()


def test_the_only_pickle_of_an_archive_may_be_in_a_deeper_folder(tmp_path):
    with pytest.raises(RefusedError, match=r"os\.system"):
        read(archive(tmp_path / "a.pth", ("archive/deeper/data.pkl", SYSTEM)))


def test_torchs_unpickler_refuses_what_the_first_check_would_miss(content, tmp_path, monkeypatch):
    """If the check of the pickle's instructions missed a name, torch's unpickler would still not look it up."""
    monkeypatch.setattr(untrusted, "_names", lambda file: set())
    for legacy in (False, True):
        path = write(tmp_path / "a.pth", [*content[:2], {}, None, touch_payload()], legacy)
        with pytest.raises(ValueError, match=r"cannot be read as a file of torch\.save: .*posix\.?system") as caught:
            read(path)
        assert "weights_only" not in str(caught.value)  # torch's advice would be the wrong one
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_refused(legacy, tmp_path):
    path = write(tmp_path / "a.pth", {"a": torch.arange(6.0), "b": torch.ones(3, 4)}, legacy)
    content = path.read_bytes()
    for length in [*range(0, len(content), 1 + len(content) // 60), len(content) - 1]:
        path.write_bytes(content[:length])
        cause = "" if legacy or length < 2 else ": its end is missing"
        with pytest.raises(ValueError, match=rf"a\.pth cannot be read as a file of torch\.save{cause}"):
            read(path)


def test_a_flipped_bit_in_a_tensor_is_noticed(tmp_path):
    path = write(tmp_path / "a.pth", {"a": torch.full((64,), 1.5)})
    content = path.read_bytes()
    offset = content.index(torch.full((64,), 1.5).numpy().tobytes())
    path.write_bytes(content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :])
    assert not torch.equal(torch.load(path, weights_only=True)["a"], torch.full((64,), 1.5))  # torch does not see it
    with pytest.raises(ValueError, match="checksum"):
        read(path)


@pytest.fixture(scope="module")
def legacy_files(tmp_path_factory):
    """The bytes of two small files: one of tensors, one that also has a command which leaves a file."""
    path = tmp_path_factory.mktemp("legacy") / "a.pth"
    content = [{"state": {0: {"momentum_buffer": torch.ones(2)}}}, {"a": torch.arange(2.0)}, None, None]
    return [write(path, [*content, last], legacy=True).read_bytes() for last in (1, touch_payload())]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_in_it_is_run(legacy_files, tmp_path_factory, data):
    damaged = bytearray(data.draw(st.sampled_from(legacy_files)))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(damaged)
    try:
        read(path)
    except ValueError as error:
        assert "damaged.pth" in str(error)
    assert not list(Path.cwd().iterdir())  # whatever its name has become: nothing else writes to the working directory


@pytest.mark.parametrize("format", ["zip", "legacy", "plain", "safetensors"])
def test_pickles_are_recognised_by_content(format, tmp_path):
    import safetensors.torch

    path = tmp_path / "file.anything"
    # a header of 0x80 = 128 and of 0x280 = 640 bytes: its length begins like a pickle
    for pad in range(0, 700, 8):
        state = {"a" * (1 + pad): torch.ones(2)}
        if format == "safetensors":
            safetensors.torch.save_file(state, path)
        elif format == "plain":
            path.write_bytes(pickle.dumps(state))
        else:
            write(path, state, format == "legacy")
        assert looks_pickled(path) == (format != "safetensors")


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*a\.pth"):
        read(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="directory"):
        read(tmp_path)
