"""Staging: where contents are gathered, verified and made durable before a round touches the tree.

Files lie in `.pair-agent/staging-TREE` inside of the root (beside a single file): on the same file system, so that
putting one in place is a rename. Knows nothing of rounds, steps or the wire. Invariants: `finish` names only files
whose digest was verified; what survives `flush` is on the disk; what a failed flush leaves in doubt is thrown away,
never flushed again, because the kernel may hold lost pages for clean after the failure.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Collection
from typing import Final

import blake3

from agent.core.tree_names import RESERVED_FOLDER
from agent.replica.file_system import CAN_SYNC_ALL, FileSystem, below, make_folders
from agent.replica.file_tree import TreeRoot
from agent.replica.staged_file import READ_BYTES, ContentsDiffer, StagedFile

__all__ = ["ContentsDiffer", "StagedFile", "Staging"]

FLUSH_EACH_MAX: Final = 32  # files; for more, one flush of the whole file system is faster
_PRIVATE: Final = 0o700  # what is staged may be a secret whose permission bits it gets only at the end


class Staging:
    """The staging folder of one tree; for one thread at a time."""

    def __init__(self, root: TreeRoot, files: FileSystem | None = None) -> None:
        self._files = files if files is not None else FileSystem()
        path = root.disk_path()
        self._base = os.path.dirname(path) if root.single_file else path
        self._reserved = below(self._base, RESERVED_FOLDER)
        self.folder: Final = below(self._reserved, f"staging-{root.name}")
        self._names = secrets.token_hex(4)  # of this object's files: none of them was there before
        self._count = 0
        # Open from before the first write until after the flush: a flush reports what got lost since the opening.
        self._descriptor: int | None = None
        self._ready = False

    def open(self, size_hint: int = 0) -> StagedFile:
        """Begins a new file of about `size_hint` bytes; makes the folder, and the tree's root, if they are missing."""
        self.make_folder()
        self._count += 1
        name = f"{self._names}-{self._count:x}"
        path = self.path(name)
        return StagedFile(self._files, name, path, self._files.create(path), size_hint)

    def link(self, target: str) -> str:
        """Makes a symbolic link that leads to `target`, with "/" between names, and returns its name."""
        self.make_folder()
        self._count += 1
        name = f"{self._names}-{self._count:x}"
        text = target.replace("/", "\\") if sys.platform == "win32" else target
        self._files.symlink(text, self.path(name), to_folder=False)
        return name

    def resume(self, name: str) -> StagedFile | None:
        """Goes on with a file that was left unfinished; its `size` says from where. None if it is gone.

        Whether what is there is good shows at `finish`: all of it is read and hashed again.
        """
        self.make_folder()
        path = self.path(name)
        try:
            descriptor = self._files.open(path)
        except FileNotFoundError:
            return None
        file = StagedFile(self._files, name, path, descriptor)
        try:
            file.read_again()
        except OSError:
            file.abandon()
            raise
        return file

    def path(self, name: str) -> str:
        """Returns the path on disk of a staged file."""
        return below(self.folder, name)

    def holds(self, name: str, digest: bytes) -> bool:
        """True if the staged file `name` is there and its contents, read again, have this digest."""
        hasher = blake3.blake3()
        try:
            with open(self.path(name), "rb", buffering=0) as file:
                while data := file.read(READ_BYTES):
                    hasher.update(data)
        except OSError:
            return False
        return hasher.digest() == digest

    def flush(self, names: Collection[str]) -> None:
        """Returns when these files and their names are on the disk.

        Raises OSError when that failed: the files in doubt are thrown away then, and must be staged anew.
        """
        if not names:
            return
        if len(names) > FLUSH_EACH_MAX and CAN_SYNC_ALL and self._descriptor is not None:
            self._flush_all(self._descriptor, names)
            return
        failure: OSError | None = None
        for name in names:
            try:
                self._flush_one(self.path(name))
            except OSError as error:
                self.discard(name)
                failure = failure or error
        if failure is not None:
            raise failure
        for folder in (self.folder, self._reserved, self._base):
            self._files.flush_folder(folder)

    def _flush_all(self, descriptor: int, names: Collection[str]) -> None:
        try:
            self._files.flush_all(descriptor)
        except OSError:
            for name in names:
                self.discard(name)
            raise

    def _flush_one(self, path: str) -> None:
        if os.path.islink(path):
            return  # it is a name and no more: flushed with the folder
        descriptor = self._files.open(path)
        try:
            self._files.flush(descriptor)
        finally:
            self._files.close(descriptor)

    def discard(self, name: str) -> None:
        """Throws one staged file away, if it is there and lets itself be removed."""
        with contextlib.suppress(OSError):
            self._files.remove(self.path(name))

    def clean(self, keep: Collection[str] = ()) -> None:
        """Removes every staged file but `keep`, and the folder itself when nothing is left in it.

        What does not let itself be removed now, because a scanner for viruses has it open, waits for the next time.
        """
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        for name in names:
            if name not in keep:
                self.discard(name)
        self.close()
        for folder in (self.folder, self._reserved):
            with contextlib.suppress(OSError):
                self._files.remove_folder(folder)

    def free_bytes(self) -> int:
        """Returns how many bytes may still be written to the file system of the tree; raises OSError."""
        folder = self._base
        while not os.path.isdir(folder) and (parent := os.path.dirname(folder)) != folder:
            folder = parent
        return shutil.disk_usage(folder).free

    def make_folder(self) -> None:
        """Makes the staging folder unless it is there; raises OSError, also if something else stands in its place."""
        if self._ready:
            return
        make_folders(self._files, self._base)
        for folder in (self._reserved, self.folder):
            with contextlib.suppress(FileExistsError):
                self._files.make_folder(folder, _PRIVATE if folder == self.folder else 0o755)
            # A link here would lead the contents astray.
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
        if sys.platform != "win32" and self._descriptor is None:
            self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._ready = True

    def close(self) -> None:
        """Lets go of the folder; staged files stay."""
        self._ready = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
