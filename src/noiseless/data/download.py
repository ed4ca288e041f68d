"""Downloads that lose nothing: resumed where they broke off, checked before they get their name.

If one server fails, the next is asked. What has come so far lies beside as `FILE.part`, which nothing takes for the
file.
"""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

from noiseless.data.lock import held
from noiseless.data.progress import Advance, bar, size, tell
from noiseless.data.sources import VARIABLE, Source

TIMEOUT = 30.0
"""seconds of silence after which a server counts as gone"""
SLOWEST = 1000
"""bytes a second, over the timeout, below which a server counts as gone, too: it would take days"""
TRIES = 3
"""broken connections in a row that have brought (next to) nothing, before the next server is asked"""


class _FailedError(Exception):
    """A server does not give the file."""


class _BrokenError(_FailedError):
    """A connection has broken off: worth another try."""


def fetch(source: Source, directory: Path, timeout: float = TIMEOUT, pause: float = 1.0) -> Path:
    """Downloads a published file, or goes on with its download; of several processes one does it.

    Args:
        source: the file.
        directory: where it is kept; made if it is not there.
        timeout: seconds.
        pause: seconds before a broken connection is tried again; doubled each time.

    Returns:
        The whole, checked file.

    Raises:
        ValueError: if no server gives it, with what to download and where to put it; or if another file lies there.
    """
    path = directory / source.file
    part = path.with_name(f"{path.name}.part")
    with held(path):
        if path.exists():
            source.refuse_other(path)
            return path
        problems = []
        for url in source.addresses():
            tell(f"downloading {url} ({size(source.size)}) to {directory}")
            try:
                with bar(source.file, source.size, "bytes") as advance:
                    _complete(url, part, source, timeout, pause, advance)
            except _FailedError as error:
                problems.append(f"{url}: {error}")
                continue
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            return path
    kept = (
        f". {size(_length(part))} have come and are kept: the same command goes on from there" if _length(part) else ""
    )
    raise ValueError(
        f"{source.file} could not be downloaded ({'; '.join(problems)}). Download it from {source.urls[0]}"
        f" ({size(source.size)}) where there is a network, and put it, or the folder {source.unpacked} that it holds,"
        f" in {directory}; or name a server that has it in {VARIABLE}{kept}"
    )


def _complete(url: str, part: Path, source: Source, timeout: float, pause: float, advance: Advance) -> None:
    """Brings the part to the whole, checked file, from one server."""
    resumed = _length(part) > 0
    while True:
        if _length(part) < source.size:
            _transfer(url, part, source, timeout, pause, advance)
        different = source.difference(part)
        if different is None:
            return
        part.unlink()
        if not resumed:
            raise _FailedError(f"another file is there ({different})")
        resumed = False  # the beginning may have been of another file: once more, from the first byte


def _transfer(url: str, part: Path, source: Source, timeout: float, pause: float, advance: Advance) -> None:
    """Asks a server until the part has all bytes, as long as each connection but a few brings some."""
    most, failures = _length(part), 0
    while True:
        try:
            _receive(url, part, source, timeout, advance)
            reason = _BrokenError("the connection ended early")
        except _BrokenError as error:
            reason = error
        if (length := _length(part)) >= source.size:
            return
        grown = length - most >= SLOWEST * timeout
        most, failures = max(most, length), 0 if grown else failures + 1
        if failures == TRIES:
            raise reason
        time.sleep(pause * 2**failures)


def _receive(url: str, part: Path, source: Source, timeout: float, advance: Advance) -> None:
    """One request, for what the part lacks."""
    start = _length(part)
    with _ask(url, start, timeout) as response:
        begins, total = _extent(response)
        if total is not None and total != source.size:
            raise _FailedError(f"another file is there ({total:,} bytes, not {source.size:,})")
        if begins not in (0, start):
            part.unlink()
            raise _BrokenError("it sends another range than was asked for")
        try:
            with part.open("r+b" if part.exists() else "w+b") as file:
                file.truncate(begins)
                file.seek(begins)
                for chunk in _chunks(response, timeout):
                    file.write(chunk[: source.size + 1 - file.tell()])  # a byte too many tells that it is another file
                    file.flush()
                    advance(file.tell())
                    if file.tell() > source.size:
                        return
        except OSError as error:  # a full disk is no fault of the server
            error.filename = str(part)
            raise


def _ask(url: str, start: int, timeout: float) -> HTTPResponse:
    headers = {"User-Agent": "noiseless", "Accept-Encoding": "identity"} | (
        {"Range": f"bytes={start}-"} if start else {}
    )
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)  # noqa: S310  # http(s), see Source.addresses
    except HTTPError as error:
        error.close()
        raise _FailedError(f"HTTP {error.code} {error.reason}") from None
    except URLError as error:
        raise _FailedError(f"no connection, {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise _FailedError(f"no answer, {error or type(error).__name__}") from None


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """The first byte that is sent, and the whole file's length if it is told."""
    if response.status == 206:
        content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if content_range is None:
            raise _FailedError("it sends a part of the file without telling which")
        return int(content_range[1]), None if content_range[2] == "*" else int(content_range[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _chunks(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """What comes, as it comes."""
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(2**18)
        except TimeoutError:
            raise _BrokenError(f"nothing came for {timeout:g} seconds") from None
        except (OSError, HTTPException) as error:
            raise _BrokenError(f"the connection broke, {error or type(error).__name__}") from None
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        if (seconds := time.monotonic() - since) > timeout:
            if received < SLOWEST * seconds:
                raise _FailedError(f"{received:,} bytes in {seconds:.0f} seconds are too slow")
            since, received = time.monotonic(), 0


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
