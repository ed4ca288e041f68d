"""Model cards, which model hubs show: what a reader must know before using a model. After the last step of a run.

A card is Markdown after a header of YAML. Texts in the header are written as JSON strings, which are valid YAML.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from noiseless.exchange.description import Description
from noiseless.printable import markdown, printable
from noiseless.recipes.flags import differing, with_flags
from noiseless.recipes.recipe import Recipe


@dataclass(frozen=True)
class Facts:
    """The facts about a run that its model's card states."""

    recipe: Recipe
    """resolved"""
    environment: dict[str, Any]
    """content of `environment.json`"""
    step: int
    """number of steps done"""
    passes: float | None
    """passes over the data; None: not recorded"""
    training_images: int
    """number of training images"""
    test_images: int
    """number of test images"""
    test_loss: float
    """mean cross entropy of the exported parameters"""
    test_accuracy: float
    """0 ... 1, of the exported parameters, without augmentation"""


NEEDED = ("noiseless", "packages", "device", "data_sha256", "command")
"""values of a run's environment that its card names"""


def plain_card(description: Description, sha256: str) -> str:
    """The card of a model of which only the description is known.

    Args:
        description: of the model.
        sha256: of its parameters and buffers.

    Returns:
        Markdown.
    """
    return "\n".join([*_head(description, "unknown", None), *_what(description, sha256), "", *_use(description), ""])


def card(description: Description, sha256: str, facts: Facts, license_name: str) -> str:
    """The card of a run's model.

    Args:
        description: of the model.
        sha256: of its parameters and buffers.
        facts: of the run.
        license_name: identifier of the model's licence on model hubs.

    Returns:
        Markdown.
    """
    recipe, environment = facts.recipe, facts.environment
    imported = environment.get("imported")
    init = recipe.model.init and Path(recipe.model.init).name
    shown = with_flags(recipe, data=_without_directories(recipe.data.name), init=init)
    changed = [f"{flag}={value!r}" for flag, (value, _) in differing(shown, Recipe()).items()]
    steps = f"{facts.step:,} of {recipe.schedule.steps:,}" if facts.step < recipe.schedule.steps else f"{facts.step:,}"
    before = f", {imported['step']:,} of them before the import" if imported else ""
    passes = "not recorded" if facts.passes is None else f"{facts.passes:g}{' since the import' if imported else ''}"
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    versions = markdown(f"noiseless {environment['noiseless']}, {packages}, on {environment['device']}")
    data, command = markdown(shown.data.name), shlex.join(environment["command"])
    lines = [
        *_head(description, license_name, facts),
        *_what(description, sha256),
        "",
        "## How it was trained",
        "",
        "| | |",
        "| --- | --- |",
        f"| data | {data}, {facts.training_images:,} training images, SHA-256 {markdown(environment['data_sha256'])} |",
        f"| recipe{' since the import' if imported else ''} | {markdown(recipe.name)} ({recipe.objective.regime}) |",
        f"| steps | {steps}{before} |",
        f"| passes over the data | {passes} |",
        f"| seed | {recipe.seed} |",
        f"| versions | {versions} |",
    ]
    if imported:
        file, sha256 = markdown(imported["file"]), markdown(imported["sha256"])
        lines += [
            f"| begun from | the checkpoint {file} (SHA-256 {sha256}), imported at step"
            f" {imported['step']:,}; how it was trained before that is not known here |"
        ]
    lines += [
        "",
        "## Quality",
        "",
        f"Test accuracy {facts.test_accuracy:.2%}, cross entropy {facts.test_loss:.4f}, on {facts.test_images:,} test"
        f" images of {data} without augmentation: one seed (n = 1), which says nothing about the spread.",
        "",
        "## To repeat it",
        "",
        "```sh",
        printable(command.replace("\n", " ")).replace("```", ""),
        *(["noiseless resume RUN  # the directory that the import has printed"] if imported else []),
        "```",
        "",
        f"All values that are not the default: {markdown(', '.join(changed))}.",
        "",
        *_use(description),
        "",
    ]
    return "\n".join(lines)


def _without_directories(data: str) -> str:
    """A data set's name without the directories of the machine on which the run was made."""
    kind, colon, path = data.partition(":")
    return f"{kind}{colon}{Path(path).name}" if colon else data


def _head(description: Description, license_name: str, facts: Facts | None) -> list[str]:
    """The lines of the YAML header."""
    lines = [
        "---",
        f"license: {json.dumps(license_name)}",
        "library_name: noiseless",
        "pipeline_tag: image-classification",
    ]
    lines += ["tags:", "- image-classification", f"- {json.dumps(description.model)}"]
    if facts:
        # a text for readers; whether a data set on the hub has this name is not known here
        data = json.dumps(facts.recipe.data.name.partition(":")[0])
        lines += [
            f"- {json.dumps(facts.recipe.objective.regime)}",
            "metrics:",
            "- accuracy",
            "model-index:",
            f"- name: {json.dumps(f'{description.model} {facts.recipe.name}')}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {data}",
            f"      type: {data}",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {facts.test_accuracy!r}",
        ]
    return [*lines, "---", ""]


def _what(description: Description, sha256: str) -> list[str]:
    """The lines that describe the model."""
    form = ", ".join(f"{f.name} {getattr(description.form, f.name)}" for f in fields(description.form))
    options = ", ".join(f"{name}={value!r}" for name, value in description.options.items())
    model, form = markdown(description.model), markdown(f"{form}; {options}" if options else form)
    lines = [
        f"# {model}",
        "",
        f"{model} for images of {description.channels} channel{'s' * (description.channels > 1)} and"
        f" {description.classes} classes ({form}), as Noiseless builds it.",
        "",
        f"SHA-256 over parameters and buffers: `{sha256}`.",
    ]
    if description.mean is not None and description.std is not None:
        mean, std = (", ".join(f"{v:.6g}" for v in values) for values in (description.mean, description.std))
        lines += [
            "",
            f"Images: pixels / 255, minus the mean ({mean}), over the standard deviation ({std}), by channel.",
        ]
    return lines


def _use(description: Description) -> list[str]:
    """The lines that show how to load the model."""
    shape = f"[n, {description.channels}, H, W]"
    return [
        "## To use it",
        "",
        "```python",
        "from noiseless import from_pretrained",
        "from noiseless.exchange.pretrained import describe",
        "",
        "model = from_pretrained(DIRECTORY)  # this directory; the module is in evaluation mode",
        f"scores = model(describe(DIRECTORY).normalise(images))  # uint8 {shape}",
        "```",
    ]
