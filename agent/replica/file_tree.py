"""A tree as it stands on a disk: its root, what a scan finds in it, and by what a change of a file is recognized.

Values only, and the few rules that every module of this room must share: how a path within a tree becomes a path of
this system, and what of a `stat` counts. Knows nothing of indexes, peers or contents.

A path within a tree (`Entry.path`) is NFC with "/"; `name_on_disk` is the same path as the disk spells it, with the
system's own characters but still with "/" between the names, because a disk may hold another Unicode form.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final, NamedTuple

from agent.config.model import Tree, TreeKind
from agent.core.errors import TreeError
from agent.core.tree_entries import Entry

FOLDER_MODE_BITS: Final = 0o3777  # with set-group-id and sticky, which mean something for a folder
FILE_MODE_BITS: Final = 0o777  # never set-user-id: no right of a user travels to another node
_INTEGER_MAX: Final = 2**63 - 1  # of what the index stores


@dataclass(frozen=True)
class TreeRoot:
    """Where a tree stands on this node."""

    name: str
    kind: TreeKind
    path: Path  # absolute; of a single file, the file itself
    exclude: tuple[str, ...]  # gitignore patterns
    single_file: bool

    def disk_path(self, name_on_disk: str = "") -> str:
        """Returns how the system names what stands at `name_on_disk`, however long that is on Windows."""
        path = str(self.path)
        if name_on_disk:
            path = os.path.join(path, name_on_disk.replace("/", os.sep))
        return system_path(path)


class Fingerprint(NamedTuple):
    """What changes when the contents of a file do; of a folder only `inode` counts, the rest is 0.

    A named tuple, as Found is, because scans make hundreds of thousands of them.
    """

    size: int  # bytes
    mtime_ns: int
    inode: int
    ctime_ns: int  # 0 on Windows, which tells the time of creation instead


class Found(NamedTuple):
    """One entry that a scan found; `entry.digest` is empty, because a scan reads no contents."""

    entry: Entry
    fingerprint: Fingerprint
    name_on_disk: str


@dataclass(frozen=True, slots=True)
class Refused:
    """What stands in a tree and cannot be replicated, or could not be looked at.

    `unreadable`: what is there is not known (no permission, an I/O error, moved while it was being read). Then nothing
    at or below `path` may be taken for deleted. Otherwise it is known, and is no part of the replicated tree.
    """

    path: str  # as far as it can be told; may hold surrogates for bytes that are not UTF-8
    reason: str  # a sentence without the path
    unreadable: bool = False


def tree_root(tree: Tree, *, single_file_if_absent: bool = False) -> TreeRoot:
    """Returns the root of a configured tree: a file or a folder, as what stands there is, else as told.

    A single file that is reached through a symbolic link stands for itself, because it is going to be replaced as a
    whole. Raises TreeError if something else than a file or folder stands there, or it cannot be looked at.
    """
    path = Path(os.path.abspath(tree.path))
    try:
        mode = os.stat(system_path(str(path))).st_mode
    except FileNotFoundError:
        return TreeRoot(tree.name, tree.kind, path, tree.exclude, single_file_if_absent)
    except OSError as error:
        raise TreeError(f'tree "{tree.name}": {path} cannot be looked at: {error.strerror}.') from error
    if S_ISDIR(mode):
        return TreeRoot(tree.name, tree.kind, path, tree.exclude, single_file=False)
    if S_ISREG(mode):
        if path.is_symlink():
            path = Path(os.path.realpath(path))
        return TreeRoot(tree.name, tree.kind, path, tree.exclude, single_file=True)
    raise TreeError(f'tree "{tree.name}": {path} is neither a file nor a folder. A tree is one of the two.')


if sys.platform == "win32":
    _LONG = "\\\\?\\"

    def system_path(path: str) -> str:
        r"""Returns the absolute `path` as Windows takes it at any length and with any name: after \\?\."""
        if path.startswith(_LONG):
            return path
        path = os.path.normpath(path)  # Windows takes what follows the prefix literally
        return _LONG + "UNC" + path[1:] if path.startswith("\\\\") else _LONG + path

else:

    def system_path(path: str) -> str:
        """Returns `path`: only Windows needs another."""
        return path


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """Returns the fingerprint of what an lstat or fstat tells of; the same from both, so that `==` compares them."""
    if S_ISDIR(status.st_mode):  # its size and times change with what lies in it
        return Fingerprint(0, 0, status.st_ino & _INTEGER_MAX, 0)
    mtime_ns, ctime_ns = status.st_mtime_ns, 0 if sys.platform == "win32" else status.st_ctime_ns
    if mtime_ns > _INTEGER_MAX or ctime_ns > _INTEGER_MAX:  # some file systems know of later years than 2262
        mtime_ns, ctime_ns = min(mtime_ns, _INTEGER_MAX), min(ctime_ns, _INTEGER_MAX)
    return Fingerprint(status.st_size, mtime_ns, status.st_ino & _INTEGER_MAX, ctime_ns)
