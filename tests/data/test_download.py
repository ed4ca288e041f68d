"""Downloads: cut anywhere and resumed, refused where they differ, from the next server where one fails."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archives import Server, source
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import wait_until

from noiseless.data import download, sources
from noiseless.data.sources import VARIABLE

CONTENT = np.random.default_rng(0).bytes(5000)
FILE = "set.tar.gz"


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _served(*servers, content=CONTENT):
    return source(FILE, content, *(f"{server.url}/there/{FILE}" for server in servers))


def _fetch(path, *servers, timeout=5.0):
    return download.fetch(_served(*servers), path, timeout, pause=0.0)


def _names(path):
    return sorted(p.name for p in path.iterdir() if not p.name.endswith(".lock"))


def test_a_file_is_downloaded_once(tmp_path):
    with Server({FILE: CONTENT}) as server:
        path = _fetch(tmp_path / "new" / "place", server)
        assert path == tmp_path / "new" / "place" / FILE
        assert path.read_bytes() == CONTENT
        assert _fetch(path.parent, server) == path
        assert server.requested == [None]
    assert _names(path.parent) == [FILE]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, len(CONTENT) - 1), ranges=st.booleans(), length=st.booleans())
def test_a_connection_cut_at_any_byte_is_resumed(cut, ranges, length):
    with (
        Server({FILE: CONTENT}, ranges=ranges, length=length, cuts=[cut]) as server,
        tempfile.TemporaryDirectory() as d,
    ):
        assert _fetch(Path(d), server).read_bytes() == CONTENT
        assert server.requested == [None, f"bytes={cut}-" if cut else None]
        assert _names(Path(d)) == [FILE]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, len(CONTENT)), ranges=st.booleans(), wrong=st.booleans())
def test_the_part_of_a_killed_download_is_resumed(cut, ranges, wrong):
    part = CONTENT[:cut]
    if wrong and cut:
        part = bytes([part[0] ^ 1]) + part[1:]  # the beginning of another file
    with Server({FILE: CONTENT}, ranges=ranges) as server, tempfile.TemporaryDirectory() as d:
        (Path(d) / f"{FILE}.part").write_bytes(part)
        assert _fetch(Path(d), server).read_bytes() == CONTENT
        first = [] if cut == len(CONTENT) else [f"bytes={cut}-" if cut else None]
        repeated = [None] if wrong and cut and (ranges or cut == len(CONTENT)) else []
        assert server.requested == first + repeated
        assert _names(Path(d)) == [FILE]


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, len(CONTENT) - 1))
def test_a_download_that_fails_at_any_byte_leaves_only_a_part(cut):
    with Server({FILE: CONTENT}, ranges=False, cuts=[cut] * 20) as server, tempfile.TemporaryDirectory() as d:
        with pytest.raises(ValueError, match=r"could not be downloaded .*the connection ended early"):
            _fetch(Path(d), server)
        assert _names(Path(d)) == [f"{FILE}.part"]
        assert (Path(d) / f"{FILE}.part").read_bytes() == CONTENT[:cut]


def test_a_killed_process_leaves_a_part_and_the_next_one_resumes_it(tmp_path):
    program = (
        "import sys; from pathlib import Path; from noiseless.data import download, sources;"
        "download.fetch(sources.Source(*eval(sys.argv[1])), Path(sys.argv[2]))"
    )
    with Server({FILE: CONTENT}, hang=60, hang_after=2000) as server:
        file_source = _served(server)
        process = subprocess.Popen(
            [sys.executable, "-c", program, repr(tuple(vars(file_source).values())), tmp_path],
            stderr=subprocess.DEVNULL,
        )
        part = tmp_path / f"{FILE}.part"
        wait_until(process, lambda: part.exists() and part.stat().st_size > 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = part.read_bytes()
        assert content == CONTENT[: len(content)]
        assert not (tmp_path / FILE).exists()
        server.hang = 0
        assert download.fetch(file_source, tmp_path).read_bytes() == CONTENT
        assert server.requested == [None, f"bytes={len(content)}-"]


def test_the_next_server_is_used_where_one_fails(tmp_path):
    with Server({FILE: CONTENT}) as dead:
        pass
    other = CONTENT[:-1] + b"?"
    with (
        Server({}) as without, Server({FILE: CONTENT}, status=503) as ill, Server({FILE: CONTENT + b"?"}) as longer,
        Server({FILE: CONTENT + b"?" * 99}, length=False) as endless, Server({FILE: other}) as differing,
        Server({FILE: CONTENT}) as good,
    ):  # fmt: skip
        assert _fetch(tmp_path, dead, without, ill, longer, endless, differing, good).read_bytes() == CONTENT
        assert [len(server.requested) for server in (without, ill, longer, endless, differing, good)] == [1] * 6


def test_the_next_server_resumes_where_the_first_one_stopped(tmp_path):
    with Server({FILE: CONTENT}, cuts=[3000, 0, 0, 0]) as first, Server({FILE: CONTENT}) as second:
        assert _fetch(tmp_path, first, second).read_bytes() == CONTENT
        assert first.requested == [None, *["bytes=3000-"] * 2]
        assert second.requested == ["bytes=3000-"]


def test_many_breaks_are_allowed_as_long_as_bytes_arrive(tmp_path):
    with Server({FILE: CONTENT}, cuts=[600] * 8) as server:  # 600 bytes are more than 1,000 a second for 0.5 seconds
        assert _fetch(tmp_path, server, timeout=0.5).read_bytes() == CONTENT
        assert len(server.requested) == 9


def test_another_range_than_the_requested_one_is_discarded(tmp_path):
    with Server({FILE: CONTENT}, cuts=[1000], shift=7) as server:
        assert _fetch(tmp_path, server).read_bytes() == CONTENT
        assert server.requested == [None, "bytes=1000-", None]


def test_a_silent_server_is_abandoned(tmp_path):
    with Server({FILE: CONTENT}, hang=60, hang_after=100) as silent, Server({FILE: CONTENT}) as good:
        began = time.monotonic()
        assert _fetch(tmp_path, silent, good, timeout=0.2).read_bytes() == CONTENT
        assert time.monotonic() - began < 10
        assert len(silent.requested) == download.TRIES
        assert good.requested == [f"bytes={100 * download.TRIES}-"]


def test_a_slow_server_is_abandoned(tmp_path):
    with Server({FILE: CONTENT}, trickle=0.02) as slow, Server({FILE: CONTENT}) as good:
        assert _fetch(tmp_path, slow, good, timeout=0.3).read_bytes() == CONTENT
        assert len(slow.requested) == 1
        assert good.requested[0] is not None  # resumes after the bytes that have arrived
    with Server({FILE: CONTENT}, trickle=0.02) as slow, pytest.raises(ValueError, match="are too slow"):
        _fetch(tmp_path / "b", slow, timeout=0.3)


@pytest.mark.parametrize("other", [CONTENT[:-1] + b"?", CONTENT[:-1], CONTENT + b"?"])
@pytest.mark.parametrize("length", [True, False])
def test_a_different_file_is_never_saved_under_the_name(tmp_path, other, length):
    with Server({FILE: other}, length=length) as server, pytest.raises(ValueError, match=r"set\.tar\.gz"):
        _fetch(tmp_path, server)
    assert FILE not in _names(tmp_path)


def test_each_digest_must_match(tmp_path):
    with Server({FILE: CONTENT}) as server:
        good = _served(server)
        for k in range(2):
            digests = list(good.digests)
            digests[k] = digests[k][:-1] + ("0" if digests[k][-1] != "0" else "1")
            with pytest.raises(ValueError, match=digests[k].partition(":")[0]):
                download.fetch(replace(good, digests=tuple(digests)), tmp_path, pause=0.0)
            assert _names(tmp_path) == []


def test_a_damaged_file_is_refused_and_not_changed(tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT[:-1])
    with Server({FILE: CONTENT}) as server, pytest.raises(ValueError, match=r"4,999 bytes, not 5,000.*Remove it"):
        _fetch(tmp_path, server)
    assert (tmp_path / FILE).read_bytes() == CONTENT[:-1]


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    with Server({}) as dead:
        pass
    with pytest.raises(ValueError, match="could not be downloaded") as error:
        _fetch(tmp_path, dead, dead)
    message = str(error.value)
    assert "\n" not in message
    for text in (f"{dead.url}/there/{FILE}", "refused", "5.0 kB", str(tmp_path), "the folder folder", VARIABLE):
        assert text in message
    assert "kept" not in message
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT[:1500])
    with pytest.raises(ValueError, match=re.escape("The first 1.5 kB are kept: the same command resumes there")):
        _fetch(tmp_path, dead)


def test_the_users_servers_replace_the_public_ones(tmp_path, monkeypatch):
    with Server({}) as public, Server({}) as first, Server({FILE: CONTENT}) as second:
        monkeypatch.setenv(VARIABLE, f"{first.url}/a/, {second.url}/b")
        assert _fetch(tmp_path, public).read_bytes() == CONTENT
        assert [len(server.requested) for server in (public, first, second)] == [0, 1, 1]


@pytest.mark.parametrize("value", ["file:///etc", "/srv/mirror", "ftp://a"])
def test_a_server_must_have_an_http_address(tmp_path, monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=rf"{VARIABLE} must hold http or https addresses, not '{value}'"):
        download.fetch(source(FILE, CONTENT), tmp_path)


def test_concurrent_workers_download_a_file_once(tmp_path):
    with Server({FILE: CONTENT}) as server:
        paths = []
        threads = [threading.Thread(target=lambda: paths.append(_fetch(tmp_path, server))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert paths == [tmp_path / FILE] * 4
        assert server.requested == [None]


def test_a_full_disk_is_an_error_about_the_part_and_not_the_server(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Server({FILE: CONTENT}) as server:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as error:
                _fetch(tmp_path, server)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert error.value.filename == str(tmp_path / f"{FILE}.part")
        assert _fetch(tmp_path, server).read_bytes() == CONTENT  # once there is room


def test_the_published_digests_are_those_of_torchvision():
    from torchvision import datasets

    assert sources.CIFAR10.digests[0] == f"md5:{datasets.CIFAR10.tgz_md5}"
    assert sources.CIFAR100.digests[0] == f"md5:{datasets.CIFAR100.tgz_md5}"
    for ours, torchvisions in ((sources.CIFAR10, datasets.CIFAR10), (sources.CIFAR100, datasets.CIFAR100)):
        assert (ours.file, ours.unpacked, ours.urls[0]) == (
            torchvisions.filename, torchvisions.base_folder, torchvisions.url,
        )  # fmt: skip
