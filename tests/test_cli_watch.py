"""`noiseless watch` as a program: in a pipe, in a pseudo-terminal, and with wrong input."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from small_runs import call, copy, files, npz, refused, run, small_recipe

from noiseless.files.directory import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the tiny data."""
    path = tmp_path_factory.mktemp("finished")
    return run(path / "run", small_recipe(npz(path / "tiny.npz")), evaluate_every=1)


@pytest.fixture
def stopped(finished, tmp_path):
    """The same run, stopped before its end."""
    directory = copy(finished, tmp_path / "stopped")
    directory.model.unlink()
    directory.cut_rows(2)
    return directory


class Terminal:
    """The program in a pseudo-terminal of a given size."""

    def __init__(self, *arguments, columns=100, lines=30, **environ):
        parent_end, child_end = pty.openpty()
        fcntl.ioctl(child_end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        command = [sys.executable, "-m", "noiseless", "watch", *(str(a) for a in arguments)]
        self.process = subprocess.Popen(
            command, stdin=child_end, stdout=child_end, stderr=child_end, env=variables | {"TERM": "xterm"} | environ,
            start_new_session=True,
        )  # fmt: skip
        os.close(child_end)
        self.parent_end, self.text = parent_end, ""

    def until(self, text, seconds=30.0):
        """Reads until a text occurs; returns what came before it and removes both."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self.read(), f"ended without {text!r}: {self.text}"
        before, _, self.text = self.text.partition(text)
        return before

    def read(self):
        """Reads for at most 0.2 s; returns whether the terminal is still open."""
        if not select.select([self.parent_end], [], [], 0.2)[0]:
            return True
        try:
            new = os.read(self.parent_end, 65536)
        except OSError:  # its other end is closed
            return False
        self.text += new.decode(errors="replace")
        return bool(new)

    def end(self):
        """Reads to the end; returns the exit code."""
        while self.read():
            pass
        os.close(self.parent_end)
        return self.process.wait(30)


def test_in_a_pipe_watch_prints_one_plain_block(finished):
    before = files(finished.path)
    answer = call("watch", finished.path)
    assert answer.code == 0
    assert answer.err == ""
    assert "\x1b" not in answer.out
    assert "step 3 of 3" in answer.out
    assert "ended" in answer.out
    assert answer.out.count("training loss") == 1
    assert files(finished.path) == before


def test_several_runs_come_one_below_the_other(finished, stopped):
    answer = call("watch", finished.path, stopped.path)
    assert answer.code == 0
    assert answer.out.index("step 3 of 3") < answer.out.index("step 2 of 3")
    assert "stopped, no process on this machine holds it" in answer.out


def test_torch_is_not_imported(finished):
    program = "import sys; from noiseless import cli; code = cli.run(['watch', sys.argv[1]])\n"
    program += "sys.exit(code or 9 * ('torch' in sys.modules))"
    result = subprocess.run([sys.executable, "-c", program, finished.path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "step 3 of 3" in result.stdout


def test_in_a_terminal_watch_follows_a_run_to_its_end(stopped):
    terminal = Terminal(stopped.path, "--every", 0.1)
    terminal.until("\x1b[?1049h")  # the alternate screen, which keeps the earlier contents
    terminal.until("step 2 of 3")
    row = json.loads(stopped.metrics.read_text().splitlines()[-1]) | {"step": 2, "train_loss": 0.0625}
    line = json.dumps(row) + "\n"
    with stopped.metrics.open("a") as file:
        file.write(line[:20])
        file.flush()
        time.sleep(0.3)
        file.write(line[20:])
    terminal.until("step 3 of 3")
    terminal.until("0.0625")
    stopped.cut_rows(1)
    terminal.until("step 1 of 3")
    with stopped.locked():
        terminal.until("running")
    terminal.until("stopped")
    stopped.model.touch()
    terminal.until("\x1b[?1049l")
    terminal.until("ended")  # what is left in the terminal
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_watch_at_any_time(stopped, number):
    terminal = Terminal(stopped.path, "--every", 60)
    terminal.until("step 2 of 3")
    terminal.until("Ctrl-C")
    terminal.process.send_signal(number)
    output = terminal.until("\x1b[?1049l")
    assert terminal.end() == 0
    assert "Traceback" not in output + terminal.text
    assert "step 2 of 3" in terminal.text


def test_once_prints_one_block_in_a_terminal(stopped):
    terminal = Terminal(stopped.path, "--once", columns=60)
    assert terminal.end() == 0
    assert "1049h" not in terminal.text
    assert "step 2 of 3" in terminal.text


def test_a_terminal_without_blocks_gets_ascii(stopped):
    terminal = Terminal(stopped.path, "--once", PYTHONIOENCODING="ascii")
    assert terminal.end() == 0
    assert terminal.text.isascii()
    assert "training loss" in terminal.text


def test_a_run_without_rows_is_shown(stopped):
    stopped.metrics.unlink()
    answer = call("watch", stopped.path)
    assert answer.code == 0
    assert "step 0 of 3" in answer.out
    assert "no row yet" in answer.out


def test_wrong_input_is_refused(tmp_path, stopped):
    refused("watch", names=("at least one run", "noiseless watch RUN"))
    refused("watch", tmp_path / "none", names=("none", "does not exist"))
    (tmp_path / "empty").mkdir()
    refused("watch", tmp_path / "empty", names=(tmp_path, "no config.json"))
    for every in ("0", "-1", "nan", "inf"):
        refused("watch", stopped.path, "--every", every, names=("--every", "positive", every))
    (stopped.path / "config.json").write_text("{}")
    refused("watch", stopped.path, names=("config.json", "cannot be read"))


def test_a_run_that_is_removed_meanwhile_ends_the_watch(stopped, tmp_path):
    terminal = Terminal(stopped.path, "--every", 0.1)
    terminal.until("step 2 of 3")
    stopped.path.rename(tmp_path / "elsewhere")
    terminal.until("\x1b[?1049l")
    terminal.until("is gone")
    assert terminal.end() == 2
    assert "Traceback" not in terminal.text
    assert RunDirectory.open(tmp_path / "elsewhere")


def test_it_waits_for_a_run_that_is_not_there_yet(finished, tmp_path):
    terminal = Terminal(tmp_path / "later", "--every", 0.1)
    terminal.until("waiting for")
    copy(finished, tmp_path / "copied").path.rename(tmp_path / "later")
    terminal.until("ended")
    assert terminal.process.wait(30) == 0
