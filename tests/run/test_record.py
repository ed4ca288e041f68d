"""The record of a run: rows, resolved config, environment; equal runs have equal digests."""

import json
import math
import re
from dataclasses import fields

import pytest
import torch
from small_runs import IMAGES, TESTED, arrays, prepare, record, run, small_recipe

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.plain import unsealed
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import flag_values
from noiseless.recipes.recipe import Recipe
from noiseless.run.evaluate import score

ALWAYS = {
    "step", "passes", "lr", "train_loss", "train_accuracy", "gradient_norm", "block_gradient_norm", "parameter_norm",
    "penalty", "clipped", "seconds",
}  # fmt: skip
EVALUATED = {"test_loss", "test_accuracy"}


def test_each_step_has_one_row_with_its_numbers(practice):
    rows = [json.loads(line) for line in practice.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row["passes"] for row in rows] == [2, 4, 6]
    # evaluated every 2 steps, and after the last
    assert [set(row) for row in rows] == [ALWAYS, ALWAYS | EVALUATED, ALWAYS | EVALUATED | {"final"}]
    assert rows[-1].pop("final") == {"model": checkpoint.digest(practice.state())}
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert row["seconds"] > 0
        assert row["gradient_norm"] > 0
        assert (row["train_accuracy"] * IMAGES).is_integer()


def test_the_learning_rate_is_the_schedules(practice):
    # warm-up of one step from 0 to 0.8, then the cosine with horizon 4 begins at its peak
    assert [row["lr"] for row in practice.rows()] == [0.0, 0.8, 0.8]


def test_the_first_row_is_the_sweep_at_the_initial_parameters(practice):
    experiment = prepare(practice.config().recipe)
    (objective,) = experiment.regime.objectives(0)
    evaluation, row = objective.evaluate(), practice.rows()[0]
    assert row["train_loss"] == evaluation.loss
    assert row["train_accuracy"] == evaluation.hits / IMAGES
    assert row["gradient_norm"] == pytest.approx(evaluation.gradient.double().norm().item(), rel=1e-12)
    assert row["penalty"] == evaluation.penalty == 0.0  # the warm-up begins at lr 0, which is the penalty's scale
    assert row["clipped"] == (row["gradient_norm"] > 0.25)


def test_gradient_norms_are_those_before_clipping_and_the_penalty_is_reported(practice):
    later = practice.rows()[1:]
    assert all(row["clipped"] == 1 for row in later)
    assert all(row["gradient_norm"] > 0.25 for row in later)
    assert all(row["penalty"] > 0 for row in later)


def test_the_last_row_belongs_to_the_final_parameters(practice):
    last, state = practice.rows()[-1], practice.state()
    experiment = prepare(practice.config().recipe)
    experiment.model.load_state_dict(state)
    names = experiment.space.names
    norm = math.sqrt(sum(state[name].double().square().sum().item() for name in names))
    assert last["parameter_norm"] == pytest.approx(norm, rel=1e-12)
    result = score(experiment.model, experiment.test)
    assert (last["test_loss"], last["test_accuracy"]) == (result.loss, result.accuracy)
    assert (result.accuracy * TESTED).is_integer()


def test_a_stochastic_row_is_the_mean_over_its_updates(data, tmp_path):
    row = run(tmp_path / "run", small_recipe(data, "sgd", steps=1, warmup=1, clip=1e-3)).rows()[0]
    assert row["passes"] == 1
    assert row["clipped"] == 1.0
    assert (row["train_accuracy"] * IMAGES) == pytest.approx(round(row["train_accuracy"] * IMAGES), abs=1e-9)


@pytest.mark.parametrize("name", ["fb", "fb-regularized", "sgd"])
def test_the_block_gradient_norm_is_the_root_of_the_mean_square_over_blocks_by_count(name, data, tmp_path):
    # float64, blocks of 20 on 48 images, the last of 8; at lr 0 sgd's updates all start at the initial parameters
    changes = {"dtype": "float64", "block": 20, "steps": 1, "block_clip": 0.1, "augment": "none", "shuffle": False}
    recipe = small_recipe(data, name, **changes)
    (row,) = run(tmp_path / "run", recipe).rows()
    experiment = prepare(recipe)
    model, squares = experiment.model.train(), 0.0
    images, labels = experiment.train.take(torch.arange(IMAGES))
    for part in torch.arange(IMAGES).split(20):
        loss = torch.nn.functional.cross_entropy(model(images[part]), labels[part])
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        squares += len(part) * sum(float(g.square().sum()) for g in gradient)
    assert row["block_gradient_norm"] == pytest.approx(math.sqrt(squares / IMAGES), rel=1e-10)  # float64's rounding
    assert row["block_gradient_norm"] > row["gradient_norm"]


