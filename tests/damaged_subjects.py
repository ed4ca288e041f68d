"""What `damaged.py` damages: the directories of runs, exports, data sets and settings, and what reads each of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archives
import numpy as np
import published_files
from small_runs import arrays, call, npz, read_config, small_recipe, write_config

from noiseless import from_pretrained, models
from noiseless.ask.state import StateAddress, load_state
from noiseless.exchange import pretrained
from noiseless.files import answers, untrusted
from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.files.parameters import load_parameters
from noiseless.files.reading import Followed
from noiseless.objective.workers import Alone
from noiseless.recipes.config import Config, Settings
from noiseless.run import trackers
from noiseless.run.build import build
from noiseless.run.train import Interrupted, train


@dataclass(frozen=True)
class Subject:
    """A directory that is copied, one of whose files is damaged, and what reads it then."""

    name: str
    """of the pristine directory, in `subjects`"""
    files: dict[str, str]
    """pattern of files -> their form in `damages.FORMS`, and after a blank the kind of their seal in `FORGERIES`"""
    commands: tuple[str, ...]
    """command lines, where RUN is the damaged copy, PLACE the directory of all, and NEW a path where nothing is"""
    calls: tuple[Callable[[Path], Any], ...] = ()
    """functions of the library that get the path of the damaged copy"""


QUESTIONS = (
    "sharpness RUN --largest 1", "weights RUN", "noise RUN", "flatness RUN --most 4 --tolerance 0",
    "landscape RUN --points 2",
)  # fmt: skip
READING = ("resume RUN", "evaluate RUN", "digest RUN", "watch RUN --once", "report RUN")
RUN_FILES = {
    "config.json": "json json", "environment.json": "json", "metrics.jsonl": "lines",
    "checkpoints/*.json": "json json", "checkpoints/*.safetensors": "safetensors checkpoint",
}  # fmt: skip
STATE = (
    lambda run: load_state(StateAddress.read(str(run))), lambda run: Followed(run).look(),
    lambda run: RunDirectory.open(run).lacking(),
)  # fmt: skip
SUBJECTS = (
    Subject("ended", RUN_FILES | {
        "model.safetensors": "safetensors parameters", "average.safetensors": "safetensors parameters",
        "predictions.npz": "npz", "analysis/*.json": "json json", "analysis/*.jsonl": "lines", "wandb.json": "json",
        "report.html": "other", "lock": "other",
    }, (*READING, *QUESTIONS, "compare RUN --against PLACE/subjects/other", "export RUN NEW",
        "train fb --model resnet2 --data DATA --init RUN/model.safetensors --steps 1 --block 24 --run-dir NEW"), (
        *STATE, pretrained.from_run, lambda run: answers.read(RunDirectory.open(run)),
        lambda run: trackers._run_id(run / "wandb.json", "project", "new"),
    )),
    Subject("stopped", RUN_FILES | {"snapshots/*": "other snapshot", "lock": "other"},
            (*READING, "resume RUN", "resume RUN", "weights RUN", "noise RUN@1"), STATE),
    Subject("within", RUN_FILES | {"within/*.json": "json json", "within/*.safetensors": "safetensors checkpoint"},
            (*READING, "resume RUN", "resume RUN", "resume RUN", "resume RUN"), STATE),
    Subject("exported", {"config.json": "json", "model.safetensors": "safetensors parameters", "README.md": "other"},
            ("export RUN NEW", "evaluate RUN", "resume RUN", "import RUN/model.safetensors fb --run-dir NEW"),
            (from_pretrained, from_pretrained, pretrained.describe)),
    Subject("sets", {
        "tiny.npz": "npz", "cifar-10-batches-py/*": "pickle", "packed/*.safetensors": "safetensors",
        "images/train/*/*": "other",
    }, ("train fb --model linear --data npz:RUN/tiny.npz --steps 1 --block 24 --run-dir NEW",
        "data info npz:RUN/tiny.npz", "data info cifar10 --data-dir RUN", "data list --data-dir RUN",
        "data info folder:PLACE/case/sets/images --pixels 8 --data-dir RUN",
        "data info folder:PLACE/case/sets/images --pixels 8 --data-dir RUN --verify",
        "data info folder:RUN/images --pixels 8 --data-dir NEW",
        "train fb --model linear --data folder:RUN/images --pixels 8 --data-dir RUN --steps 1 --block 6 --run-dir NEW",
    )),
    Subject("published", {"*.pth": "zip", "*.pt": "pickle"}, (
        "import FILE fb --data DATA --model resnet8 --form small --run-dir NEW --steps 5",
        "train fb --model resnet8 --data DATA --init FILE --steps 1 --block 24 --run-dir NEW",
    ), tuple(
        lambda place, f=function: [f(path) for path in sorted(place.iterdir())]
        for function in (untrusted.read, lambda path: load_parameters(models.build("resnet8", 1, 4), path))
    )),
    Subject("settings", {"noiseless/trusted.toml": "toml"},
            ("trust", "trust a.b:c", "trust my.models --remove", "evaluate PLACE/subjects/foreign", "models resnet8")),
    Subject("race", {"choices.json": "json"}, tuple(
        f"race --data DATA --model linear --contenders {names} --budgets {budgets} --seeds 1 --rates 1 --plan-only"
        f" --choices RUN/choices.json --run-dir NEW"
        for names, budgets in (("sgd", "2"), ("sgd,adamw", "2"), ("sgd", "2,3"))
    )),
)  # fmt: skip


def stopped(path: Path, recipe: Any, steps: int) -> None:
    """A run that was stopped after that many steps and one chunk; it looks for a stop after steps and before chunks."""
    polls = itertools.count()
    stop = Alone(lambda: len(RunDirectory(path).rows()) == steps and next(polls) >= 2)
    often = {"snapshot_seconds": 0, "checkpoint_seconds": 0, "sharpness_every": 1, "layers_every": 2, "noise_every": 2}
    settings = Settings(threads=1, chunk=1, keep=9, run_dir=str(path), **often)
    experiment = build(Config(recipe, settings), stop, path)
    directory = RunDirectory(path)
    record = environment(experiment.config, experiment.data_sha256, ["test"])
    with directory.created(experiment.config, record), contextlib.suppress(Interrupted):
        train(experiment, directory)


def make(place: Path) -> str:
    """Makes all subjects in a directory; returns the value of --data."""
    subjects, tiny = place / "subjects", {name: part[:24] for name, part in arrays().items()}
    data = npz(place / "tiny.npz", **tiny)
    subjects.mkdir()
    flags = ("--data", data, "--block", 12, "--steps", 2, "--threads", 1, "--ema", 0.5, "--keep-every", 1)
    for name, model in (("ended", "resnet2"), ("other", "linear")):
        answer = call("train", "fb", *flags, "--model", model, "--run-dir", subjects / name)
        assert answer.code == 0, answer
    ended = subjects / "ended"
    for line in QUESTIONS:
        assert call(*line.replace("RUN", str(ended)).split()).code == 0
    (ended / "wandb.json").write_text(json.dumps({"project": "project", "name": "abcd"}))
    assert call("export", ended, subjects / "exported").code == 0
    recipe = small_recipe(data, "fb", model="linear", steps=4, block=8, ema=0.5)
    stopped(subjects / "stopped", recipe, 2)
    stopped(subjects / "within", small_recipe(data, "sgd", model="linear", steps=2, block=8), 1)
    assert list((subjects / "stopped" / "snapshots").iterdir())
    assert list((subjects / "within" / "within").iterdir())
    sets = subjects / "sets"
    archives.folder(sets / "cifar-10-batches-py", archives.cifar10().python)
    archives.class_folders(sets / "images")
    np.savez(sets / "tiny.npz", **tiny)
    case = place / "case" / "sets"  # a packed set names the path of its images
    shutil.copytree(sets, case)
    assert call("data", "pack", f"folder:{case / 'images'}", "--pixels", 8, "--data-dir", sets).code == 0
    published = subjects / "published"
    published.mkdir()
    published_files.write(published / "new.pth", published_files.parts())
    published_files.write(published / "old.pt", published_files.parts(), legacy=True)
    (subjects / "settings" / "noiseless").mkdir(parents=True)
    (subjects / "settings" / "noiseless" / "trusted.toml").write_text('trusted = [\n    "my.models",\n    "x:y",\n]\n')
    shutil.copytree(ended, subjects / "foreign")
    config = read_config(ended)
    config["recipe"]["model"]["name"] = "hostile_code:make"
    write_config(subjects / "foreign", config)
    (subjects / "race").mkdir()
    setting = {"lr": 0.1, "weight_decay": 0.0, "block": 8, "norm_block": None}
    chosen = [
        {"contender": name, "passes": 2, "chosen": "lr 0.1", "setting": setting, "at_edge": {"lr": "smallest"},
         "trials": [{"setting": "lr 0.1", "validation_accuracy": 0.5, "validation_loss": 1.0, "runs": 2}]}
        for name in ("sgd", "adamw")
    ]  # fmt: skip
    (subjects / "race" / "choices.json").write_text(json.dumps(chosen))
    (place / "code").mkdir()
    (place / "code" / "hostile_code.py").write_text("def make(*arguments, **options):\n    raise SystemExit('ran')\n")
    return data
