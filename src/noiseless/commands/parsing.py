"""Parses the arguments of a command by the dataclass of its flags; a mistake is one sentence."""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import is_dataclass
from itertools import zip_longest
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from noiseless.errors import shown

Flags = TypeVar("Flags")
WIDE = 100_000
"""columns of the terminal for which the parser writes its message, so that it breaks no line"""
NUMBERS = {"INT": "a whole number", "FLOAT": "a number"}
SENTENCES = (
    (r"Missing value for argument '(?P<flag>[^'-][^']*)'.*", "{flag} is missing"),
    (r"Missing value for argument '(?P<flag>[^']+)'.*", "{flag} must be followed by a value, but none is given"),
    (r"Error parsing (?P<flag>\S+): .*?'(?P<value>[^']*)'.*? Argument helptext: \S+ (?P<kind>\S+)(?: .*)?",
     "{flag} must be {kind}, not {value!r}"),
    (r"invalid choice '(?P<value>.*?)' for argument '(?P<flag>[^']+)'\. Expected one of \((?P<known>.*?)\).*",
     "{flag} must be one of {known}, not {value!r}"),
    (r"Missing from .*?: (?P<flag>\S+) .*", "{flag} is missing"),
)  # fmt: skip
"""what the parser says about a mistake, on one line, and the sentence for it"""
UNKNOWN = re.compile(r"Unrecognized options: (.*?)(?: (?:Perhaps you meant|Arguments similar to) ?.*)?")
"""what it says about words that it does not know"""


def parse(
    kind: type[Flags],
    arguments: Sequence[str],
    usage: str,
    description: str | None = None,
    flat: bool = False,
    all_flags: str = "--help",
) -> Flags:
    """Parses the arguments of a command. With `--help`, prints the flags and exits.

    Args:
        kind: dataclass of the flags; its strings are their help.
        arguments: of the command.
        usage: the command with its other arguments, for help.
        description: text of the help; None: the docstring of `kind`.
        flat: whether the flags of a nested dataclass have no prefix.
        all_flags: flag whose help has all flags, for messages.

    Returns:
        The flags.

    Raises:
        ValueError: for a mistake, in one sentence.
        SystemExit: after the help.
    """
    prog = f"noiseless {usage}"
    config = (tyro.conf.OmitArgPrefixes,) if flat else ()
    _refuse_empty(kind, arguments)
    with redirect_stderr(io.StringIO()):
        try:
            return tyro.cli(kind, args=arguments, prog=prog, description=description, config=config)
        except SystemExit as end:
            if not end.code:
                raise
    with redirect_stderr(io.StringIO()) as printed, _columns(WIDE), suppress(SystemExit):
        tyro.cli(kind, args=arguments, prog=prog, description=description, config=config)
    text = _message(printed.getvalue())
    if match := UNKNOWN.fullmatch(text):
        with redirect_stdout(io.StringIO()) as shown_help, suppress(SystemExit):
            tyro.cli(kind, args=["--help"], prog=prog, description=description, config=config)
        sentence = _unknown(match[1].split(", "), re.findall(r"--([a-z][\w-]*)", _plain(shown_help.getvalue())))
    else:
        sentence = f"{_sentence(text)}; "
    help_command = f"noiseless {usage.partition('[')[0].strip()} {all_flags}"
    raise ValueError(f"{sentence}{help_command} explains each flag")


def unknown_flag(flag: str, known: Iterable[str]) -> str:
    """The beginning of a message about an unknown flag, with the one that is most like it.

    Args:
        flag: with its hyphens.
        known: names of flags, without them.

    Returns:
        The beginning, to be followed by what explains the flags.
    """
    name = flag.strip("-")
    near = difflib.get_close_matches(name, [other for other in known if other != name], n=1)  # a help may name others'
    return f"unknown flag {shown(flag)}; " + (f"did you mean --{near[0]}? " if near else "")


def given_flags(arguments: Sequence[str]) -> dict[str, str]:
    """The flags in the arguments of a command: name, with underscores -> the text of its value; empty without one."""
    given: dict[str, str] = {}
    for argument, after in zip_longest(arguments, arguments[1:], fillvalue="--"):
        if argument.startswith("--"):
            flag, equals, value = argument.removeprefix("--").partition("=")
            given[flag.replace("-", "_")] = value if equals else "" if after.startswith("--") else after
    return given


@contextmanager
def _columns(number: int) -> Iterator[None]:
    """A context in which the terminal has a number of columns for what reads the environment variable COLUMNS."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(number)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {} if before is None else {"COLUMNS": before}


def _refuse_empty(kind: type, arguments: Sequence[str]) -> None:
    """Raises where a flag of several values has none, which the parser would accept."""
    several = {f"--{name.replace('_', '-')}" for name in _several(kind)}
    for argument, after in zip_longest(arguments, arguments[1:], fillvalue="--"):
        if argument.replace("_", "-") in several and after.startswith("--"):
            raise ValueError(f"{argument} must be followed by at least one value, but none is given")


def _several(kind: type) -> Iterator[str]:
    """The names of the fields, nested ones included, that hold several values."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        type_ = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(type_):
            assert isinstance(type_, type)
            yield from _several(type_)
        elif any(get_origin(option) is tuple for option in (type_, *get_args(type_))):
            yield name


def _plain(printed: str) -> str:
    """A text of the parser without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", printed)


def _message(printed: str) -> str:
    """The parser's message, a box of several lines, on one line."""
    lines = [line.strip("│ ") for line in _plain(printed).splitlines()[1:]]
    end = next((number for number, line in enumerate(lines) if line.startswith("For full helptext")), len(lines))
    return " ".join(line for line in lines[:end] if line.strip("─-")).replace(" (required)", "")


def _unknown(unknown: list[str], known: list[str]) -> str:
    """The sentence for words that are no flag and no argument; flags come first, named without their values."""
    flags = [word.partition("=")[0] for word in unknown if re.match("--?[a-zA-Z]", word)]
    if not flags:
        return f"unknown argument {shown(unknown[0])!r}; "
    return unknown_flag(flags[0], known)


def _sentence(text: str) -> str:
    """The parser's message, on one line, as a sentence."""
    for pattern, sentence in SENTENCES:
        if match := re.fullmatch(pattern, text):
            parts: dict[str, Any] = match.groupdict()
            kind = parts.get("kind") or ""
            parts["kind"] = next((words for name, words in NUMBERS.items() if name in kind), kind)
            parts["known"] = ", ".join(re.findall(r"'(.*?)'", parts.get("known") or ""))
            if not parts.get("flag", "-").startswith("-"):
                parts["flag"] = parts["flag"].upper()  # as the usage has it
            parts["value"] = shown(parts.get("value") or "")
            return sentence.format(**parts)
    return shown(text, 300)
