"""Files of `--config`: what is read from them, and what is refused. `noiseless train --config` on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import call, read_config, refused

from noiseless.commands.arguments import parse_config
from noiseless.files import configfile, environment

YAML = """
# half of fb-clipped's rate
recipe:
  optimizer: {lr: 2e-1, name: adamw}
  schedule:
    steps: 30
  transforms:
    clip: null
  model: {name: linear, zero_init: true}
settings:
  compile: off
  keep_every: 10
  run_dir: elsewhere
  wandb: somebody/project
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_yaml_sets_flags_with_their_types(tmp_path):
    assert configfile.read(written(tmp_path / "c.yaml", YAML)) == {
        "lr": 0.2, "optimizer": "adamw", "steps": 30, "clip": None, "model": "linear", "zero_init": True,
        "compile": "off", "keep_every": 10,
    }  # fmt: skip


def test_json_is_read_as_config_json_is(tmp_path):
    text = json.dumps({"recipe": {"seed": 3, "data": {"mean": [0.5], "name": "digits"}}, "sha256": "of another text"})
    assert configfile.read(written(tmp_path / "c.json", text)) == {"seed": 3, "mean": (0.5,), "data": "digits"}


def test_flags_go_before_the_file_and_the_file_before_the_recipe(tmp_path):
    path = written(tmp_path / "c.yaml", YAML)
    config = parse_config(["fb-clipped", "--config", str(path), "--lr", "0.3"], "train", "", data="digits").config
    recipe, settings = config.recipe, config.settings
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.transforms.clip) == ("AdamW", 0.3, None)
    # steps scale the recipe's warm-up of 13 and horizon of 133 steps, of 100
    assert (recipe.schedule.steps, recipe.schedule.warmup, recipe.schedule.horizon) == (30, 4, 40)
    assert (settings.compile, settings.run_dir, settings.wandb) == ("off", None, None)
    config = parse_config(["fb-clipped", "--config", str(path), "--steps=60"], "train", "", data="digits").config
    assert (config.recipe.schedule.warmup, config.recipe.schedule.horizon) == (8, 80)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: {optimizer: {lrate: 1}}", "recipe.optimizer has 'lrate', which is not known"),
        ("recipe: {optimiser: {lr: 1}}", "recipe has 'optimiser', which is not known; did you mean optimizer?"),
        ("recipe: {optimizer: {lr: fast}}", "recipe.optimizer.lr must be a number, not 'fast'"),
        ("recipe: {schedule: {steps: 2.5}}", "recipe.schedule.steps must be a whole number, not 2.5"),
        ("recipe: {schedule: {steps: '30'}}", "recipe.schedule.steps must be a whole number, not '30'"),
        ("settings: {compile: maybe}", "settings.compile must be one of auto, on, off, not 'maybe'"),
        ("lr: 1", "it has 'lr', which belongs elsewhere: recipe: optimizer: lr"),
        ("schedule: {steps: 3}", "it has 'schedule', which belongs elsewhere: recipe: schedule"),
        ("recipe: {steps: 3}", "recipe has 'steps', which belongs elsewhere: recipe: schedule: steps"),
        ("recipe: {data: {data: digits}}", "recipe.data has 'data', which belongs elsewhere: recipe: data: name"),
        ("settings: {lr: 1}", "settings has 'lr', which belongs elsewhere: recipe: optimizer: lr"),
        ("recipes: {seed: 3}", "it has 'recipes', which is not known; did you mean recipe?"),
        ("- 1", "it must be values by name"),
        ("a: [1", "it is not YAML"),
        ("a: &x [1]\nb: *x", "alias"),
        ("recipe: {seed: 1, seed: 2}", "the key 'seed' twice"),
        ("recipe: {seed: .inf}", "not a finite number"),
        ("recipe: {seed: 1e999}", "not a finite number"),
        (f"recipe: {{seed: {'9' * 50}}}", "of 50 digits"),
        ("a: !!python/object/apply:os.system ['true']", "it is not YAML"),
        ("[" * 3000, "it is not"),
        ("{[1]: 2}", "it is not"),
        ("\x00", "it is not"),
        ('{"recipe": {"seed": 1}', "it is not JSON"),
    ],
)
def test_other_content_is_refused_in_one_sentence(tmp_path, text, message):
    path = written(tmp_path / "c.yaml", text)
    with pytest.raises(ValueError, match="--config") as caught:
        configfile.read(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_a_directory_and_a_large_file_are_refused(tmp_path):
    for path, words in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError, match=words):
            configfile.read(path)
    with pytest.raises(ValueError, match="2,000,000 bytes, more than"):
        configfile.read(written(tmp_path / "large.yaml", " " * 2_000_000))


def test_a_run_is_repeated_from_its_config_and_has_its_tags(data, tmp_path):
    flags = ("--threads", 1, "--tag", "first", "--tag", "small blocks")
    file = written(
        tmp_path / "c.yaml", f"recipe: {{schedule: {{steps: 2}}, objective: {{block: 16}}, data: {{name: '{data}'}}}}"
    )
    answer = call("train", "fb", "--form", "small", "--config", file, *flags, "--run-dir", tmp_path / "a")
    assert answer.code == 0, answer.err
    assert environment.read(tmp_path / "a")["tags"] == ["first", "small blocks"]
    assert read_config(tmp_path / "a")["recipe"]["objective"]["block"] == 16
    answer = call("train", "sgd", "--config", tmp_path / "a" / "config.json", "--run-dir", tmp_path / "b")
    assert answer.code == 0, answer.err
    assert read_config(tmp_path / "b")["recipe"] == read_config(tmp_path / "a")["recipe"]
    answer = call("diff", tmp_path / "a", tmp_path / "b")
    assert answer.code == 0, answer.out
    listed = json.loads(call("runs", tmp_path, "--json").out)
    assert [row["tags"] for row in listed] == [["first", "small blocks"], []]
    refused("train", "fb", "--tag", "a\nb", names=("--tag", "one line"))


def test_code_that_a_file_names_is_not_run(data, tmp_path):
    file = written(tmp_path / "c.yaml", f"recipe: {{model: {{name: 'own_models:net'}}, data: {{name: '{data}'}}}}")
    refused("train", "fb", "--steps", 1, "--config", file, "--run-dir", tmp_path / "run",
            names=("own_models:net is code", "--trust own_models:net"))  # fmt: skip
