"""Published files: their names, sizes and digests, and their addresses in the order in which they are tried."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from noiseless.plain import open_file

VARIABLE = "NOISELESS_MIRROR"
"""environment variable: one or more addresses of servers (without the file name), which replace the public ones"""


@dataclass(frozen=True)
class Source:
    """A file as its authors published it."""

    file: str
    """its name"""
    size: int
    """bytes"""
    digests: tuple[str, ...]
    """`md5:HEX` or `sha256:HEX`; all must match"""
    urls: tuple[str, ...]
    """addresses, the authors' first"""
    unpacked: str
    """name of the folder in the archive, which is read instead of the archive if it exists"""

    def addresses(self) -> tuple[str, ...]:
        """The addresses from which the file is downloaded: on the servers of NOISELESS_MIRROR, else the public ones.

        Returns:
            URLs in the order in which they are tried.

        Raises:
            ValueError: if the variable holds anything but http or https addresses.
        """
        mirrors = os.environ.get(VARIABLE, "").replace(",", " ").split()
        for mirror in mirrors:
            if not mirror.startswith(("http://", "https://")):
                raise ValueError(f"{VARIABLE} must hold http or https addresses, not {mirror!r}")
        return tuple(f"{mirror.rstrip('/')}/{self.file}" for mirror in mirrors) or self.urls

    def difference(self, path: Path) -> str | None:
        """How a file differs from the published one, by size or digest; None if it does not."""
        with open_file(path) as file:
            length = os.fstat(file.fileno()).st_size
        if length != self.size:
            return f"{length:,} bytes, not {self.size:,}"
        for published in self.digests:
            kind, _, value = published.partition(":")
            with open_file(path) as file:
                digest = hashlib.file_digest(file, partial(hashlib.new, kind, usedforsecurity=False)).hexdigest()
            if digest != value:
                return f"{kind} {digest}, not {value}"
        return None

    def refuse_other(self, path: Path) -> None:
        """Raises if a file is not the published one.

        Args:
            path: of the file.

        Raises:
            ValueError: if its size or a digest differs.
        """
        if difference := self.difference(path):
            raise ValueError(
                f"{path} is not the published file ({difference}): it was cut off, damaged, or is another one."
                f" Remove it, and it is downloaded again ({self.urls[0]})"
            )


def present(directory: Path, *sources: Source) -> Path | None:
    """The path of a source's unpacked folder in a directory, else that of an archive; None if there is neither."""
    folders, archives = (directory / source.unpacked for source in sources), (directory / s.file for s in sources)
    return next((path for path in (*folders, *archives) if path.exists()), None)


def installed(package: str) -> bool:
    """Whether a package that holds a data set is installed; it is not imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a spec stands in its place in `sys.modules`
        return False


TORONTO = "https://www.cs.toronto.edu/~kriz", "https://cave.cs.toronto.edu/kriz", "https://dataset.bj.bcebos.com/cifar"
"""servers of both CIFARs: the authors' page, its new address, and a mirror (of the Python version only)"""

# Sizes and md5 as on https://www.cs.toronto.edu/~kriz/cifar.html; sha256 of the same files, as Keras checks them.
CIFAR10 = Source(
    "cifar-10-python.tar.gz",
    170_498_071,
    (
        "md5:c58f30108f718f92721af3b95e74349a",
        "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    tuple(f"{place}/cifar-10-python.tar.gz" for place in TORONTO),
    "cifar-10-batches-py",
)
CIFAR100 = Source(
    "cifar-100-python.tar.gz",
    169_001_437,
    (
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
        "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
    tuple(f"{place}/cifar-100-python.tar.gz" for place in TORONTO),
    "cifar-100-python",
)
CIFAR10_BINARY = Source(
    "cifar-10-binary.tar.gz",
    170_052_171,
    ("md5:c32a1d4ab5d03f1284b67883e8d87530",),
    tuple(f"{place}/cifar-10-binary.tar.gz" for place in TORONTO[:2]),
    "cifar-10-batches-bin",
)
CIFAR100_BINARY = Source(
    "cifar-100-binary.tar.gz",
    168_513_733,
    ("md5:03b5dce01913d631647c71ecec9e9cb8",),
    tuple(f"{place}/cifar-100-binary.tar.gz" for place in TORONTO[:2]),
    "cifar-100-binary",
)
TINY_IMAGENET = Source(
    "tiny-imagenet-200.zip",
    248_100_043,
    ("md5:90528d7ca1a48142e341f4ef8d21d0de",),
    (
        "https://image-net.org/data/tiny-imagenet-200.zip",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "tiny-imagenet-200",
)
