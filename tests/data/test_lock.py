"""One process at a time writes a file, and the others print that they wait."""

from __future__ import annotations

import threading
import time

import pytest

from noiseless.data.lock import file_lock


@pytest.mark.parametrize("job", [False, True])
def test_the_second_process_waits_and_prints_a_message(job, tmp_path, capsys, monkeypatch):
    if job:
        monkeypatch.setenv("RANK", "1")
    path, order = tmp_path / "made" / "file", []

    def make():  # a lock belongs to the opened file, so a thread stands for a process
        with file_lock(path):
            order.append("second")

    other = threading.Thread(target=make)
    with file_lock(path):
        assert capsys.readouterr().err == ""
        other.start()
        time.sleep(0.3)
        order.append("first")
    other.join(20)
    assert order == ["first", "second"]
    message = capsys.readouterr().err
    assert message == ("" if job else f"waiting for another process, which is writing {path}\n")
