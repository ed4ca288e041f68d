"""Mistaken commands, drawn from the parsers: one sentence, the exit code, no traceback and no end without end."""

import mistakes
import pytest
from programs import Copy


def _campaign(folder, count, seed):
    program = Copy(folder, count, seed, program="mistakes")
    out, _ = program.communicate()
    return out.splitlines(), program.returncode


def test_the_flags_of_every_command_are_drawn():
    flags = mistakes.flags()
    assert flags.keys() == mistakes.cli.COMMANDS.keys()
    names = {name: {flag.name for flag in known if flag.takes} for name, known in flags.items()}
    assert {"--steps", "--penalty-eps", "--snapshot-seconds", "--init"} < names["train"] & names["bench"]
    assert {"--points", "--range", "--seed", "--name"} < names["landscape"]
    assert {"--budgets", "--contenders", "--jobs"} < names["race"]


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ((2, "", "error: x\n"), None),
        ((0, "done\n", ""), None),
        ((2, "", "╭─ box ─╮\n"), "no message"),
        ((2, "", "error: x\nerror: y\n"), "more than one message"),
        ((1, "", ""), "exit code 1"),
        ((-11, "", ""), "exit code -11"),
        ((2, "", "Traceback (most recent call last):\nerror: x"), "traceback"),
    ],
)
def test_what_is_wrong_with_an_end_is_seen(answer, wrong):
    assert mistakes.problem(*answer) == wrong


def test_a_few_mistaken_commands_are_refused_as_they_should_be(tmp_path):
    lines, code = _campaign(tmp_path, 12, 1)
    assert lines[-1] == "12 passed, 0 failed", lines
    assert code == 0


@pytest.mark.soak
def test_five_hundred_mistaken_commands_are_refused_as_they_should_be(tmp_path):
    lines, code = _campaign(tmp_path, 500, 27)
    print("\n".join(lines))
    assert lines[-1] == "500 passed, 0 failed"
    assert code == 0
