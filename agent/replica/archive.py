"""The archive of a node: what a round, a conflict or a restore would have destroyed, kept for people to browse.

Knows trees by name and paths on disk, no plans and no peers. Invariants: a version has a name here only when it is
complete; keeping the same version twice in one round gives one item, also across a crash; nothing is deleted that was
not announced a day before; restoring destroys nothing, because what stands there comes here first.

One object writes at a time. Reading (`list`, `batches`, `totals`) is safe beside it, from any process.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.replica import archive_expiry, archive_restoring
from agent.replica.archive_batch import Batch, Item, batches_in, items_of
from agent.replica.archive_expiry import Expiry
from agent.replica.archive_keeping import Keeping, counted
from agent.replica.file_system import FileSystem
from agent.replica.file_tree import system_path

__all__ = ["Archive", "Batch", "Expiry", "Item"]


class Archive:
    """The archive in `folder`, which is made when something is kept; every call blocks.

    `size_max` bytes and `age_max_s` seconds are the limits that `expire` holds, 0 is none; `now` is the wall clock in
    seconds, for names and ages.
    """

    def __init__(
        self,
        folder: Path,
        size_max: int = 0,
        age_max_s: float = 0,
        now: Callable[[], float] = time.time,
        files: FileSystem | None = None,
    ) -> None:
        self._folder = system_path(str(folder.absolute()))
        self._size_max = size_max
        self._age_max_s = age_max_s
        self._now = now
        self._files = files if files is not None else FileSystem()
        self._keeping = Keeping(self._folder, now, self._files)

    def keep(self, tree: str, path: str, source: str, reason: str) -> tuple[Item, bool]:
        """Brings the file or link at `source`, a path on disk, here as a version of `path`; `source` stays.

        It is on the disk after `flush`. Returns the item, and whether it is new: the same version kept twice before
        `close_batches` is one item. Raises OSError.
        """
        return self._keeping.keep(tree, path, source, reason)

    def take_back(self, tree: str, path: str, source: str, reason: str) -> None:
        """Undoes `keep` because `source` stays in use after all. Raises OSError."""
        self._keeping.take_back(tree, path, source, reason)

    def flush(self) -> None:
        """Returns when everything kept is on the disk; raises OSError."""
        self._keeping.flush()

    def close_batches(self, tree: str) -> tuple[Batch, ...]:
        """Ends the batches of a round and returns them; until then a new object goes on with them. Raises OSError."""
        return tuple(self._keeping.close_batches(tree))

    def close(self) -> None:
        """Lets go of the folder."""
        self._keeping.close()

    def list(
        self, tree: str | None = None, path_pattern: str | None = None, since: float | None = None
    ) -> Iterator[Item]:
        """Yields the items, newest batch first.

        `path_pattern` is a path, a folder, or has "*", "?" and "[...]", where "*" spans folders; `since` is wall clock
        in seconds.
        """
        for batch in self.batches():
            if (tree not in (None, batch.tree) and batch.tree) or (since is not None and batch.begun_ms < since * 1000):
                continue
            for item in items_of(self._folder, batch):
                if tree in (None, item.tree) and (path_pattern is None or _matches(item.path, path_pattern)):
                    yield item

    def batches(self) -> tuple[Batch, ...]:
        """Returns the batches, newest first; those of a round that goes on are `open` and not counted."""
        return tuple(sorted(batches_in(self._folder), key=lambda batch: batch.begun_ms, reverse=True))

    def restore(self, item: Item | str, to: Path, *, by_way_of: Path | None = None) -> Item | None:
        """Puts an item, or the one that a person calls so, at `to`; returns what stood there, now an item itself.

        None: nothing stood there, or the same. `by_way_of` is a folder on the disk of `to` for what is half done, if
        the folder of `to` shall not see it. Raises StateError.
        """
        found = archive_restoring.find_untrusted(self._folder, item if isinstance(item, str) else item.name)
        return archive_restoring.restore(self._files, self._folder, self._keeping, found, to, by_way_of)

    def find(self, name: str) -> Item:
        """Returns the item that a person calls `name`; raises StateError if there is none."""
        return archive_restoring.find_untrusted(self._folder, name)

    def expire(self) -> Expiry:
        """Deletes batches that were announced at least a day ago, announces those beyond a limit; raises OSError."""
        return archive_expiry.expire(self._files, self._folder, self._size_max, self._age_max_s, self._now())

    def totals(self) -> tuple[int, int]:
        """Returns how many items are here, and their bytes."""
        batches = [counted(self._folder, batch) if batch.open else batch for batch in self.batches()]
        return sum(batch.items for batch in batches), sum(batch.size for batch in batches)


def _matches(path: str, pattern: str) -> bool:
    folder = pattern.rstrip("/")
    return fnmatch.fnmatchcase(path, folder) or fnmatch.fnmatchcase(path, folder + "/*")
