"""Downloads that resume where they broke off, and are checked before the file gets its name.

If one server fails, the next is tried. An incomplete download is kept as `FILE.part`, which is never read as the file.
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

from noiseless.data.lock import file_lock
from noiseless.data.progress import Advance, progress_bar, size
from noiseless.data.sources import VARIABLE, Source
from noiseless.screen import print_line

TIMEOUT = 30.0
"""seconds without data after which a server is given up"""
SLOWEST = 1000
"""bytes per second, on average over the timeout, below which a server is given up: the download would take days"""
TRIES = 3
"""broken connections in a row, each with (almost) no progress, before the next server is tried"""


class _FailedError(Exception):
    """A server does not deliver the file."""


class _BrokenError(_FailedError):
    """A connection broke, and may be tried again."""


def fetch(source: Source, directory: Path, timeout: float = TIMEOUT, pause: float = 1.0) -> Path:
    """Downloads a published file, or resumes its download. If several processes call this, one downloads.

    Args:
        source: the file.
        directory: where the file is put; it is created if it is missing.
        timeout: seconds without data after which a server is given up.
        pause: seconds before a broken connection is tried again; doubled each time.

    Returns:
        The path of the complete, checked file.

    Raises:
        ValueError: if no server delivers the file, with what to download and where to put it; or if another file of its
            name is there.
    """
    path = directory / source.file
    part = path.with_name(f"{path.name}.part")
    with file_lock(path):
        if path.exists():
            source.refuse_other(path)
            return path
        problems = []
        for url in source.addresses():
            print_line(f"downloading {url} ({size(source.size)}) to {directory}")
            try:
                with progress_bar(source.file, source.size, "bytes") as advance:
                    _complete(url, part, source, timeout, pause, advance)
            except _FailedError as error:
                problems.append(f"{url}: {error}")
                continue
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
            return path
    resume = f". The first {size(_length(part))} are kept: the same command resumes there" if _length(part) else ""
    raise ValueError(
        f"{source.file} could not be downloaded ({'; '.join(problems)}). Download it from {source.urls[0]}"
        f" ({size(source.size)}) where there is a network, and put it, or the folder {source.unpacked} that it holds,"
        f" in {directory}; or name a server that has it in {VARIABLE}{resume}"
    )


def _complete(url: str, part: Path, source: Source, timeout: float, pause: float, advance: Advance) -> None:
    """Downloads the rest of the part from one server, and checks the result."""
    resumed = _length(part) > 0
    while True:
        if _length(part) < source.size:
            _transfer(url, part, source, timeout, pause, advance)
        difference = source.difference(part)
        if difference is None:
            return
        part.unlink()
        if not resumed:
            raise _FailedError(f"it has another file ({difference})")
        resumed = False  # the part may have begun with another file: start again from the first byte


def _transfer(url: str, part: Path, source: Source, timeout: float, pause: float, advance: Advance) -> None:
    """Connects to a server until the part has all bytes, or `TRIES` connections in a row made (almost) no progress."""
    longest, failures = _length(part), 0
    while True:
        try:
            _receive(url, part, source, timeout, advance)
            reason = _BrokenError("the connection ended early")
        except _BrokenError as error:
            reason = error
        if (length := _length(part)) >= source.size:
            return
        progressed = length - longest >= SLOWEST * timeout
        longest, failures = max(longest, length), 0 if progressed else failures + 1
        if failures == TRIES:
            raise reason
        time.sleep(pause * 2**failures)


def _receive(url: str, part: Path, source: Source, timeout: float, advance: Advance) -> None:
    """Makes one request for the missing bytes, and appends them to the part."""
    start = _length(part)
    with _request(url, start, timeout) as response:
        begins, total = _sent_range(response)
        if total is not None and total != source.size:
            raise _FailedError(f"it has another file ({total:,} bytes, not {source.size:,})")
        if begins not in (0, start):
            part.unlink(missing_ok=True)
            raise _BrokenError("it sends another range than requested")
        try:
            with part.open("r+b" if part.exists() else "w+b") as file:
                file.truncate(begins)
                file.seek(begins)
                for chunk in _chunks(response, timeout):
                    file.write(chunk[: source.size + 1 - file.tell()])  # one byte too many shows another file
                    file.flush()
                    advance(file.tell())
                    if file.tell() > source.size:
                        return
        except OSError as error:  # not the server's fault, for instance a full disk
            error.filename = str(part)
            raise


def _request(url: str, start: int, timeout: float) -> HTTPResponse:
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


def _sent_range(response: HTTPResponse) -> tuple[int, int | None]:
    """The position of the first byte that is sent, and the length of the complete file, or None if it is not given."""
    if response.status == 206:
        content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if content_range is None:
            raise _FailedError("it sends a part of the file without saying which")
        return int(content_range[1]), None if content_range[2] == "*" else int(content_range[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _chunks(response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The received bytes, as they come."""
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
