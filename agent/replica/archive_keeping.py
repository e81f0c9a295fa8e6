"""The writing side of the archive: batches begun, versions brought to them, all of it made durable.

Knows nothing of limits, lists or restores. A batch stays open until its round has ended; an object made after a crash
finds it and goes on with it, so that the version that was kept before the crash is kept once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.replica.archive_batch import (
    PART_FILE,
    VERSIONS_MAX,
    Batch,
    Item,
    batch_name,
    batches_in,
    item_named,
    items_of,
    version_folder,
    write_batch,
)
from agent.replica.archive_files import bring, is_same_version, remove_tree
from agent.replica.file_system import CAN_SYNC_ALL, FileSystem, below, make_folders
from agent.replica.standing import status_of

FLUSH_EACH_MAX: Final = 32  # folders; for more, one flush of the whole file system is faster
_PRIVATE: Final = 0o700


class Keeping:
    """Brings versions to the archive in `folder`, a path on disk; `now` is the wall clock in seconds."""

    def __init__(self, folder: str, now: Callable[[], float], files: FileSystem) -> None:
        self._folder = folder
        self._now = now
        self._files = files
        self._open: dict[tuple[str, str], Batch] | None = None  # by tree and reason; None: not looked for yet
        self._touched: set[str] = set()  # folders whose names are not known to be on the disk
        self._descriptor: int | None = None  # open from before the first change, to be told of every loss

    def keep(self, tree: str, path: str, source: str, reason: str) -> tuple[Item, bool]:
        """Brings the file or link at `source` here as a version of `path`; it is on the disk after `flush`.

        `source` stays where it is. Returns the item, and whether it is new. Raises OSError.
        """
        status = os.lstat(source)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            raise OSError(errno.EINVAL, "neither a file nor a link", source)
        batch = self._batch(tree, reason)
        place = below(self._folder, batch.name)
        for version in range(1, VERSIONS_MAX + 1):
            top = version_folder(tree, version)
            target = below(below(place, top), path)
            there = status_of(target)
            if there is None:
                with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                    make_folders(self._files, os.path.dirname(target), self._made)
                if not os.path.isdir(os.path.dirname(target)):  # a file was kept under the name of a folder above
                    continue
                bring(self._files, source, status, target, below(place, PART_FILE))
            elif not is_same_version(source, status, target, there):
                continue
            self._touched.add(os.path.dirname(target))
            item = item_named(self._folder, batch, top, path)
            assert item is not None
            return item, there is None
        raise OSError(errno.EEXIST, f"{VERSIONS_MAX} versions are kept already", source)

    def take_back(self, tree: str, path: str, source: str, reason: str) -> None:
        """Undoes `keep` because `source` stays in use after all: a second name would change with it."""
        status = status_of(source)
        batch = self._batches().get((tree, reason))
        if status is None or batch is None:
            return
        for version in range(1, VERSIONS_MAX + 1):
            target = below(below(below(self._folder, batch.name), version_folder(tree, version)), path)
            there = status_of(target)
            if there is None:
                return
            if is_same_version(source, status, target, there):
                self._files.remove(target)
                return

    def flush(self) -> None:
        """Returns when everything kept is on the disk; raises OSError."""
        if len(self._touched) > FLUSH_EACH_MAX and CAN_SYNC_ALL and self._descriptor is not None:
            self._files.flush_all(self._descriptor)
        else:
            for folder in sorted(self._touched):
                if os.path.isdir(folder):
                    self._files.flush_folder(folder)
        self._touched.clear()

    def close_batches(self, tree: str, reason: str | None = None) -> list[Batch]:
        """Ends the open batches of `tree` (of one reason), also those left by a crash, and returns them counted."""
        self.flush()
        ended = []
        for key in [key for key in self._batches() if key[0] == tree and reason in (None, key[1])]:
            batch = counted(self._folder, self._batches()[key])
            if batch.items:
                batch = replace(batch, open=False)
                write_batch(self._files, self._folder, batch)
                ended.append(batch)
            else:
                remove_tree(self._files, below(self._folder, batch.name))
            del self._batches()[key]
        return ended

    def close(self) -> None:
        """Lets go of the folder; open batches stay open."""
        self._open = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _batches(self) -> dict[tuple[str, str], Batch]:
        if self._open is None:
            self._open = {(batch.tree, batch.reason): batch for batch in batches_in(self._folder) if batch.open}
        return self._open

    def _batch(self, tree: str, reason: str) -> Batch:
        """Returns the open batch for this, begun if there is none."""
        known = self._batches()
        if self._descriptor is None:
            self._make_folder()
        if (tree, reason) not in known:
            known[tree, reason] = self._begin(tree, reason)
        return known[tree, reason]

    def _begin(self, tree: str, reason: str) -> Batch:
        now = self._now()
        number = 1
        while True:
            batch = Batch(batch_name(now, reason, number), tree, reason, round(now * 1000), open=True)
            try:
                self._files.make_folder(below(self._folder, batch.name), _PRIVATE)
            except FileExistsError:
                number += 1
                continue
            write_batch(self._files, self._folder, batch)
            self._touched.add(self._folder)
            return batch

    def _make_folder(self) -> None:
        make_folders(self._files, os.path.dirname(self._folder))
        if status_of(self._folder) is None:
            self._files.make_folder(self._folder, _PRIVATE)
            self._touched.add(os.path.dirname(self._folder))
        if sys.platform != "win32":
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _made(self, folder: str) -> None:
        self._touched.add(os.path.dirname(folder))


def counted(folder: str, batch: Batch) -> Batch:
    """Returns the batch with its items counted."""
    items = size = 0
    for item in items_of(folder, batch):
        items += 1
        size += item.size
    return replace(batch, items=items, size=size)
