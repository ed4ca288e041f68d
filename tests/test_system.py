"""The differences between operating systems are in one file, which works where Linux's names are missing.

Windows itself is not run here: its lack of names is imitated, its file names are checked.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_runs import call

from noiseless import system

SOURCE = Path(system.__file__).parent
MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
OS = (
    "O_DIRECTORY", "O_NOFOLLOW", "WNOHANG", "chown", "fchmod", "fork", "forkpty", "getegid", "geteuid", "getgid",
    "getloadavg", "getpgid", "getuid", "kill", "killpg", "mkfifo", "mknod", "nice", "openpty", "posix_fallocate",
    "pread", "pwrite", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sync",
    "sysconf", "uname", "O_CLOEXEC", "O_NONBLOCK",
)  # fmt: skip
SIGNAL = (
    "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1",
    "SIGUSR2", "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK", "alarm", "pthread_sigmask", "setitimer", "sigwait",
)  # fmt: skip
LACKING = f"""
import importlib, multiprocessing.forkserver, os, pkgutil, signal, sys
import rich.progress, torch._dynamo, torch.distributed.launcher.api, torchvision, tyro  # other packages are not meant
for module, names in (os, {OS}), (signal, {SIGNAL}):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in {MODULES}:
    sys.modules[name] = None
import noiseless
for module in pkgutil.walk_packages(noiseless.__path__, "noiseless."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from noiseless import system
assert system.cores() >= 1
assert system.peak_memory() is None
assert system.free_memory() is None or system.free_memory() > 0
assert [number.name for number in system.STOPS] == ["SIGINT", "SIGTERM"] and system.KILL == signal.SIGTERM
assert not system.others_can_write(os.stat("."))
with system.blocked():
    system.unblock()
"""


def names_of_linux(source: str) -> list[str]:
    """The names in a source that Windows does not have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {"os": OS, "signal": SIGNAL}.get(node.module or "", ())
            found += [name.name for name in node.names if node.module in MODULES or name.name in names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [node.attr] * (node.attr in {"os": OS, "signal": SIGNAL}.get(node.value.id, ()))
    return found


def test_the_names_of_linux_are_in_one_file() -> None:
    assert names_of_linux("import os, fcntl\nfrom signal import SIGKILL\nos.fork()") == ["fcntl", "SIGKILL", "fork"]
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if names_of_linux(path.read_text())}
    assert found == {"system.py"}


@pytest.mark.slow
def test_all_modules_are_imported_without_the_names_of_linux() -> None:
    answer = subprocess.run([sys.executable, "-c", LACKING], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_this_process_lives_and_one_that_ended_does_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert system.alive(process.pid)
        system.end(process.pid, at_once=True)
        assert process.wait() == -signal.SIGKILL
    assert not system.alive(process.pid)
    system.end(process.pid)  # which is gone
    assert system.alive(os.getpid())


def test_signals_are_blocked_for_a_while() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:
        with system.blocked():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # os.kill may choose another thread
            assert received == []
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_memory_and_cores_are_those_of_the_machine() -> None:
    assert system.cores() == len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < (system.free_memory() or 0) <= total
    assert 10**7 < (system.peak_memory() or 0) <= total


@pytest.mark.parametrize("name", ["CON", "nul", "aux.txt", "COM1", "lpt9.tar.gz", "PRN .log"])
def test_names_of_devices_are_refused_for_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = call("train", "fb", "--model", "linear", "--steps", "1", "--run-dir", f"runs/{name}")
    assert answer.code == 2
    assert f"{name} is the name of a device on Windows: choose another --run-dir" in " ".join(answer.err.split())
    assert not (tmp_path / "runs" / name).exists()


@pytest.mark.parametrize("name", ["console", "a.con", "com", "com10", "nully", "lpt"])
def test_other_names_are_not(name):
    assert not system.is_device_name(name)
