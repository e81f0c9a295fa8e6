"""When batches leave the archive: too old or too much, and never without having been announced a day before.

So nothing vanishes before somebody could have seen it, even where that lets the archive exceed its size for a day. A
wall clock that jumps ahead only announces; set right again, the announcement is withdrawn.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import Final

from agent.replica.archive_batch import Batch, batches_in, write_batch
from agent.replica.archive_files import remove_tree
from agent.replica.archive_keeping import counted
from agent.replica.file_system import FileSystem, below

ANNOUNCED_MS_MIN: Final = 24 * 3_600_000  # between announcement and deletion
_DELETING: Final = ".deleting-"


@dataclass(frozen=True, slots=True)
class Expiry:
    """What an expiry did; both are to be told to the operator."""

    announced: tuple[Batch, ...]  # now: each goes with the first expiry after its `delete_after_ms`
    deleted: tuple[Batch, ...]


def expire(files: FileSystem, folder: str, size_max: int, age_max_s: float, now_s: float) -> Expiry:
    """Deletes the batches whose time has come and announces those that are next; limits of 0 are none.

    Raises OSError.
    """
    _finish_deleting(files, folder)
    now_ms = round(now_s * 1000)
    batches = sorted((batch for batch in batches_in(folder) if not batch.open), key=lambda batch: batch.begun_ms)
    batches = [batch if batch.items else counted(folder, batch) for batch in batches]
    doomed = _doomed(batches, size_max, age_max_s, now_ms)
    announced: list[Batch] = []
    deleted: list[Batch] = []
    for batch in batches:
        due_ms = batch.delete_after_ms
        if batch.name not in doomed:
            if due_ms is not None:
                write_batch(files, folder, replace(batch, delete_after_ms=None))
        elif due_ms is None and batch.items:
            announcement = replace(batch, delete_after_ms=now_ms + ANNOUNCED_MS_MIN)
            write_batch(files, folder, announcement)
            announced.append(announcement)
        elif due_ms is None or now_ms >= due_ms:
            # Renamed first: a crash in the middle leaves nothing that looks like a batch.
            files.replace(below(folder, batch.name), below(folder, _DELETING + batch.name))
            deleted.append(batch)
    _finish_deleting(files, folder)
    return Expiry(tuple(announced), tuple(batch for batch in deleted if batch.items))


def _doomed(batches: list[Batch], size_max: int, age_max_s: float, now_ms: int) -> set[str]:
    """Returns the names of those that exceed a limit: the old ones, then the oldest until the rest fits."""
    empty = {batch.name for batch in batches if not batch.items}  # left by a crash between folder and first version
    old = {batch.name for batch in batches if age_max_s > 0 and now_ms - batch.begun_ms > age_max_s * 1000}
    total = sum(batch.size for batch in batches if batch.name not in old)
    excess = set()
    for batch in batches:
        if 0 < size_max < total and batch.name not in old:
            excess.add(batch.name)
            total -= batch.size
    return empty | old | excess


def _finish_deleting(files: FileSystem, folder: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.startswith(_DELETING):
                remove_tree(files, below(folder, name))
