"""How a version comes to lie in the archive, or out of it: a second name where the disk allows it, else a flushed copy.

Knows paths, not batches or trees. A copy gets its name only when it is whole and on the disk, so whatever has a name in
the archive is complete; and a version that is there already is recognized, so that a repeated call changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import Final

from agent.replica.file_system import FileSystem
from agent.replica.standing import is_folder, status_of

COPY_BYTES: Final = 1024 * 1024
_NO_LINK: Final = {
    *(errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL),
}
_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def is_same_version(source: str, of_source: os.stat_result, other: str, of_other: os.stat_result) -> bool:
    """True if both are one file, or hold the same: links by their target, files by size, time and contents."""
    if stat.S_ISLNK(of_source.st_mode):
        return stat.S_ISLNK(of_other.st_mode) and os.readlink(source) == os.readlink(other)
    if not stat.S_ISREG(of_other.st_mode):
        return False
    if of_source.st_ino == of_other.st_ino and of_source.st_dev == of_other.st_dev:
        return True
    if of_source.st_size != of_other.st_size or abs(of_source.st_mtime_ns - of_other.st_mtime_ns) >= COARSE_NS:
        return False
    return have_same_contents(source, other)


COARSE_NS: Final = 2_000_000_000  # FAT, the coarsest of file systems, counts every second second


def have_same_contents(first: str, second: str) -> bool:
    """True if both files hold the same bytes."""
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as two:
        while True:
            data = one.read(COPY_BYTES)
            if data != two.read(COPY_BYTES):
                return False
            if not data:
                return True


def bring(files: FileSystem, source: str, status: os.stat_result, target: str, part: str) -> None:
    """Gives the file or link at `source` the name `target` too, which is free; raises OSError.

    Where the disk has no second names it is copied by way of `part`, on the disk of `target`.
    """
    if stat.S_ISLNK(status.st_mode):
        files.symlink(os.readlink(source), target, to_folder=os.path.isdir(source))
        return
    try:
        files.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        copy(files, source, status, part)
        files.replace(part, target)


def copy(files: FileSystem, source: str, status: os.stat_result, target: str) -> None:
    """Copies a file with time, permission bits and, for root, owner; on the disk when it returns; raises OSError.

    What stood at `target` was left by a crash and goes.
    """
    if status_of(target) is not None:
        files.remove(target)
    reading = os.open(source, _READ)
    try:
        writing = files.create(target, 0o600)
        try:
            while data := os.read(reading, COPY_BYTES):
                files.write(writing, data)
            dress_copy(files, writing, target, status)
            files.flush(writing)
        finally:
            files.close(writing)
    except OSError:
        with contextlib.suppress(OSError):
            files.remove(target)
        raise
    finally:
        os.close(reading)
    if sys.platform == "win32":
        files.set_times(target, status.st_mtime_ns)


def dress_copy(files: FileSystem, descriptor: int, path: str, status: os.stat_result) -> None:
    """Gives an open copy the owner (if root), permission bits and time of `status`."""
    if sys.platform == "win32":
        return
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            files.set_owner(path, status.st_uid, status.st_gid)
    with contextlib.suppress(PermissionError):
        files.set_mode(descriptor, stat.S_IMODE(status.st_mode))
    files.set_times(descriptor, status.st_mtime_ns)


def remove_tree(files: FileSystem, path: str) -> None:
    """Removes a folder with all that is in it, or a file or link; raises OSError."""
    status = status_of(path)
    if status is None:
        return
    if is_folder(status):
        for name in os.listdir(path):
            remove_tree(files, os.path.join(path, name))
        files.remove_folder(path)
        return
    if sys.platform == "win32" and not status.st_mode & stat.S_IWRITE:
        files.set_mode(path, stat.S_IREAD | stat.S_IWRITE)
    files.remove(path)
