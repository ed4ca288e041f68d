"""No command and no entry point imports, starts, connects to or opens anything because a run says so."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import audited
import pytest
import small_runs

CODE = """
import os, pathlib, socket
os.system("true")
pathlib.Path({outside!r}, "WRITTEN").write_text("")
def make(channels=1, classes=4, **options):
    from noiseless import models
    return models.build("resnet8", channels, classes)
def sets():
    return None
"""
CONTROL = """
import sys
sys.path.insert(0, {run!r})
import hostile_code
"""
"""a program of workers that does what no hostile run may bring about"""
HUB = {"name": "torch.hub:load", "options": "repo_or_dir='{run}',model='make',source='local'"}


def _attacks(outside, elsewhere):
    """Attack -> (part of the config -> values), and links of the run's directory."""
    pipe, key = f"{outside}/pipe", f"{outside}/key"
    yield "model-here", {"model": {"name": "hostile_code:make"}}, {}
    yield "model", {"model": {"name": "hostile_code:make"}}, {}
    yield "hub", {"model": HUB}, {}
    yield "system", {"model": {"name": "os:system", "options": "command='true'"}}, {}
    yield "timm", {"model": {"name": "timm:hf-hub:a/b"}}, {}
    yield "timm-file", {"model": {"name": "timm:test_resnet", "options": f"checkpoint_path='{key}'"}}, {}
    yield "timm-word", {"model": {"name": "timm:test_resnet", "options": f"act_layer='{key}'"}}, {}
    yield "torchvision", {"model": {"name": "torchvision:resnet18", "options": "weights='DEFAULT'"}}, {}
    yield "data", {"data": {"name": "hostile_code:sets"}}, {}
    yield "loss-here", {"objective": {"loss": "hostile_code:make"}}, {}
    yield "loss", {"objective": {"loss": "os:system"}}, {}
    yield "optimizer", {"optimizer": {"name": "hostile_code:make"}}, {}
    yield "optimizer-system", {"optimizer": {"name": "os:system"}}, {}
    yield "policy", {"data": {"policy": "hostile_code:make"}}, {}
    yield "policy-system", {"data": {"policy": "os:system"}}, {}
    yield "transform", {"transforms": {"transform": ("os:system", "hostile_code:make")}}, {}
    yield "transform-here", {"transforms": {"transform": ("hostile_code:make",)}}, {}
    yield "data-pipe", {"data": {"name": f"npz:{pipe}"}}, {}
    yield "download", {"data": {"name": "cifar10"}, "settings": {"data_dir": str(elsewhere)}}, {}
    yield "wandb", {"model": {"name": "hostile_code:make"}, "settings": {"wandb": "a/b"}}, {}
    for name in ("lock", "metrics.jsonl", "checkpoints", "analysis", "snapshots", "report.html"):
        yield f"link-{name}", {}, {name: key}


QUICK = ("model-here", "hub", "data-pipe", "link-lock")
"""attacks that `make test` walks; the soak walks all, with the other names of code and the other links"""


@pytest.fixture(scope="module", params=["quick", pytest.param("all", marks=pytest.mark.soak)])
def walked(data, tmp_path_factory, request):
    """What a walk over the attacks has found."""
    place = tmp_path_factory.mktemp("hostile")
    for name in ("runs", "exports", "outside", "elsewhere", "home", "work", "site"):
        (place / name).mkdir()
    outside = place / "outside"
    (outside / "key").write_text("secret")
    os.mkfifo(outside / "pipe")
    begun = small_runs.run(place / "work" / "begun", small_runs.small_recipe(data), stop_after=1)
    assert small_runs.call("export", begun.path, place / "work" / "begun-exported").code == 0
    attacks = list(_attacks(outside, place / "elsewhere"))
    for name, changes, links in attacks:
        if request.param == "quick" and name not in QUICK:
            continue
        run = small_runs.copy(begun, place / "runs" / name).path
        config = small_runs.read_config(run)
        for part, values in changes.items():
            values = {
                key: list(value) if isinstance(value, tuple) else str(value).format(run=run)
                for key, value in values.items()
            }
            (config["settings"] if part == "settings" else config["recipe"][part]).update(values)
        small_runs.write_config(run, config)
        for link, target in links.items():
            if (run / link).is_dir():
                (run / link).rename(run / f"old-{link}")
            (run / link).unlink(missing_ok=True)
            (run / link).symlink_to(target)
        for module in ("hostile_code", "hubconf", "noiseless_extra"):
            (run / f"{module}.py").write_text(CODE.format(outside=str(outside)))
        (run / "model.pt").write_bytes(pickle.dumps(os.system))
        (run / "choices.json").write_text(json.dumps([{"recipe": config["recipe"]}]))
        exported = place / "exports" / name
        exported.mkdir()
        for file in (place / "work" / "begun-exported").iterdir():
            (exported / file.name).write_bytes(file.read_bytes())
        described = json.loads((exported / "config.json").read_text()) | {"model": config["recipe"]["model"]["name"]}
        (exported / "config.json").write_text(json.dumps(described))
    home = {"HOME": str(place / "home"), "PYTHONDONTWRITEBYTECODE": "1", "NOISELESS_DATA": str(place / "home" / "data")}
    home |= {
        "TORCHINDUCTOR_CACHE_DIR": str(place / "home"),
        "MPLCONFIGDIR": str(place / "home"),
        "WANDB_MODE": "online",
    }
    (place / "site" / "sitecustomize.py").write_text("import audited\naudited.install_in_prepared()\n")
    (place / "site" / "audited_control.py").write_text(CONTROL.format(run=str(place / "runs" / "model-here")))
    home[audited.VARIABLE] = str(place)
    paths = (place / "site", Path(small_runs.cli.__file__).parents[1], Path(__file__).parent)
    home["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile_walk.py")), str(place), request.param],
        env=os.environ | home, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout), place


def test_nothing_is_imported_started_connected_or_opened_outside(walked):
    found, place = walked
    assert found["events"] == []
    assert found["outside"] == ["key", "pipe"]
    assert (place / "outside" / "key").read_text() == "secret"
    assert list((place / "elsewhere").iterdir()) == []


def test_the_walk_would_have_seen_it(walked):
    found = " ".join(walked[0]["control"])
    for event in ("import hostile_code", "exec ", "os.system", "WRITTEN"):
        assert event in found


def test_the_walk_would_have_seen_it_in_a_worker(walked):
    found = walked[0]["workers_control"]
    for rank in (0, 1):
        mine = " ".join(line for line in found if line.startswith(f"worker {rank} "))
        for event in ("import hostile_code", "exec ", "os.system", "WRITTEN"):
            assert event in mine


def test_every_command_was_tried_and_ended_in_a_sentence(walked):
    found, _ = walked
    tried = {name.split(": ", 1)[1].split()[0] for name in found["outcomes"]}
    without = {"recipes", "models", "bench", "trust", "plan"}  # they read no run and write none
    assert set(found["commands"]) - tried <= without
    assert not [name for name, (_, err) in found["outcomes"].items() if "Traceback" in err]


@pytest.mark.parametrize(
    "command", ["evaluate", "resume", "verify", "sharpness", "noise", "weights", "export", "rebuild"]
)
def test_every_attack_is_refused_where_the_model_is_built(walked, command):
    outcomes = {name: outcome for name, (outcome, _) in walked[0]["outcomes"].items() if f": {command} " in f"{name} "}
    assert len(outcomes) >= len(QUICK)
    assert {name: outcome for name, outcome in outcomes.items() if outcome in (0, "done")} == {}
