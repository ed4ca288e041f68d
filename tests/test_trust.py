"""Code that a run or an exported model names runs only where the person has allowed it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import small_runs
from small_runs import call, refused

from noiseless import from_pretrained, models, trust
from noiseless.ask import verify
from noiseless.ask.state import StateAddress, load_state
from noiseless.data import load
from noiseless.exchange.pretrained import from_run
from noiseless.trust import UntrustedError, trusting

CODE = "trusted_code:net"
SOURCE = """
import functools
import os
import pathlib
import torch.hub
from torch import nn
from torch.hub import load

pathlib.Path("IMPORTED").write_text("")

def net(channels, classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, width), nn.Tanh(), nn.Linear(width, classes))

def sets():
    from noiseless.data import npz
    made = npz(pathlib.Path("d.npz"))
    x = lambda part: part.permute(0, 2, 3, 1).numpy()
    return (x(made.x_train), made.y_train.numpy()), (x(made.x_test), made.y_test.numpy())

narrow = functools.partial(net, width=2)
remove = functools.partial(os.remove)
"""
FLAGS = ("--block", "24", "--threads", "1", "--chunk", "1", "--compile", "off")
LIBRARY_FUNCTIONS = [
    "torch.hub:load", "importlib:import_module", "os:system", "builtins:exec", "subprocess:run", "pickle:loads",
    "torch:load", "numpy:load", "posix:system", "runpy:run_path", "noiseless.cli:run", "timm.models:create_model",
    "torch.utils.cpp_extension:load", "_ctypes:dlopen", "pip:main",
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory, with a module of the user's own that says when it was imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    (tmp_path / "trusted_code.py").write_text(SOURCE)
    small_runs.npz(tmp_path / "d.npz")
    yield tmp_path
    sys.modules.pop("trusted_code", None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory with a run of the user's own model, and its export."""
    place = tmp_path_factory.mktemp("made")
    (place / "trusted_code.py").write_text(SOURCE)
    small_runs.npz(place / "d.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        _make(place)
    return place


def _make(place):
    assert (
        call("train", "fb", "--data", "npz:d.npz", "--steps", 1, "--model", CODE, *FLAGS, "--run-dir", "run").code == 0
    )
    assert call("export", "run", "exported", "--trust", CODE).code == 0
    _forget(place)


@pytest.fixture
def run(place, made):
    """A copy of the run, beside a copy of the export."""
    for name in ("run", "exported"):
        shutil.copytree(made / name, place / name)
    return place / "run"


def _forget(place):
    sys.modules.pop("trusted_code", None)
    (place / "IMPORTED").unlink(missing_ok=True)


def _imported(place):
    imported = (place / "IMPORTED").exists()
    _forget(place)
    return imported


COMMANDS = [
    ("resume", "run"), ("evaluate", "run"), ("verify", "run"), ("sharpness", "run"), ("noise", "run"),
    ("weights", "run"), ("landscape", "run", "--points", "2"), ("flatness", "run"), ("export", "run", "other"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_run_allows_no_code_and_the_message_says_how(command, run, place):
    if command[0] == "resume":
        (run / "model.safetensors").unlink()
    how = (f"the model {CODE} is code", f"--trust {CODE}", f'trust="{CODE}"', "noiseless trust trusted_code")
    refused(*command, names=how)
    assert not _imported(place)


@pytest.mark.parametrize("command", [COMMANDS[k] for k in (0, 1, 5, 8)], ids=lambda command: command[0])
def test_a_flag_of_this_command_allows_it(command, run, place):
    if command[0] == "resume":
        (run / "model.safetensors").unlink()
    answer = call(*command, "--trust", CODE)
    assert answer.code == 0, answer.err
    assert _imported(place)
    refused("evaluate", "run", names=(CODE,))  # the permission has ended with the command


@pytest.mark.parametrize("command", [("verify", "run", "--no-precision"), ("weights", "run", "--workers", "2")])
def test_workers_inherit_the_permission(command, run, monkeypatch):
    monkeypatch.setattr(verify, "WORKERS", (1,))  # one job instead of three
    answer = call(*command, "--trust", CODE)
    assert answer.code == 0, answer.err
    assert "the job failed" not in answer.out


def test_runs_in_parallel_inherit_the_permission(place):
    table = ("--rows", "fb", "--seeds", 1, "--jobs", 1, "--data", "npz:d.npz", "--form", "small")
    answer = call("reproduce", *table, "--model", CODE, "--run-dir", "table")
    assert answer.code == 0, answer.err
    refused("evaluate", next((place / "table").glob("*/config.json")).parent, names=(CODE,))


def test_settings_allow_it_always(run, place):
    answer = call("trust", "trusted_code")
    assert (answer.code, answer.err) == (0, "")
    file = place / "settings" / "noiseless" / "trusted.toml"
    assert str(file) in answer.out.replace("\n", "")
    assert "spelling" not in answer.out
    assert call("evaluate", "run").code == 0
    names = ("trusted_code_", "nope.a:f", "trusted_code:g", "__main__")
    assert "look at the spelling: trusted_code_, nope.a:f" in call("trust", *names).out
    assert call("trust", *names, "--remove").code == 0
    assert call("trust").out.split() == ["trusted_code"]
    assert call("trust", "trusted_code", "--remove").code == 0
    _forget(place)
    refused("evaluate", "run", names=(CODE,))
    assert not _imported(place)
    refused("trust", "trusted_code", "--remove", names=("trusted_code is not trusted",))
    for name, words in {
        "os": "cannot be trusted",
        "torch.hub:load": "cannot be trusted",
        "../x": "is no module",
    }.items():
        refused("trust", name, names=(words,))
    file.write_text("trusted = 1")
    refused("evaluate", "run", names=(str(file), "it must have the form"))
    file.chmod(0o666)
    refused("evaluate", "run", names=(str(file), "others can write it"))


def test_settings_are_searched_at_an_absolute_path_only(place, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "settings")
    monkeypatch.setenv("HOME", str(place / "home"))
    assert trust.settings_file() == place / "home" / ".config" / "noiseless" / "trusted.toml"


@pytest.mark.parametrize("content", [None, "trusted = " + "[" * 5000, "trusted = 1"])
def test_settings_that_cannot_be_read_are_refused_at_once(place, monkeypatch, content):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    path = place / "noiseless" / "trusted.toml"
    path.parent.mkdir()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_text(content)
    with pytest.raises(ValueError, match="which lists trusted code, cannot be read"):
        trust.trusted()


@pytest.mark.parametrize("function", ["net", "narrow"])
def test_python_allows_it_by_an_argument(function, place):
    name = f"trusted_code:{function}"
    with pytest.raises(UntrustedError, match=re.escape(f'trust="{name}"')):
        models.build(name, 1, 4, size=(8, 8))
    assert not _imported(place)
    assert models.build(name, 1, 4, size=(8, 8), trust=name)
    with pytest.raises(UntrustedError):
        models.build(name, 1, 4, size=(8, 8))


def test_runs_and_exports_allow_it_by_an_argument(run, place):
    readers = (
        lambda **given: from_pretrained("exported", **given),
        lambda **given: from_run("run", **given),
        lambda **given: load_state(StateAddress.read("run"), **given),
    )
    for read in readers:
        with pytest.raises(UntrustedError, match=CODE):
            read()
        assert not _imported(place)
        read(trust=CODE)
        assert _imported(place)


def test_a_data_set_needs_the_same(place):
    name = "trusted_code:sets"
    assert call("train", "fb", "--data", name, "--steps", 1, *FLAGS, "--run-dir", "run").code == 0
    _forget(place)
    refused("evaluate", "run", names=(f"the data set {name} is code",))
    assert not _imported(place)
    assert call("evaluate", "run", "--trust", name).code == 0
    _forget(place)
    with pytest.raises(UntrustedError, match=name):
        load(name)
    assert len(load(name, trust="trusted_code").x_train) == small_runs.IMAGES


@pytest.mark.parametrize("name", LIBRARY_FUNCTIONS)
def test_functions_of_libraries_are_never_models(name, run):
    config = small_runs.read_config(run)
    config["recipe"]["model"] |= {"name": name, "options": "repo_or_dir='run', model='m', source='local'"}
    small_runs.write_config(run, config)
    refused("evaluate", "run", "--trust", name, names=(f"{name} cannot be trusted",))
    refused("evaluate", "run", names=(f"{name} cannot be trusted",))
    refused("train", "--model", name, "--run-dir", "new", names=(f"{name} cannot be trusted",))
    config = json.loads((run.parent / "exported" / "config.json").read_text()) | {"model": name}
    (run.parent / "exported" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UntrustedError, match="cannot be trusted"):
        from_pretrained("exported", trust=name)


@pytest.mark.parametrize(
    "function",
    ["load", "remove", "os.remove", "torch.hub.load", "pathlib.Path", "nn.Sequential", "net.__globals__.get"],
)
def test_what_a_trusted_module_has_imported_is_not_trusted(function, place):
    for allowed in ("trusted_code", f"trusted_code:{function}"):
        with trusting(allowed), pytest.raises(ValueError, match=r"cannot be trusted|is no function of|is no name"):
            models.build(f"trusted_code:{function}", 1, 4)


def test_a_trusted_module_lends_no_trust_to_another(place):
    (place / "trusted_other.py").write_text("from trusted_code import net")
    with pytest.raises(UntrustedError, match="trusted_other:net is imported from trusted_code, which is not trusted"):
        models.build("trusted_other:net", 1, 4, trust="trusted_other")
    assert models.build("trusted_other:net", 1, 4, size=(8, 8), trust="trusted_other:net")
    del sys.modules["trusted_other"]


def test_a_module_in_the_directory_of_a_run_is_data(run, monkeypatch):
    Path("trusted_code.py").rename(run / "trusted_code.py")
    (run / "IMPORTED").unlink(missing_ok=True)
    monkeypatch.chdir(run)
    refused("evaluate", ".", "--trust", CODE, names=("trusted_code cannot be imported",))
    monkeypatch.syspath_prepend(str(run))
    refused("evaluate", ".", "--trust", CODE, names=("in the directory of a run or exported model",))
    assert not _imported(run)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", {"width": "/etc/passwd"}), ("torchvision:resnet18", {"norm_layer": "torch.hub:load"}),
        ("torchvision:resnet18", {"norm_layer": print}), ("timm:test_resnet", {"act_layer": "http://a/b"}),
        ("timm:test_resnet", {"block_args": {"file": "x.pth"}}), ("timm:test_resnet", {"act_layer": ("a", "~/x")}),
        ("speednet128", {"widths": (1, "../x")}),
    ],
)  # fmt: skip
def test_options_of_known_models_are_numbers_and_words(name, options):
    with pytest.raises(ValueError, match=r"numbers and words only|unknown option|takes no options"):
        models.build(name, 3, 10, options=options)


def test_a_word_is_an_option():
    module = models.build("timm:test_resnet", 3, 4, options={"act_layer": "gelu"})
    assert "GELU" in str(module)


def test_the_modules_that_are_no_code_of_their_own_are_refused_by_name():
    for module in sys.stdlib_module_names:
        with pytest.raises(UntrustedError):
            trust.permit(module)
