"""The entry points of torch.hub, from a checkout that is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_files import parts, write
from small_runs import npz, run, small_recipe

import noiseless
from noiseless import models, save_pretrained
from noiseless.exchange.description import Description
from noiseless.files import checkpoint

CHECKOUT = str(Path(__file__).parents[1])


def hub(name, *arguments, **settings):
    return torch.hub.load(CHECKOUT, name, *arguments, source="local", **settings)


def test_a_checkout_that_is_not_installed_has_models(tmp_path):
    """In a process that can import the package from the checkout alone."""
    program = (
        f"import sys, torch; sys.path = [p for p in sys.path if not p.endswith('/src')]; sys.meta_path = "
        "[f for f in sys.meta_path if 'editable' not in str(f)]; "
        f"model = torch.hub.load({CHECKOUT!r}, 'resnet18', source='local', classes=7); import noiseless; "
        "print(noiseless.__file__, sum(p.numel() for p in model.parameters()))"
    )
    command = [sys.executable, "-E", "-c", program]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    # 11,173,962 with 10 classes, of which each has 512 weights and a bias
    assert answer == [str(Path(CHECKOUT) / "src/noiseless/__init__.py"), str(11_173_962 - 3 * 513)]


def test_each_model_has_an_entry_with_help():
    sys.path.insert(0, CHECKOUT)
    try:
        import hubconf
    finally:
        sys.path.remove(CHECKOUT)
    entries = {name for name in vars(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert entries == {*models.names(), "model", "from_run", "from_pretrained"}
    assert all(getattr(hubconf, name).__doc__ for name in entries)
    assert "safetensors" in hubconf.dependencies


def test_initial_parameters_are_those_of_the_library():
    expected = checkpoint.digest(models.build("resnet8", 1, 4, models.Form(norm="group"), 3).state_dict())
    for model in (
        hub("resnet8", channels=1, classes=4, seed=3, norm="group"),
        hub("model", "resnet8", channels=1, classes=4, seed=3, norm="group"),
    ):
        assert model.training
        assert checkpoint.digest(model.state_dict()) == expected


def test_a_file_gives_the_parameters(tmp_path):
    content = parts(step=2)
    for saved in (content, content[1]):
        file = write(tmp_path / "a.pth", saved)
        model = hub("resnet8", pretrained=str(file), channels=1, classes=4)
        assert not model.training
        assert checkpoint.digest(model.state_dict()) == checkpoint.digest(dict(content[1]))


@pytest.mark.parametrize("pretrained", [True, "https://example.org/resnet8.pth"])
def test_no_weights_are_hosted(pretrained):
    with pytest.raises(ValueError, match="no weights are hosted for resnet8: pretrained must be the path of a file"):
        hub("resnet8", pretrained=pretrained)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown model 'resnet19'"):
        hub("model", "resnet19")
    with pytest.raises(ValueError, match="unknown norms; the form of a model has norm, stem"):
        hub("resnet8", norms="batch")


def test_runs_and_exports_are_loaded(tmp_path):
    directory = run(tmp_path / "run", small_recipe(npz(tmp_path / "tiny.npz"), "fb", model="resnet8", steps=1))
    model = hub("from_run", str(directory.path))
    assert checkpoint.digest(model.state_dict()) == checkpoint.digest(directory.state())
    save_pretrained(model, tmp_path / "model", Description("resnet8", 1, 4))
    loaded = hub("from_pretrained", str(tmp_path / "model"))
    assert checkpoint.digest(loaded.state_dict()) == checkpoint.digest(directory.state())
    assert noiseless.from_pretrained(tmp_path / "model").training is False
