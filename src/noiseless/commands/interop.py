"""The commands `import`, for published checkpoints, and `export`, for the model of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from noiseless.commands.addresses import TrustingState
from noiseless.commands.arguments import parse_config, take
from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.commands.places import run_place
from noiseless.errors import command
from noiseless.recipes.flags import with_flags
from noiseless.trust import flags, permit


def import_checkpoint(arguments: list[str]) -> int:
    """Converts a published checkpoint to a run."""
    first, rest = arguments[:1], arguments[1:]
    if helps := {"-h", "--help", "--help-all"} & set(arguments):
        rest = [max(helps)]
    elif not first or first[0].startswith("-"):
        raise ValueError("the file must come first: noiseless import FILE [RECIPE] [--FLAG VALUE ...]")
    parsed = parse_config(
        rest,
        "import FILE [RECIPE] [--form {small,paper}]",
        "Convert a checkpoint of the paper's published code to a run, which can be evaluated or resumed.\n\n"
        "FILE is a list of optimizer, model, scheduler, scaler state and step. RECIPE and flags decide how the run"
        " continues. Without --model, the model is recognised by its parameters. The default form is paper, or small"
        " with --data digits or mnist-5k.",
        data="",
    )
    config, file = parsed.config, Path(first[0])
    if not file.exists():
        raise ValueError(f"there is no file {file}")
    console.print(f"reading {file}")
    from noiseless.exchange.description import form_of
    from noiseless.exchange.imported import import_run
    from noiseless.exchange.recognise import recognise
    from noiseless.files.published import read_published

    published = read_published(file)
    if take(list(arguments), "--model")[0] is None:
        try:
            name = recognise(published.model, form_of(config.recipe))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        config = replace(config, recipe=with_flags(config.recipe, model=name))
    path = Path(config.settings.run_dir or run_place(config.recipe))
    imported = import_run(published, config, path, ["noiseless", "import", *arguments])
    for note in imported.notes:
        console.print(note, style="yellow")
    recipe = imported.experiment.config.recipe
    console.print(
        f"imported {file}: {recipe.model.name} ({len(imported.experiment.space):,} parameters) at step {published.step}"
        f" of {recipe.schedule.steps}, as {recipe.name} in its {parsed.form} form, run: {path}"
    )
    next_command = command("evaluate" if imported.ended else "resume", path, *flags())
    console.print(f"{'the run has ended; its result' if imported.ended else 'continue with'}: {next_command}")
    return 0


@dataclass(frozen=True)
class Export(TrustingState):
    """Write the model of a run with a model card into a directory, for from_pretrained, torch.hub and model hubs."""

    directory: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIRECTORY")] = field(kw_only=True)
    """new or empty directory to write to"""
    license: str = "unknown"
    """licence of the model, by its name on model hubs: apache-2.0, mit, cc-by-4.0, ..."""


def export(arguments: list[str]) -> int:
    """Writes the model of a run with its card."""
    args = parse(Export, arguments, "export")
    permit(*args.trust)
    from noiseless.files.address import StateAddress

    address = StateAddress.read(args.run)
    address.refuse_missing()
    console.print(f"exporting {address}")
    from noiseless.exchange.card import NEEDED, Facts, card
    from noiseless.exchange.description import description_of
    from noiseless.exchange.pretrained import save_pretrained
    from noiseless.exchange.recognise import classes_of
    from noiseless.files import checkpoint, environment
    from noiseless.files.parameters import fill
    from noiseless.files.stored import read_state
    from noiseless.run.build import rebuild
    from noiseless.run.evaluate import score

    directory = address.directory
    experiment = rebuild(directory, snapshots=False)
    recipe, stored = experiment.config.recipe, read_state(address)
    if stored.model is not None:
        fill(experiment.model, stored.model, directory.path)
    state = stored.model or experiment.model.state_dict()
    end, rows, step = directory.end(), directory.rows(), stored.step
    passes = next((row.get("passes") for row in reversed(rows) if row["step"] == step - 1), None)
    tested = score(experiment.model, experiment.test)
    facts = Facts(
        recipe, environment.read(directory.path, NEEDED), step, passes if type(passes) in (int, float) else None,
        len(experiment.train), len(experiment.test), tested.loss, tested.accuracy,
    )  # fmt: skip
    _, _, height, width = experiment.test.images.shape
    size = (height, width)
    description = description_of(recipe, classes_of(state, lambda n: description_of(recipe, n, size).build()), size)
    text = card(description, checkpoint.digest(state), facts, args.license)
    sha256 = save_pretrained(experiment.model, args.directory, description, text)
    if end is None and address.step is None:
        console.print("the run has not ended: its newest checkpoint is exported", style="yellow")
    console.print(
        f"{args.directory}: {recipe.model.name} of {recipe.name} after {step} steps, test accuracy"
        f" {tested.accuracy:.2%} (one seed), digest {sha256}"
    )
    return 0
