"""Data sets by the command line: list, fetch, info, pack, and a step of training on their published forms."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from archives import Server, cifar10, class_folders, folder, image, published, tiny_cifar10
from small_runs import call, prepare, read_config, refused, small_recipe, words, write_config

from noiseless.data import cifar, home, load, packed
from noiseless.files.directory import RunDirectory
from noiseless.recipes import ladder
from noiseless.recipes.flags import with_flags

STEP = (
    "train",
    "fb",
    "--model",
    "resnet2",
    "--block",
    "16",
    "--steps",
    "1",
    "--threads",
    "1",
    "--checkpoint-seconds",
    "999",
)


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("NOISELESS_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("NOISELESS_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "250")


def _cifar(path):
    return folder(path / "cifar-10-batches-py", cifar10().python)


def _recorded(path, name):
    return RunDirectory(path).config().recipe.data.name == name and RunDirectory(path).rows()[-1]["step"] == 0


def test_the_list_has_all_data_sets_and_which_are_on_this_machine(tmp_path):
    _cifar(tmp_path / "home")
    answer = call("data", "list")
    assert answer.code == 0
    lines = {line.split()[1]: words(line) for line in answer.out.splitlines() if line.startswith("│")}
    assert list(lines) == ["digits", "mnist-5k", "cifar10", "cifar100", "tinyimagenet", "imagenet"]
    assert "50,000 + 10,000 │ 3x32x32 │ 10 │ cifar-10-batches-py" in lines["cifar10"]
    assert "no, 169.0 MB to download" in lines["cifar100"]
    assert str(tmp_path / "home") in answer.out
    elsewhere = call("data", "list", "--data-dir", tmp_path / "elsewhere")
    assert "no, 170.5 MB to download" in elsewhere.out
    assert not (tmp_path / "elsewhere").exists()


def test_fetch_downloads_from_the_mirror(tmp_path, monkeypatch):
    _, content, dataset = tiny_cifar10()
    monkeypatch.setattr(cifar, "CIFAR10", dataset)
    with Server({"cifar-10-python.tar.gz": content}, cuts=[1000]) as server:
        monkeypatch.setenv("NOISELESS_MIRROR", f"{server.url}/data")
        monkeypatch.setattr("noiseless.data.download.time.sleep", lambda seconds: None)
        answer = call("data", "fetch", "cifar10", "--data-dir", tmp_path / "d")
        assert answer.code == 0, answer.err
        path = tmp_path / "d" / "cifar-10-python.tar.gz"
        assert answer.out == f"cifar10 is on this machine: {path}\n"
        assert (
            answer.err == f"downloading {server.url}/data/cifar-10-python.tar.gz ({_size(content)}) to {path.parent}\n"
        )
        assert path.read_bytes() == content
        assert call("data", "fetch", "cifar10", "--data-dir", tmp_path / "d").out == answer.out
        assert server.requested == [None, "bytes=1000-"]
    path.write_bytes(content[:-1])
    refused("data", "fetch", "cifar10", "--data-dir", tmp_path / "d", names=(path, "not the published file", "Remove"))
    path.unlink()
    _cifar(tmp_path / "d")
    assert call("data", "fetch", "cifar10", "--data-dir", tmp_path / "d").out.endswith("/d/cifar-10-batches-py\n")


def _size(content):
    return f"{len(content) / 1000:.1f} kB"


def test_fetch_without_a_network_prints_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("NOISELESS_MIRROR", "http://127.0.0.1:9")  # the discard port: nobody listens
    for arguments in (("data", "fetch", "cifar100"), (*STEP, "--data", "cifar100", "--run-dir", tmp_path / "run")):
        answer = call(*arguments)
        assert answer.code == 2
        line = answer.err.splitlines()[-1]
        for part in ("error: cifar-100-python.tar.gz could not be downloaded", "www.cs.toronto.edu", "169.0 MB",
                     f"put it, or the folder cifar-100-python that it holds, in {tmp_path}/home"):  # fmt: skip
            assert part in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("data", "lst"), ("unknown data command 'lst'", "did you mean list")),
        (("data", "fetch", "cifar"), ("unknown data set 'cifar'", "did you mean cifar10")),
        (("data", "fetch", "imagenet"), ("without an account", "image-net.org", "train/WNID")),
        (("data", "fetch", "npz:x.npz"), ("your own data set: there is nothing to download",)),
        (("data", "pack", "digits"), ("there is nothing to pack",)),
        (("data", "pack", "folder:/not/there"), ("there is no folder /not/there",)),
        (("data", "info", "cifar10", "--pixels", "0"), ("--pixels", "positive", "0")),
        (("data", "info", "digits", "--verify"), ("digits is not packed",)),
        ((*STEP, "--pixels", "0", "--run-dir", "r"), ("--pixels", "positive", "0")),
        ((*STEP, "--data", "imagenet", "--run-dir", "r"), ("without an account",)),
        ((*STEP, "--data", "folder:/not/there", "--run-dir", "r"), ("there is no folder /not/there",)),
    ],
)
def test_wrong_arguments_are_refused(arguments, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*arguments, names=names)
    assert not list(tmp_path.glob("r*"))


@pytest.mark.parametrize(
    "arguments", [("data",), ("data", "--help"), *(("data", a, "--help") for a in ("list", "pack"))]
)
def test_the_data_commands_have_help(arguments):
    answer = call(*arguments)
    assert answer.code == 0
    assert "data" in answer.out


def test_info_describes_a_set_and_downloads_nothing(tmp_path):
    assert call("data", "info", "cifar100").out == (
        f"looking for cifar100\ncifar100 is not in {tmp_path}/home: 169.0 MB to download\n"
    )  # fmt: skip
    text = words(call("data", "info", "mnist-5k", "--pixels", "14").out)
    for part in ("1,000 for training, 4,000 for testing", "1x14x14", load("mnist-5k", pixels=14).sha256()):
        assert part in text
    name = f"folder:{class_folders(tmp_path / 'mine')}"
    text = words(call("data", "info", name).out)
    for part in ("6 for training, 6 for testing", "3x8x8", "2.3 kB when decoded; not packed yet"):
        assert part in text
    assert not (tmp_path / "home").exists()
    assert call("data", "pack", name).code == 0
    assert call("data", "info", name).err == ""
    (tmp_path / "mine/train/bee/more.png").write_bytes(image(5))
    assert call("data", "info", name).err == f"{tmp_path / 'mine'} has changed since it was packed\n"


def test_an_incomplete_data_set_gives_a_note(tmp_path):
    _cifar(tmp_path / "home")
    answer = call("data", "info", "cifar10")
    path = tmp_path / "home" / "cifar-10-batches-py"
    assert answer.err == (
        f"note: {path} holds 30 + 6 images, not the published 50,000 + 10,000: was it unpacked in part?\n"
    )
    assert call("data", "info", "digits").err == ""


def test_pack_and_verify(tmp_path):
    _cifar(tmp_path / "home")
    digest = load("cifar10").sha256()
    path = packed.place(tmp_path / "home", "cifar10", None)
    answer = call("data", "pack", "cifar10")
    assert (answer.code, answer.out) == (0, f"packed: {path}\n")
    assert "packing 36 images of cifar10" in answer.err
    info = call("data", "info", "cifar10", "--verify")
    assert digest in info.out
    assert "verified: the contents have the digest that was written" in info.out
    assert f"packed: cifar10 in {path}" in call("data", "list").out
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    answer = call("data", "info", "cifar10", "--verify")
    assert answer.code == 2
    assert "Remove it; noiseless data pack cifar10 writes it again" in answer.err
    path.write_bytes(content[:-1])
    refused("data", "info", "cifar10", names=(path, "damaged", "Remove it"))
    refused(*STEP, "--data", "cifar10", "--run-dir", tmp_path / "run", names=(path, "damaged", "Remove it"))
    assert "packed:" in call("data", "list").out


def test_a_step_on_cifar10_from_the_archive_the_folder_and_the_packed_file(tmp_path, monkeypatch):
    _, content, dataset = tiny_cifar10()
    digests = set()

    def step(name, *flags):
        answer = call(*STEP, "--data", "cifar10", "--run-dir", tmp_path / name, *flags)
        assert answer.code == 0, answer.err
        assert _recorded(tmp_path / name, "cifar10")
        digests.add(call("digest", tmp_path / name).out)

    folder(tmp_path / "home" / "cifar-10-batches-py", cifar10().python)
    step("folder")
    assert call("data", "pack", "cifar10").code == 0
    shutil.rmtree(tmp_path / "home" / "cifar-10-batches-py")
    step("packed")
    assert call("evaluate", tmp_path / "packed").code == 0
    with Server({"cifar-10-python.tar.gz": content}) as server:
        monkeypatch.setattr(cifar, "CIFAR10", published(dataset, content, f"{server.url}/cifar-10-python.tar.gz"))
        step("archive", "--data-dir", str(tmp_path / "other"))
        assert (tmp_path / "other" / "cifar-10-python.tar.gz").exists()
    assert len(digests) == 1
    assert RunDirectory(tmp_path / "archive").config().settings.data_dir == str(tmp_path / "other")
    assert RunDirectory(tmp_path / "packed").config().settings.data_dir == str(tmp_path / "home")


def test_a_run_is_read_without_the_data_directory_of_its_maker(tmp_path):
    run = tmp_path / "run"
    assert call("train", "fb", "--steps", 1, "--images", 64, "--threads", 1, "--run-dir", run).code == 0
    config = read_config(run)
    (tmp_path / "closed").mkdir()
    for place in ("closed/data", "n" * 300):  # the latter cannot be looked at by root either
        config["settings"]["data_dir"] = str(tmp_path / place)
        write_config(run, config)
        (tmp_path / "closed").chmod(0)
        answer = call("evaluate", run)
        (tmp_path / "closed").chmod(0o700)
        assert answer.code == 0, answer.err


def test_with_the_published_arithmetic_cifar10_has_the_published_pixel_mean(tmp_path):
    folder(tmp_path / "home" / "cifar-10-batches-py", cifar10().python)
    recipe = small_recipe("cifar10", "fb", compat="published")
    resolved = prepare(recipe).config.recipe
    assert (resolved.data.mean, resolved.data.std) == ladder.PUBLISHED_PIXELS["cifar10"]
    assert prepare(resolved).config.recipe == resolved  # a resumed run has the same
    assert prepare(with_flags(recipe, mean=(0.1, 0.2, 0.3))).config.recipe.data.mean == (0.1, 0.2, 0.3)
    plain = prepare(with_flags(recipe, compat="none")).config.recipe
    assert (plain.data.mean, plain.data.std) == tuple(map(tuple, load("cifar10").statistics()))


def test_a_run_is_evaluated_with_data_that_have_moved(tmp_path, monkeypatch):
    _cifar(tmp_path / "old")
    answer = call(*STEP, "--data", "cifar10", "--data-dir", tmp_path / "old", "--run-dir", tmp_path / "run")
    assert answer.code == 0, answer.err
    expected = call("evaluate", tmp_path / "run").out
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.setenv("NOISELESS_DATA", str(tmp_path / "new"))
    assert call("evaluate", tmp_path / "run").out == expected
    assert not (tmp_path / "old").exists()
    folder(tmp_path / "new" / "cifar-10-batches-py", cifar10(count=7).python)
    answer = call("evaluate", tmp_path / "run")
    assert (answer.code, "error: cifar10 has changed since" in answer.err) == (2, True)


def test_a_run_keeps_the_path_and_the_size_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "mine", per_class=4, size=(12, 9))
    flags = ("--data", "folder:mine", "--pixels", "8", "--block", "6", "--run-dir", tmp_path / "run")
    answer = call(*STEP, *flags)
    assert answer.code == 0, answer.err
    assert _recorded(tmp_path / "run", f"folder:{tmp_path / 'mine'}")
    monkeypatch.chdir("/")
    assert "(12 images)" in call("evaluate", tmp_path / "run").out


def test_a_set_that_stays_mapped_gives_the_same_gradient(tmp_path, monkeypatch):
    _cifar(tmp_path / "home")
    recipe = small_recipe("cifar10", block=8)
    resident = prepare(recipe)
    answer = call("data", "pack", "cifar10")
    assert answer.code == 0
    monkeypatch.setattr(packed, "RESIDENT", 0)
    mapped = prepare(recipe)
    assert mapped.data_sha256 == resident.data_sha256
    gradients = [next(iter(experiment.regime.objectives(0))).evaluate().gradient for experiment in (resident, mapped)]
    assert gradients[0].equal(gradients[1])


def test_the_directory_is_the_argument_or_the_environments_or_in_the_cache(tmp_path, monkeypatch):
    assert home("~/there") == Path.home() / "there"
    assert home() == tmp_path / "home"
    monkeypatch.setenv("NOISELESS_DATA", "~/sets")
    assert home() == Path.home() / "sets"
    monkeypatch.delenv("NOISELESS_DATA")
    assert home() == Path.home() / ".cache/noiseless/data"
    assert re.fullmatch("/.*", str(home("relative")))
