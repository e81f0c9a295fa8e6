"""A folder of a tree, open for reading: its names, what each is, and the way further down, without following links.

On Linux every step goes from an open folder to a name in it, so that nobody can put a link in the place of a folder and
lead the reader out of the tree, not even in between. For Windows, Python has no such calls: each step goes by path.
Knows nothing of which names may be replicated.
"""

from __future__ import annotations

import os
import stat
import sys
from types import TracebackType
from typing import Final

from agent.replica.file_tree import TreeRoot

_COMMON_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
OPEN_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _COMMON_FLAGS  # a FIFO does not block who opens it


class OpenFolder:
    """A folder that is being read; to be closed, or used with `with`. Every method raises OSError."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor  # -1 on Windows

    def __enter__(self) -> OpenFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    if sys.platform == "win32":

        @classmethod
        def open_root(cls, root: TreeRoot) -> OpenFolder:
            """Opens the folder that a tree is; a link to it is followed."""
            path = root.disk_path()
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise NotADirectoryError(f"{path} is no folder")
            return cls(path, -1)

        def enter(self, name: str) -> OpenFolder:
            """Opens the folder `name` in this one; what is no folder, or a link to one, is an OSError."""
            status = self.status(name)
            if not stat.S_ISDIR(status.st_mode) or is_junction(status):
                raise NotADirectoryError(f"{name} is no folder")
            return OpenFolder(os.path.join(self._path, name), -1)

        def entries(self) -> list[os.DirEntry[str]]:
            """Returns what is in the folder, in no order."""
            with os.scandir(self._path) as found:
                return list(found)

        def entry_status(self, entry: os.DirEntry[str]) -> os.stat_result:
            """Returns the lstat of an entry: asked anew, because the folder's own copy is late and has no inode."""
            return self.status(entry.name)

        def status(self, name: str) -> os.stat_result:
            """Returns the lstat of `name` in this folder."""
            return os.lstat(os.path.join(self._path, name))

        def own_status(self) -> os.stat_result:
            """Returns the stat of the folder itself."""
            return os.stat(self._path)

        def link_target(self, name: str) -> str:
            """Returns what the link `name` holds."""
            return os.readlink(os.path.join(self._path, name))

        def open_file(self, name: str) -> int:
            """Returns a descriptor for reading `name`, which is no link when it is asked."""
            if stat.S_ISLNK(self.status(name).st_mode):
                raise OSError(f"{name} is a link")
            return os.open(os.path.join(self._path, name), OPEN_FLAGS)

        def close(self) -> None:
            """Closes the folder."""

    else:

        @classmethod
        def open_root(cls, root: TreeRoot) -> OpenFolder:
            """Opens the folder that a tree is; a link to it is followed."""
            path = root.disk_path()
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | _COMMON_FLAGS))

        def enter(self, name: str) -> OpenFolder:
            """Opens the folder `name` in this one; what is no folder, or a link to one, is an OSError."""
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | _COMMON_FLAGS
            return OpenFolder(name, os.open(name, flags, dir_fd=self._descriptor))

        def entries(self) -> list[os.DirEntry[str]]:
            """Returns what is in the folder, in no order."""
            with os.scandir(self._descriptor) as found:
                return list(found)

        def entry_status(self, entry: os.DirEntry[str]) -> os.stat_result:
            """Returns the lstat of an entry."""
            return entry.stat(follow_symlinks=False)

        def status(self, name: str) -> os.stat_result:
            """Returns the lstat of `name` in this folder."""
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

        def own_status(self) -> os.stat_result:
            """Returns the stat of the folder itself."""
            return os.fstat(self._descriptor)

        def link_target(self, name: str) -> str:
            """Returns what the link `name` holds."""
            return os.readlink(name, dir_fd=self._descriptor)

        def open_file(self, name: str) -> int:
            """Returns a descriptor for reading `name`, which is no link; a FIFO does not block it."""
            return os.open(name, OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=self._descriptor)

        def close(self) -> None:
            """Closes the folder."""
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


def is_junction(status: os.stat_result) -> bool:
    """Tells whether an lstat is of one of Windows' junctions: folders that lead elsewhere, and say they are folders."""
    if sys.platform != "win32":
        return False
    return status.st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT


def open_within(root: TreeRoot, name_on_disk: str) -> int:
    """Returns a descriptor for reading a file of a tree; no link below the root is followed. Raises OSError."""
    if not name_on_disk:
        return os.open(root.disk_path(), OPEN_FLAGS | getattr(os, "O_NOFOLLOW", 0))
    *folders, name = name_on_disk.split("/")
    folder = OpenFolder.open_root(root)
    try:
        for each in folders:
            inner = folder.enter(each)
            folder.close()
            folder = inner
        return folder.open_file(name)
    finally:
        folder.close()
