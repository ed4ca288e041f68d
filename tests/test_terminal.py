"""Texts of other people's runs control no terminal and mark up no page."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text
from small_runs import call, read_config, refused, write_config

import noiseless
from noiseless.printable import markdown, printable
from noiseless.screen import Screen

SOURCE = Path(noiseless.__file__).parent
EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\r\x08"
SAFE = set("\t\n")


def _controls(text):
    return [
        c for c in text if (ord(c) < 32 and c not in SAFE) or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2028\u200f"
    ]


@given(st.text(st.characters()))
def test_printable_has_no_control_characters_and_changes_no_other_text(text):
    assert not _controls(printable(text))
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text
    printable(text).encode()  # lone surrogates cannot be encoded


@pytest.mark.parametrize(
    "shown",
    [EVIL, Text(EVIL), [EVIL], "table", f"[link=http://a]{EVIL}[/link]"],
    ids=["str", "Text", "list", "table", "link"],
)
def test_a_terminal_prints_escapes(shown):
    if shown == "table":
        shown = Table(title=EVIL)
        shown.add_column(EVIL)
        shown.add_row(EVIL)
    for settings in ({}, {"force_terminal": True, "color_system": None}):
        out = io.StringIO()
        Screen(file=out, width=200, **settings).print(shown)
        assert "\\x1b" in out.getvalue()
        assert not _controls(out.getvalue())


def test_live_output_moves_the_cursor_by_its_own_codes_only():
    out = io.StringIO()
    console = Screen(file=out, width=80, force_terminal=True, color_system=None)
    with Live(Text(EVIL), console=console, auto_refresh=False) as live:
        live.update(Text(EVIL + EVIL), refresh=True)
    assert "\x1b[?25l" in out.getvalue()  # rich hides the cursor
    assert "]0;title\x07" not in out.getvalue() and "\u202e" not in out.getvalue() and "\x9b" not in out.getvalue()


def test_nothing_else_prints():
    """Each console is a `Screen`, and `print` is called with texts of the program only."""
    printing = {"cli.py": 2, "commands/console.py": 1}  # the version, an interrupt; a traceback
    printing |= {f"commands/{name}.py": 1 for name in ("diff", "evaluating", "listing", "plan", "predicting")}  # JSON
    found = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert name != "Console", path
            if name == "print":
                found[str(path.relative_to(SOURCE))] = found.get(str(path.relative_to(SOURCE)), 0) + 1
    assert found == printing


COMMANDS = [
    ("watch", "run", "--once"), ("report", "run"), ("evaluate", "run"), ("resume", "run"), ("digest", "run"),
    ("compare", "run", "--against", "run"), ("export", "run", "exported"),
    ("weights", "run"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("where", ["name", "data", "record", "environment"])
def test_a_hostile_run_controls_no_terminal(command, where, run_copy, monkeypatch):
    monkeypatch.chdir(run_copy.path.parent)
    environment = run_copy.path / "environment.json"
    values, record = read_config(run_copy.path), json.loads(environment.read_text())
    if where in ("name", "data"):
        (values["recipe"] if where == "name" else values["recipe"]["data"])["name"] = EVIL
        write_config(run_copy.path, values)
    elif where == "environment":
        record |= {"noiseless": EVIL, "device": EVIL, "command": ["noiseless", EVIL, "\n```\n<b>"]}
        environment.write_text(json.dumps(record))
    else:
        run_copy.metrics.write_text(
            json.dumps({"step": 0, EVIL: EVIL, "train_loss": 1.0}) + f'\n{{"step": "{EVIL}"}}\n'
        )
    answer = call(*command)
    assert not _controls(answer.out + answer.err), answer
    if where in ("name", "data") and command[0] not in ("digest", "resume", "compare"):  # these end before
        refused(*command, names=("must be one line without control characters, not '\\x1b]0;title",))


@pytest.mark.parametrize("text", ["a\nb", EVIL, "a\udc80b"], ids=["two lines", "codes", "bytes"])
def test_a_run_cannot_be_made_with_such_a_name(text, tmp_path):
    wanted = "--name must be text in UTF-8" if "\udc80" in text else "--name must be one line"
    refused("train", "--name", text, "--run-dir", tmp_path / "run", names=(wanted,))


def test_a_card_and_a_table_have_no_markup_of_others(run_copy, tmp_path):
    environment = run_copy.path / "environment.json"
    values, record = read_config(run_copy.path), json.loads(environment.read_text())
    values["recipe"]["name"] = "<img src=x onerror=alert(1)>|[a](http:b)`"
    write_config(run_copy.path, values)
    record |= {"device": "<script>", "command": ["```\n<script>"], "packages": {"<script>": "|\n# title"}}
    environment.write_text(json.dumps(record))
    answer = call("export", run_copy.path, tmp_path / "exported")
    assert answer.code == 0, answer.err
    _, _, body = (tmp_path / "exported" / "README.md").read_text().removeprefix("---").partition("\n---\n")
    prose, _, after = body.partition("```sh")
    code, fence, rest = after.partition("```")
    assert fence and "<script>" in code
    for part in (prose, rest):
        assert "<" not in part and "[a](" not in part and "\n# title" not in part
    assert call("report", run_copy.path).code == 0
    page = (run_copy.path / "report.html").read_text()
    assert "<img src=x" not in page and "<script>|" not in page


def test_markdown_is_one_line():
    assert markdown("a\n# b |<c>`") == "a # b &#124;&#60;c&#62;&#96;"