def test_the_config_is_fully_resolved(practice):
    written = unsealed(json.loads((practice.path / "config.json").read_text()))
    assert set(written["recipe"]) == {f.name for f in fields(Recipe)}
    assert set(written["settings"]) == {f.name for f in fields(Settings)}
    settings, recipe = written["settings"], flag_values(Config.from_json(written).recipe)
    pixels = torch.tensor(arrays()["x_train"]).double() / 255
    assert recipe["mean"] == (pytest.approx(pixels.mean().item(), rel=1e-12),)
    assert recipe["std"] == (pytest.approx(pixels.std(correction=0).item(), rel=1e-12),)
    assert (recipe["norm_block"], recipe["horizon"]) == (16, 4)
    assert (settings["threads"], settings["evaluate_every"]) == (1, 2)
    assert settings["chunk"] >= 1
    assert settings["run_dir"] == str(practice.path)
    assert [k for k, v in recipe.items() if v is None] == ["pixels", "images", "init", "block_clip", "agc"]
    assert [k for k, v in settings.items() if v is None] == [
        "keep_every", "sharpness_every", "noise_every", "layers_every", "wandb",
    ]  # fmt: skip


def test_the_config_is_read_back_as_it_was_written(practice):
    config = practice.config()
    assert Config.from_json(json.loads(json.dumps(config.as_json()))) == config
    assert isinstance(config.recipe.data.mean, tuple)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["recipe"]["optimizer"].pop("lr"),
        lambda c: c["recipe"]["data"].update(flux=1),
        lambda c: c["recipe"].update(flux=1),
        lambda c: c["recipe"].pop("model"),
        lambda c: c["recipe"].update(model="resnet8"),
        lambda c: c["settings"].pop("keep_every"),
        lambda c: c["settings"].update(flux=1),
    ],
)
def test_a_config_of_another_version_is_refused_by_field(practice, change):
    values = json.loads(json.dumps(practice.config().as_json()))
    change(values)
    with pytest.raises(
        ValueError,
        match=r"another version of noiseless \((recipe|settings)[a-z.]*"
        r" (has flux|lacks (lr|name|model|keep_every))",
    ):
        Config.from_json(values)


def test_the_environment_records_what_the_bits_depend_on(practice):
    environment = json.loads((practice.path / "environment.json").read_text())
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    for key in ("noiseless", "python", "platform", "processor", "device", "threads", "data_sha256", "command"):
        assert environment[key], key
    assert environment["threads"] == 1
    assert re.fullmatch(r"[0-9a-f]{64}", environment["data_sha256"])
    assert "git_revision" in environment


def test_equal_runs_have_equal_digests_and_rows(practice, data, tmp_path):
    again = run(tmp_path / "again", small_recipe(data), evaluate_every=2)
    assert record(again) == record(practice)


def test_another_seed_has_another_digest(practice, data, tmp_path):
    other = run(tmp_path / "other", small_recipe(data, seed=1), evaluate_every=2)
    assert record(other)[0] != record(practice)[0]


def test_evaluations_and_checkpoints_change_no_bit(practice, data, tmp_path):
    plain = run(tmp_path / "plain", small_recipe(data), checkpoint_seconds=1000, evaluate_every=3)
    assert record(plain)[0] == record(practice)[0]


def test_a_digest_is_over_names_dtypes_shapes_and_bytes():
    base = {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.int64)}
    digests = {
        checkpoint.digest(tensors)
        for tensors in (
            base,
            {"a": base["a"], "c": base["b"]},
            {"a": base["a"].reshape(2, 2), "b": base["b"]},
            {"a": base["a"].double(), "b": base["b"]},
            {"a": torch.tensor([0.0, 1, 2, 3.0000002]), "b": base["b"]},
            {"a": -base["a"], "b": base["b"]},
        )
    }
    assert len(digests) == 6
    assert checkpoint.digest(dict(reversed(base.items()))) == checkpoint.digest(base)


def test_a_row_that_was_cut_off_is_left_out(practice, tmp_path):
    directory = RunDirectory(tmp_path)
    text = practice.metrics.read_text()
    directory.metrics.write_text(text[:-20])
    assert directory.rows() == practice.rows()[:2]
    directory.cut_rows(1)
    assert directory.rows() == practice.rows()[:1]
    assert directory.metrics.read_text().endswith("}\n")


def test_a_row_records_trials_and_size_of_a_line_search(data, tmp_path):
    rows = run(tmp_path / "run", small_recipe(data, "fb", warmup=0, line_search="armijo", weight_decay=0.0)).rows()
    spent = [after["passes"] - before for before, after in zip([0, *(r["passes"] for r in rows)], rows, strict=False)]
    assert [row["search_trials"] for row in rows] == [passes - 1 for passes in spent]
    assert all(0 < row["search_size"] <= 1 for row in rows)
    assert all((row["search_fallbacks"], row["search_failures"]) == (0, 0) for row in rows)
    plain = run(tmp_path / "plain", small_recipe(data, "fb")).rows()
    assert not any(key.startswith("search") for row in plain for key in row)


def test_a_step_at_learning_rate_0_makes_no_trials(data, tmp_path):
    (row,) = run(tmp_path / "run", small_recipe(data, "fb", steps=1, line_search="wolfe")).rows()
    assert (row["lr"], row["search_size"], row["search_trials"], row["passes"]) == (0, 0, 0, 1)
