"""What stands on the disk where a step will act: looked at without following links, and cleared of what bars the way.

Knows one tree's root and no steps. Invariant: nothing outside of the root is looked at or touched, whatever links
somebody put into the tree: a path counts as absent unless every folder above it is a real one.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Final

from agent.replica.file_system import FileSystem, below
from agent.replica.file_tree import TreeRoot

PATIENCE_SECONDS: Final = 5.0  # for all locked files of one round together
PAUSE_SECONDS: Final = 0.02  # doubled after each attempt, up to PAUSE_SECONDS_MAX
PAUSE_SECONDS_MAX: Final = 0.5
FOLDERS_REMEMBERED_MAX: Final = 20_000

# What says something of one path; all else says that the disk is in trouble, and stops the round.
_OF_ONE_PATH: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP),
        *(errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EOPNOTSUPP, errno.EMLINK),
    }
)


def is_of_one_path(error: OSError) -> bool:
    """True if the failure concerns the path alone (locked, forbidden, name refused), not the disk."""
    return error.errno in _OF_ONE_PATH


def status_of(path: str) -> os.stat_result | None:
    """Returns the lstat of `path`, None if nothing is there."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_folder(status: os.stat_result) -> bool:
    """True for a real folder, not for a link or a Windows junction."""
    if sys.platform == "win32" and status.st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT:
        return False
    return stat.S_ISDIR(status.st_mode)


def has_contents(status: os.stat_result) -> bool:
    """True for a file or a link, which can be archived; pipes, sockets and devices hold nothing of their own."""
    return stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)


class Patience:
    """Repeats calls that fail because somebody has a file open, which on Windows bars its removal and replacement.

    Virus scanners, indexers and backups do so for a moment. Bounded for all calls together, so that a workload that
    keeps a thousand files open delays a round by seconds. Elsewhere no call fails for such a reason.
    """

    def __init__(self, seconds: float = PATIENCE_SECONDS, sleep: Callable[[float], None] = time.sleep) -> None:
        self._left = seconds
        self._sleep = sleep

    def call(self, files: FileSystem, path: str, action: Callable[..., None], *arguments: str) -> None:
        """Calls `action`, which replaces or removes `path`, until it succeeds or patience ends; raises OSError."""
        if sys.platform != "win32":
            action(*arguments)
            return
        pause = PAUSE_SECONDS
        cleared = False
        while True:
            try:
                action(*arguments)
                return
            except PermissionError:
                if not cleared and _is_read_only(path):
                    cleared = True
                    files.set_mode(path, stat.S_IREAD | stat.S_IWRITE)
                    continue
                if self._left <= 0:
                    raise
            self._sleep(pause)
            self._left -= pause
            pause = min(2 * pause, PAUSE_SECONDS_MAX)


def _is_read_only(path: str) -> bool:
    try:
        return not os.lstat(path).st_mode & stat.S_IWRITE
    except OSError:
        return False


class Standing:
    """The root of a tree as it is now; for one thread at a time."""

    def __init__(self, root: TreeRoot) -> None:
        self.base: Final = root.disk_path()
        self._real: set[str] = set()  # folders, relative to the root, that were seen to be real ones
        self._listed: str | None = None  # the folder that `_names` was read from
        self._names: frozenset[str] = frozenset()

    def path(self, place: str) -> str:
        """Returns the path on disk of `place`, relative to the root with "/"; "" is the root itself."""
        return below(self.base, place)

    def status(self, place: str) -> os.stat_result | None:
        """Returns the lstat of what stands at `place`; None if nothing does, or a link or file is above it."""
        folder = place.rpartition("/")[0]
        if folder and folder not in self._real and not self.is_real_folder(folder):
            return None
        return status_of(below(self.base, place))

    def is_real_folder(self, place: str) -> bool:
        """True if `place` and everything above it within the root is a real folder."""
        if not place or place in self._real:
            return True
        if not self.is_real_folder(place.rpartition("/")[0]):
            return False
        status = status_of(below(self.base, place))
        if status is None or not is_folder(status):
            return False
        if len(self._real) >= FOLDERS_REMEMBERED_MAX:
            self._real.clear()
        self._real.add(place)
        return True

    def forget(self) -> None:
        """Forgets which folders were seen: some may have been removed or replaced since."""
        self._real.clear()
        self._listed = None

    def is_spelled_so(self, place: str) -> bool:
        """False if what stands at `place` is spelled otherwise, on a disk that does not tell upper from lower case."""
        if sys.platform != "win32" or not place:
            return True
        folder, _, name = place.rpartition("/")
        if self._listed != folder:
            self._listed, self._names = folder, frozenset(os.listdir(below(self.base, folder)))
        return name in self._names
