"""Where a run may begin: in a new or empty directory, or where an earlier beginning was killed before its config."""

from __future__ import annotations

from pathlib import Path

from noiseless import trust
from noiseless.errors import command, shown
from noiseless.files import heads, reading
from noiseless.files.atomic import TEMPORARY
from noiseless.recipes.config import Config
from noiseless.recipes.flags import differing
from noiseless.system import is_device_name

FILES = (
    "config.json", "environment.json", "metrics.jsonl", "model.safetensors", "average.safetensors", "predictions.npz",
)  # fmt: skip
"""files of a run that only the process with its lock writes"""


def refuse_occupied(path: Path, config: Config) -> None:
    """Raises if a path holds a run or other files.

    Args:
        path: of a new run.
        config: of the new run.

    Raises:
        ValueError: saying what is there.
    """
    if is_device_name(path.name):
        raise ValueError(f"{path.name} is the name of a device on Windows: choose another --run-dir")
    if (path / reading.CONFIG).exists():
        same = reading.config(path).recipe == config.recipe
        go_on = f"go on with {command('resume', path, *trust.flags())}, or " if same else ""
        raise ValueError(
            f"{path} holds a run already, {'of the same' if same else 'made by another'} config: {go_on}choose another"
            " --run-dir"
        )
    if path.exists() and not (path.is_dir() and _hardly_begun(path)):
        raise ValueError(f"{path} is not an empty directory: choose another --run-dir")


def refuse_other(path: Path, config: Config) -> None:
    """Raises if a path holds a run whose given settings are certainly others: before torch and data are loaded.

    Settings that are derived from the data are not compared; `refuse_occupied` compares all of them.

    Args:
        path: of a new run.
        config: of the new run, as the user gave it.

    Raises:
        ValueError: naming a setting that differs.
    """
    if not (path / reading.CONFIG).exists() or config.recipe.compat == "published":
        return
    pairs = differing(reading.config(path).recipe, config.recipe)
    others = {flag: there for flag, (there, here) in pairs.items() if here and flag not in ("data", "init")}
    if others:
        flag, there = max(others.items(), key=lambda item: item[0] != "name")  # a name says little
        setting = f"--{flag.replace('_', '-')} {shown(there)}"
        raise ValueError(
            f"{path} holds a run already, made by another config, with {setting}: choose another --run-dir"
        )


def clear_unfinished(path: Path) -> None:
    """Removes what a beginning that was killed has left; the caller holds the lock, and there is no config.

    Args:
        path: of the run.
    """
    for file in (path / "model.safetensors", *(path / "checkpoints").glob("step-*")):
        file.unlink(missing_ok=True)


def _hardly_begun(path: Path) -> bool:
    """Whether a directory is empty or holds only what a beginning leaves if it is killed before the config."""
    names = {file.name for file in path.iterdir()}
    leftovers = {name for name in names if (parts := TEMPORARY.fullmatch(name)) and parts["name"] in FILES}
    if "lock" in names:
        leftovers |= {"lock", "environment.json", "checkpoints"}
        # an import writes its checkpoint, and the final parameters of a run without steps left, before the config
        leftovers |= {"model.safetensors"} if "environment.json" in names else set()
    checkpoints = [file.name for file in (path / "checkpoints").glob("*")]
    ours = all(heads.NAME.fullmatch(name) or TEMPORARY.fullmatch(name) for name in checkpoints)
    return names <= leftovers and ours and (not checkpoints or "environment.json" in names)
