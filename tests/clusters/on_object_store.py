"""A run whose directory is on a real FUSE mount that can do what object stores can: refused; and copied there.

The mount writes objects from begin to end, and has no locks, no appending and no renames. PyPI: pip install mfusepy;
Debian: apt-get install fuse3 libfuse2
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from tempfile import TemporaryDirectory
from typing import Any

from short_run import ARGUMENTS, ENVIRONMENT, ROOT, compare, digest, wait_for

try:
    import mfusepy
except (ImportError, OSError, AttributeError) as error:  # also where libfuse is missing
    MISSING = str(error)
else:
    MISSING = "" if Path("/dev/fuse").exists() else "there is no /dev/fuse"

    class Bucket(mfusepy.Operations):
        """Objects in memory, by path; folders are kept as paths, too."""

        use_ns = True

        def __init__(self) -> None:
            self.objects: dict[str, bytearray] = {}
            self.folders = {"/"}

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            if path in self.folders:
                return {"st_mode": S_IFDIR | 0o755, "st_nlink": 2}
            if path not in self.objects:
                raise mfusepy.FuseOSError(errno.ENOENT)
            times = {"st_mtime": time.time_ns(), "st_ctime": time.time_ns(), "st_atime": time.time_ns()}
            return {"st_mode": S_IFREG | 0o644, "st_nlink": 1, "st_size": len(self.objects[path]), **times}

        def readdir(self, path: str, fh: int) -> list[str]:
            names = [*self.folders, *self.objects]
            return [".", "..", *(Path(n).name for n in names if n != "/" and str(Path(n).parent) == path)]

        def mkdir(self, path: str, mode: int) -> None:
            self.folders.add(path)

        def rmdir(self, path: str) -> None:
            self.folders.discard(path)

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            self.objects[path] = bytearray()
            return 0

        def open(self, path: str, flags: int) -> int:
            if flags & os.O_APPEND or (flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_TRUNC):
                raise mfusepy.FuseOSError(errno.EPERM)
            return 0

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            if length:
                raise mfusepy.FuseOSError(errno.EPERM)
            self.objects[path] = bytearray()

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return bytes(self.objects[path][offset : offset + size])

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if offset != len(self.objects[path]):
                raise mfusepy.FuseOSError(errno.EPERM)
            self.objects[path] += data
            return len(data)

        def unlink(self, path: str) -> None:
            del self.objects[path]

        def rename(self, old: str, new: str) -> None:
            raise mfusepy.FuseOSError(errno.ENOSYS)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)

        def flock(self, path: str, fh: int, op: int) -> None:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)

        def lock(self, path: str, fh: int, cmd: int, lock: Any) -> None:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)


def main() -> int:
    """Returns 0 if the mount is refused and takes a copy, 2 where FUSE is not installed."""
    if MISSING:
        print(
            f"on_object_store: FUSE is not installed for {sys.executable} ({MISSING}): pip install mfusepy, apt-get"
            " install fuse3 libfuse2"
        )
        return 2
    if sys.argv[1:]:  # the process of the mount
        mfusepy.FUSE(Bucket(), sys.argv[1], foreground=True, fsname="bucket", direct_io=True)
        return 0
    with TemporaryDirectory(prefix="on-object-store-") as name:
        mount = Path(name) / "bucket"
        mount.mkdir()
        server = subprocess.Popen([sys.executable, __file__, str(mount)])
        try:
            wait_for("the bucket is mounted", mount.is_mount, 30)
            return _check(Path(name), mount)
        finally:
            subprocess.run(["fusermount3", "-u", str(mount)], check=False)
            server.wait(30)


def _check(folder: Path, mount: Path) -> int:
    """Trains on the mount, which is refused, and beside it with a copy there; the copy goes on as a run."""
    refused = _train("--run-dir", str(mount / "run"))
    print(refused.stderr, end="")
    lacking = ("lock files", "append to a file", "flush a file", "rename over an existing file", "--copy-to")
    if refused.returncode != 2 or any(text not in refused.stderr for text in lacking) or any(mount.iterdir()):
        print(f"on_object_store: the mount was not refused for all that it lacks (exit code {refused.returncode})")
        return 1
    run = folder / "run"
    copied = _train("--run-dir", str(run), "--copy-to", str(mount / "run"))
    if copied.returncode or "lacks the newest files" in copied.stdout:
        print(copied.stdout, copied.stderr, "on_object_store: the copy has failed")
        return 1
    return compare("copy", mount / "run", digest(run), "refused as --run-dir, and complete as --copy-to")


def _train(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of two steps."""
    command = [sys.executable, "-m", "noiseless", "train", *ARGUMENTS, "--steps", "2", "--warmup", "0", *arguments]
    return subprocess.run(command, env=os.environ | ENVIRONMENT, cwd=ROOT, check=False, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main())
