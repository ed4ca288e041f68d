"""Final parameters are sealed with their digest: any flipped bit is noticed."""

import pytest
import safetensors.torch
import torch
from small_runs import copy, refused

from noiseless.files import checkpoint
from noiseless.files.parameters import fill, read_parameters, write_parameters

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -0.0]), "count": torch.tensor(3)}


def test_parameters_are_read_back_as_they_were_written(tmp_path):
    write_parameters(tmp_path / "a.safetensors", STATE)
    restored = read_parameters(tmp_path / "a.safetensors", sealed=True)
    assert checkpoint.digest(restored) == checkpoint.digest(STATE)
    assert safetensors.torch.load_file(tmp_path / "a.safetensors").keys() == STATE.keys()  # others can read it


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "a.safetensors"
    write_parameters(path, STATE)
    content = path.read_bytes()
    for offset in range(len(content)):
        for bit in (0, 6):
            path.write_bytes(content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :])
            try:
                restored = read_parameters(path, sealed=True)
            except ValueError as error:
                assert str(path) in str(error)
            else:  # a space of the header's padding, or the format's own name
                assert checkpoint.digest(restored) == checkpoint.digest(STATE), offset


def test_a_foreign_file_needs_no_seal_but_a_run_does(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(STATE, path)
    assert read_parameters(path, sealed=False).keys() == STATE.keys()
    with pytest.raises(ValueError, match=r"a\.safetensors has no digest in it.*copy"):
        read_parameters(path, sealed=True)


def test_a_directory_that_is_no_run_is_refused(data, tmp_path):
    flags = ("--data", data, "--model", "resnet2", "--block", 16, "--run-dir", tmp_path / "run")
    refused("train", "fb", *flags, "--init", tmp_path, names=(f"{tmp_path} is a directory", "model.saf"))


def test_parameters_of_another_model_are_named(tmp_path):
    model = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"here is not of this model: unknown count"):
        fill(model, STATE, "here")
    with pytest.raises(ValueError, match=r"here: weight has shape \[2, 3\], this model's has \[2, 4\]"):
        fill(torch.nn.Linear(4, 2), {k: STATE[k] for k in ("weight", "bias")}, "here")


@pytest.mark.parametrize("command", ["evaluate", "digest"])
def test_the_commands_refuse_a_damaged_model(command, practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    content = bytearray(directory.model.read_bytes())
    content[-1] ^= 1
    directory.model.write_bytes(content)
    refused(command, directory.path, names=(directory.model, "damaged", "copy"))
