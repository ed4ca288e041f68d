"""A lock excludes others while its process runs, and no longer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from noiseless.lock import HeldError, locked

HOLDER = """
import os, pathlib, sys, time
from noiseless.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    sys.stdin.read()
"""


def test_a_lock_ends_with_its_process_also_where_a_forked_child_lives_on(tmp_path):
    path = tmp_path / "lock"
    path.write_text("content")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = holder.stdout.readline().strip()
    try:
        with pytest.raises(HeldError, match=str(path)), locked(path):
            pass
        holder.kill()
        holder.wait()
        with locked(path):
            assert path.read_text() == "content"
    finally:
        subprocess.run(["kill", child], check=True)
        holder.communicate()


def test_a_second_lock_in_one_process_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        with pytest.raises(HeldError), locked(path):
            pass
        with pytest.raises(HeldError), locked(path):  # the refused attempt has not released it
            pass
    assert path.exists()
    with locked(path, lambda: pytest.fail("nobody holds it")):
        pass
