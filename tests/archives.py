"""Small data sets in their published forms, and a server on the loopback interface that can misbehave."""

from __future__ import annotations

import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from noiseless.data import cifar
from noiseless.data.sources import Source

COUNT = 6
"""images in a CIFAR batch"""


def source(file, content, *urls, unpacked="folder"):
    """A published file with this content."""
    digests = (f"md5:{hashlib.md5(content).hexdigest()}", f"sha256:{hashlib.sha256(content).hexdigest()}")
    return Source(file, len(content), digests, urls or ("http://127.0.0.1:9/" + file,), unpacked)


# CIFAR


def python2(dictionary):
    """A pickle as Python 2 and its numpy wrote the published files: protocol 2, byte strings, numpy.core.multiarray."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    def item(value):
        if isinstance(value, bytes):
            return text(value)
        if isinstance(value, list):
            return b"](" + b"".join(number(v) if isinstance(v, int) else text(v) for v in value) + b"e"
        array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
        kind = (
            b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\x01\x87R(K\x03" + text(b"|") + b"NNN" + number(-1) * 2 + b"K\0tb"
        )
        shape = number(value.shape[0]) + number(value.shape[1]) + b"\x86"
        raw = value.tobytes()
        return array + b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"

    return b"\x80\x02}(" + b"".join(text(key) + item(value) for key, value in dictionary.items()) + b"u."


def python3(protocol):
    """A pickle as Python 3 writes it."""
    return lambda dictionary: pickle.dumps(dictionary, protocol)


@dataclass(frozen=True)
class CifarFiles:
    """A tiny CIFAR: arrays, and the files that hold them."""

    x: dict[str, np.ndarray]
    """uint8 `[n, 3072]` of each batch"""
    y: dict[str, list[int]]
    python: dict[str, bytes]
    binary: dict[str, bytes]

    def parts(self):
        """x_train, y_train, x_test, y_test."""
        *train, test = self.x
        return (
            np.concatenate([self.x[k] for k in train]).reshape(-1, 3, 32, 32), [v for k in train for v in self.y[k]],
            self.x[test].reshape(-1, 3, 32, 32), self.y[test],
        )  # fmt: skip


def cifar10(write=python2, count=COUNT):
    """CIFAR-10 with `count` images a batch."""
    return _cifar([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], 10, b"labels", write, count)


def cifar100(write=python2, count=COUNT):
    """CIFAR-100 with `count` images a part."""
    return _cifar(["train", "test"], 100, b"fine_labels", write, count)


def _cifar(names, classes, key, write, count):
    x, y, python, binary = {}, {}, {}, {}
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        x[name] = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        y[name] = rng.integers(0, classes, count).tolist()
        y[name][0] = classes - 1
        dictionary = {b"batch_label": b"of tests", key: y[name], b"data": x[name], b"filenames": [b"a.png"] * count}
        coarse = rng.integers(0, 20, count).tolist()
        if classes == 100:
            dictionary[b"coarse_labels"] = coarse
        python[name] = write(dictionary)
        records = [
            bytes([coarse[k]] * (classes == 100) + [y[name][k]]) + x[name][k].tobytes() for k in range(count)
        ]  # fmt: skip
        binary[f"{name}.bin"] = b"".join(records)
    return CifarFiles(x, y, python, binary)


def folder(path, files):
    """Files in a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tar(files, root, *others):
    """A tar.gz with a root folder; `others` are further (TarInfo, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        top = tarfile.TarInfo(root)
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        members = [(tarfile.TarInfo(f"{root}/{name}"), content) for name, content in files.items()]
        for member, content in (*members, *others):
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def published(dataset, content, *urls, form=0):
    """`cifar.CIFAR10` or `CIFAR100` whose published archive is this one."""
    versions = list(dataset.versions)
    old = versions[form].source
    versions[form] = replace(versions[form], source=source(old.file, content, *urls, unpacked=old.unpacked))
    return replace(dataset, versions=tuple(versions))


def tiny_cifar10(*urls, count=COUNT):
    """A tiny CIFAR-10: its files, its archive, and the data set whose published archive this is."""
    files = cifar10(count=count)
    content = tar(files.python, "cifar-10-batches-py")
    return files, content, published(cifar.CIFAR10, content, *urls)


# images


def image(seed=0, size=(8, 8), mode="RGB", kind="png"):
    """An image file of noise; size is (width, height)."""
    shape = (size[1], size[0]) + ((len(mode),) if len(mode) > 1 else ())
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return encoded(Image.fromarray(pixels, mode=None).convert(mode), kind)


def encoded(picture, kind="png"):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return buffer.getvalue()


def class_folders(path, classes=("ant", "bee", "cat"), per_class=2, size=(8, 8), test="test"):
    """Writes train/CLASS/n.png and test/CLASS/n.png of noise; returns the path."""
    for part in ("train", test):
        for c, name in enumerate(classes):
            for k in range(per_class):
                folder(path, {f"{part}/{name}/{k}.png": image(100 * c + 10 * k + (part == "train"), size)})
    return path


def tiny_imagenet(classes=("n02", "n01", "n03"), per_class=2):
    """The files of a Tiny ImageNet, without its folder."""
    files = {"wnids.txt": "\n".join(classes).encode()}
    lines = []
    for c, name in enumerate(classes):
        files[f"train/{name}/{name}_boxes.txt"] = b"n02_0.JPEG\t0\t0\t9\t9\n"
        for k in range(per_class):
            files[f"train/{name}/images/{name}_{k}.JPEG"] = image(10 * c + k, (64, 64), kind="jpeg")
        files[f"val/images/val_{c}.JPEG"] = image(500 + c, (64, 64), mode="L" if c == 1 else "RGB", kind="jpeg")
        lines.append(f"val_{c}.JPEG\t{name}\t0\t32\t44\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = image(7, (64, 64), kind="jpeg")
    return files


def zipped(files, root="tiny-imagenet-200"):
    """A zip of files below a root folder; names that begin with / or .. are not changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{root}/", b"")
        for name, content in files.items():
            archive.writestr(name if name[0] in "/." else f"{root}/{name}", content)
    return buffer.getvalue()


