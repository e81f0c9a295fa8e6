"""Puts a version from the archive back: at once or not at all, and what stands there goes to the archive first.

Takes the name of an item from people, so it is checked before it becomes a path. The version stays in the archive.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from agent.core.errors import StateError
from agent.replica.archive_batch import BATCH_FILE, PART_FILE, Item, item_named, read_batch
from agent.replica.archive_files import copy, is_same_version
from agent.replica.archive_keeping import Keeping
from agent.replica.file_system import FileSystem, below, make_folders
from agent.replica.file_tree import system_path
from agent.replica.standing import Patience, is_folder, status_of

REASON = "restore"


def find_untrusted(folder: str, name: str) -> Item:
    """Returns the item that a person calls `name`; raises StateError if there is none."""
    parts = name.replace("\\", "/").strip("/").split("/")
    batch = read_batch(folder, parts[0])
    unsafe = any(part in ("", ".", "..") or "\0" in part or ":" in part for part in parts)
    if batch is not None and len(parts) > 1 and not unsafe and parts[1] not in (BATCH_FILE, PART_FILE):
        item = item_named(folder, batch, parts[1], "/".join(parts[2:]))
        if item is not None:
            return item
    raise StateError(f'the archive holds no item "{name}"; `pair-agent archive list` shows the names of all items.')


def restore(
    files: FileSystem, folder: str, keeping: Keeping, item: Item, to: Path, by_way_of: Path | None
) -> Item | None:
    """Puts `item` at `to` and returns the item that what stood there has become, None if nothing else stood there.

    `by_way_of` is a folder on the same disk for what is half done, else the one of `to`. Raises StateError.
    """
    target = system_path(str(to.absolute()))
    source = below(below(folder, item.name.partition("/")[0]), item.name.partition("/")[2])
    try:
        return _restore(files, keeping, item, source, target, by_way_of)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StateError(f"{to} cannot be restored: {reason}. What stood there is untouched.") from error


def _restore(
    files: FileSystem, keeping: Keeping, item: Item, source: str, target: str, by_way_of: Path | None
) -> Item | None:
    of_source = os.lstat(source)
    make_folders(files, os.path.dirname(target))
    there = status_of(target)
    kept: Item | None = None
    if there is not None:
        if is_folder(there):
            raise StateError(f"a folder stands at {target}. Move it away first, or restore to another place.")
        if is_same_version(source, of_source, target, there):
            return None
        kept, _ = keeping.keep(item.tree, item.path, target, REASON)
        keeping.flush()
    way = system_path(str(by_way_of.absolute())) if by_way_of is not None else os.path.dirname(target)
    part = os.path.join(way, f".restoring-{secrets.token_hex(4)}")
    if stat.S_ISLNK(of_source.st_mode):
        files.symlink(os.readlink(source), part, to_folder=False)
    else:
        copy(files, source, of_source, part)
    try:
        Patience().call(files, target, files.replace, part, target)
    except OSError:
        files.remove(part)
        if kept is not None:
            keeping.take_back(item.tree, item.path, target, REASON)
        raise
    finally:
        keeping.close_batches(item.tree, REASON)
    files.flush_folder(os.path.dirname(target))
    return kept
