"""The command `diff`: in which settings two runs differ, and where their records and parameters part."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro
from rich.table import Table

from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.errors import shown
from noiseless.exits import DIFFERENT
from noiseless.files import reading
from noiseless.files.address import StateAddress
from noiseless.recipes.flags import differing

PLACES = ("run_dir", "data_dir", "tensorboard", "wandb")
"""settings that are not listed: where a run is, and who is told"""
COLUMNS = 6
"""largest number of columns of the record that are printed"""


@dataclass(frozen=True)
class Diff:
    """Compare two runs bit by bit: their settings, their records, and their parameters where both have a checkpoint.

    The exit code is 5 where recipe, record or parameters differ, else 0. Settings that should not change results, such
    as --chunk, and the name of the recipe are listed and do not count. RUN@STEP compares the parameters of that step
    only.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN[@STEP] RUN[@STEP]")]
    """directories of two runs"""
    json: bool = False
    """print one JSON object instead"""


def diff(arguments: list[str]) -> int:
    """Compares two runs."""
    args = parse(Diff, arguments, "diff")
    if len(args.runs) != 2:
        raise ValueError(f"give two runs, not {len(args.runs)}: noiseless diff RUN RUN")
    first, second = map(StateAddress.read, args.runs)
    if first.step != second.step:
        raise ValueError(f"{first} and {second} are states of different steps: give both the same step, or none")
    from noiseless.files.parting import compare_records, compare_states

    configs = [reading.config(address.directory.path) for address in (first, second)]
    recipe = {flag: list(pair) for flag, pair in differing(configs[0].recipe, configs[1].recipe).items()}
    settings = [asdict(config.settings) for config in configs]
    other = {
        name: [value, settings[1][name]]
        for name, value in settings[0].items()
        if name not in PLACES and value != settings[1][name]
    }
    rows = compare_records(first.directory, second.directory)
    states = compare_states(first.directory, second.directory, first.step)
    differ = bool(recipe.keys() - {"name"}) or rows.first is not None or states.first is not None
    if args.json:
        values = {"recipe": recipe, "settings": other, "record": asdict(rows), "parameters": asdict(states)}
        print(json.dumps({"differ": differ, **values}))  # noqa: T201
        return DIFFERENT if differ else 0
    names = [str(address) for address in (first, second)]
    if recipe or other:
        console.print("settings that differ:")
        console.print(_settings(recipe, other, names), soft_wrap=False)
    else:
        console.print("settings: equal")
    if rows.first is None:
        console.print(f"records: equal in the {rows.common} steps that both have")
    else:
        console.print(f"records: they part at step {rows.first.step}")
        console.print(_columns(rows.first.columns, names), soft_wrap=False)
    listed = ", ".join(map(str, states.steps))
    if not states.steps:
        console.print("parameters: no step of which both have a checkpoint; train with --keep-every N")
    elif states.first is None:
        console.print(f"parameters: equal after {listed} steps")
    else:
        before = ", ".join(map(str, states.steps[:-1]))
        count = states.first.others
        more = f", and in {count} more tensor{'s' * (count > 1)}" if count else ""
        console.print(
            f"parameters: {f'equal after {before} steps; ' if before else ''}after {states.first.step} steps they"
            f" differ in {states.first.name} ({states.first.problem}){more}"
        )
    return DIFFERENT if differ else 0


def _settings(recipe: dict[str, list[Any]], other: dict[str, list[Any]], names: list[str]) -> Table:
    """Table of the settings in which two runs differ."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("flag", *names):
        table.add_column(heading, overflow="fold")
    for flag, pair in (recipe | other).items():
        table.add_row(f"--{flag.replace('_', '-')}", *(shown(value) for value in pair))
    return table


def _columns(columns: dict[str, tuple[Any, Any]], names: list[str]) -> Table:
    """Table of the columns of the record in which two rows differ."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("column", *names):
        table.add_column(heading, overflow="fold")
    for name, pair in list(columns.items())[:COLUMNS]:
        table.add_row(name, *(shown(value) for value in pair))
    if len(columns) > COLUMNS:
        table.add_row(f"{len(columns) - COLUMNS} more", "", "")
    return table