def tree(path: Path):
    """Names and contents of everything below a directory."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


# a server


@dataclass
class Server:
    """Context manager: an HTTP server of files by name, with the faults that its fields set."""

    files: dict[str, bytes]
    ranges: bool = True
    length: bool = True
    """whether Content-Length is sent"""
    cuts: list[int] = field(default_factory=list)
    """for each of the next connections, the number of bytes after which it is closed"""
    status: int | None = None
    """status code of all answers; None serves the files"""
    hang: float = 0.0
    """seconds of silence after the first `hang_after` bytes"""
    hang_after: int = 0
    trickle: float = 0.0
    """seconds between single bytes"""
    shift: int = 0
    """bytes between the start of the range that is sent and the start that was requested"""
    requested: list[str | None] = field(default_factory=list)
    """the Range header of each request"""

    def __enter__(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                server.requested.append(self.headers["Range"])
                server.answer(self)
                self.close_connection = True

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *problem):
        self.stop.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def answer(self, request):
        """Answers one request."""
        content = self.files.get(request.path.rsplit("/", 1)[1])
        if self.status or content is None:
            request.send_error(self.status or 404)
            return
        start = int(self.requested[-1].removeprefix("bytes=").rstrip("-")) if self.requested[-1] and self.ranges else 0
        if start and start >= len(content):
            request.send_error(416)
            return
        start += self.shift if start else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.length:
            request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        body = content[start:]
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        try:
            if self.trickle:
                for k in range(len(body)):
                    request.wfile.write(body[k : k + 1])
                    time.sleep(self.trickle)
            if self.hang:
                request.wfile.write(body[: self.hang_after])
                self.stop.wait(self.hang)
                return
            request.wfile.write(body)
        except OSError:
            pass  # the client has closed the connection
