"""Runs every command and entry point over hostile runs, and records what Python's audit events show. A program.

Its argument is a directory with one run for each attack in `runs/`, an export of each in `exports/`, and files in
`outside/` that nothing may open and in `elsewhere/` that nothing may write. It prints what happened as JSON. With
`quick` behind it, the walk leaves out `bench`, which starts two processes and reads of a run what `train` reads.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import sys
from pathlib import Path

import audited

PLACE = Path(sys.argv[1]).resolve()
SHORT = {
    "reproduce": ["--rows", "fb", "--model", "linear", "--seeds", "1", "--plan-only"],
    "bench": ["--rounds", "1", "--model", "linear", "--images", "64", "--compile", "off"],
    "plan": ["--steps", "2", "--model", "linear", "--compile", "off"],
    "race": [
        "--contenders", "sgd", "--model", "linear", "--budgets", "2", "--rates", "1", "--seeds", "1", "--plan-only",
    ],
    "dial": ["--model", "linear", "--steps", "8", "--seeds", "1", "--plan-only"],
}  # fmt: skip
"""flags with which a command is fast"""
events: list[str] = []
doing = "start"


def _note(event, what):
    events.append(f"{doing}: {event} {what}")


def words(usage, run, exported):
    """Arguments for a command, from its usage; None for a command that names no run, file or directory."""
    given, named = [], False
    if usage.startswith("predict"):  # also with an image that is none
        return [[str(run), str(run / name)] for name in ("model.pt", "config.json")]
    with_run = usage.split(", ")[0]  # the other form of verify names none
    for word in re.sub(r"\[(?!@STEP|DIR)[^]]*\]", "", with_run).split()[1:]:
        if word.startswith("RUN"):
            given.append(str(run))
            named = True
        elif word == "DIRECTORY":
            given.append(str(PLACE / "work" / "exported"))
        elif word == "[DIR]":
            given.append(str(run.parent))
            named = True
        elif word == "FILE":
            given.append(str(run / "model.pt"))
            named = True
        elif word.startswith("--"):
            given.append(word)
        elif word == "FLAG=VALUE":
            given.append("lr=0.01")
        elif "|" in word:  # actions
            return [
                [action, f"{kind}:{run}/set"]
                for action in word.split("|")
                for kind in ("npz", "folder", "hostile_code")
            ]
        else:
            raise SystemExit(f"no argument is known for {word} of {usage!r}: say here how a hostile run can come to it")
    return [given] if named else None


def commands(run, exported):
    """All command lines that are tried for a run."""
    from noiseless import cli

    for name, command in cli.COMMANDS.items():
        lines = words(command.usage, run, exported)
        if lines is None and not run.name.endswith("-here"):
            continue  # once is enough
        if name == "bench" and "quick" in sys.argv[2:]:
            continue
        if lines is None:  # not about runs: it gets one where its parser takes a directory or a file
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
                cli.run([name, "--help"])
            flags = [flag for flag in ("--run-dir", "--choices", "--init") if flag in text.getvalue()]
            extra = {"--run-dir": str(run), "--choices": str(run / "choices.json"), "--init": str(run / "model.pt")}
            lines = [[*SHORT.get(name, []), flag, extra[flag]] for flag in flags]
            lines += [["--run-dir", str(run), "--again"]] if name == "train" else []
        yield from ([name, *line] for line in lines)
    yield ["weights", str(run), "--workers", "2"]


def entry_points(run, exported):
    """Functions of the library that read a run or an export: name -> call."""
    from noiseless import from_pretrained
    from noiseless.ask.state import StateAddress, load_state
    from noiseless.exchange import pretrained
    from noiseless.files.directory import RunDirectory
    from noiseless.files.reading import Followed
    from noiseless.files.untrusted import read
    from noiseless.objective.workers import Alone
    from noiseless.run import session
    from noiseless.run.build import rebuild

    hub = importlib.import_module("hubconf")
    calls = {
        "load_state": lambda: load_state(StateAddress.read(str(run))),
        "rebuild": lambda: rebuild(RunDirectory.open(run)),
        "Followed": lambda: Followed(run).look(), "untrusted.read": lambda: read(run / "model.pt"),
        "session": lambda: session.existing(run, Alone()).__enter__(),
        "from_pretrained": lambda: from_pretrained(exported),
        "hub.model": lambda: hub.model("resnet8", str(run / "model.pt")),
    }  # fmt: skip
    for module in (pretrained, hub):
        for name in dir(module):
            if name.startswith(("from_", "describe")) and callable(getattr(module, name)) and name != "description_of":
                function = getattr(module, name)
                calls[f"{module.__name__}.{name}"] = lambda f=function, n=name: f(
                    str(run if n == "from_run" else exported)
                )
    return calls


def main():
    global doing
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import hubconf  # noqa: F401
    import torch.distributed.elastic.multiprocessing  # noqa: F401  imported before anything counts

    from noiseless import cli
    from noiseless.run import team

    (
        importlib.import_module("timm"),
        importlib.import_module("matplotlib.pyplot"),
        importlib.import_module("torch._dynamo"),
    )
    os.chdir(PLACE / "work")
    audited.install(PLACE, _note)
    outcomes = {}
    for run in sorted((PLACE / "runs").iterdir()):
        exported = PLACE / "exports" / run.name
        os.chdir(run if run.name.endswith("-here") else PLACE / "work")
        calls = {
            " ".join(line).replace(str(PLACE), ""): lambda line=line: cli.run(line) for line in commands(run, exported)
        }
        for name, call in (calls | entry_points(run, exported)).items():
            doing = f"{run.name}: {name}"
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
                try:
                    outcome = call()
                except SystemExit as stop:
                    outcome = stop.code
                except ValueError as error:
                    outcome = str(error)
            outcomes[doing] = [outcome if isinstance(outcome, (int, str)) else "done", err.getvalue()]
    os.chdir(PLACE / "work")
    by_workers = (PLACE / audited.EVENTS).read_text().splitlines()
    found, doing = [*events, *by_workers], "control"
    outside = sorted(path.name for path in (PLACE / "outside").iterdir())  # before the controls write there
    team.launch(2, [], program="audited_control")
    workers_control = (PLACE / audited.EVENTS).read_text().splitlines()[len(by_workers) :]
    events.clear()
    os.chdir(PLACE / "runs" / "model-here")
    sys.path.insert(0, ".")
    import hostile_code  # noqa: F401

    print(
        json.dumps(
            {
                "events": found,
                "outside": outside,
                "control": events,
                "workers_control": workers_control,
                "outcomes": outcomes,
                "commands": list(cli.COMMANDS),
            }
        )
    )


if __name__ == "__main__":  # not in workers, which import it under another name
    main()
