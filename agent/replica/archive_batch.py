"""A batch of the archive: one folder with everything that one round or restore brought there for one reason.

    <UTC time>-<reason>-<n>/
      batch.json      what this batch is; `open` until its round has ended, so that a crash goes on with the same one
      <tree>/<path>   the versions, each under the path that it had in its tree
      <tree>~2/<path> where that name was taken: a second version, or a name that this disk cannot tell from another

A tree that is a single file lies there as <tree> itself. The folder is the truth: what it holds is read from it, and
batch.json adds what a folder cannot say. Names of trees hold no "~".
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Final

from agent.core.tree_entries import EntryKind
from agent.replica.file_system import FileSystem, below
from agent.replica.standing import is_folder, status_of

BATCH_FILE: Final = "batch.json"
PART_FILE: Final = "batch.part"  # what is being written; left by a crash, it means nothing
VERSIONS_MAX: Final = 1000  # of one path in one batch
_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d\.\d{3})Z-(.+)-(\d+)")
_TIME: Final = "%Y-%m-%dT%H.%M.%S.%f"
_SLUG_MAX: Final = 40
_JSON_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One version in the archive."""

    name: str  # "BATCH/TREE/PATH": its path below the archive's folder, with "/"; what a person types to restore it
    tree: str
    path: str  # in the tree
    kind: EntryKind  # FILE or LINK
    size: int  # bytes
    mtime_ns: int  # of the file, since 1970
    archived_ms: int  # wall clock, since 1970
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of a batch as a whole."""

    name: str  # of its folder
    tree: str
    reason: str
    begun_ms: int  # wall clock, since 1970
    open: bool = False
    items: int = 0  # of an open batch not counted yet
    size: int = 0  # bytes
    delete_after_ms: int | None = None  # wall clock; announced for deletion


def slug(reason: str) -> str:
    """Returns `reason` as a part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-")[:_SLUG_MAX].strip("-") or "kept"


def batch_name(now_s: float, reason: str, number: int) -> str:
    """Returns the name of a batch that begins now."""
    return f"{datetime.fromtimestamp(now_s, UTC).strftime(_TIME)[:-3]}Z-{slug(reason)}-{number}"


def read_batch(folder: str, name: str) -> Batch | None:
    """Returns the batch in `folder`/`name`, from its name alone where batch.json is missing; None if it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        begun_ms = round(datetime.strptime(match[1] + "000+0000", _TIME + "%z").timestamp() * 1000)
    except ValueError:
        return None
    plain = Batch(name, "", match[2], begun_ms)
    try:
        with open(below(below(folder, name), BATCH_FILE), "rb") as file:
            found = json.loads(file.read(_JSON_BYTES_MAX))
        return replace(plain, **{key: found[key] for key in _KEPT if isinstance(found[key], _KEPT[key])})
    except (OSError, ValueError, KeyError, TypeError):
        return plain


_KEPT: Final[dict[str, type | tuple[type, ...]]] = {
    "tree": str,
    "reason": str,
    "open": bool,
    "items": int,
    "size": int,
    "delete_after_ms": (int, type(None)),
}


def batches_in(folder: str) -> Iterator[Batch]:
    """Yields the batches of the archive in `folder`, in no order."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        batch = read_batch(folder, name)
        if batch is not None:
            yield batch


def write_batch(files: FileSystem, folder: str, batch: Batch) -> None:
    """Writes batch.json, whole or not at all, and returns when it is on the disk; raises OSError."""
    place = below(folder, batch.name)
    part = below(place, PART_FILE)
    if status_of(part) is not None:
        files.remove(part)
    text = json.dumps({"begun": batch_name(batch.begun_ms / 1000, "", 0)[:24], **asdict(batch)}, indent=1)
    descriptor = files.create(part, 0o600)
    try:
        files.write(descriptor, text.encode() + b"\n")
        files.flush(descriptor)
    finally:
        files.close(descriptor)
    files.replace(part, below(place, BATCH_FILE))
    files.flush_folder(place)


def version_folder(tree: str, version: int) -> str:
    """Returns the name of the folder in a batch that holds the given version, the first being 1, of each path."""
    return tree if version == 1 else f"{tree}~{version}"


def tree_of(version_folder_name: str) -> str:
    """Returns the tree that a folder in a batch belongs to."""
    return version_folder_name.partition("~")[0]


def items_of(folder: str, batch: Batch) -> Iterator[Item]:
    """Yields every file and link of a batch, sorted by path within each version folder; empty folders are none."""
    place = below(folder, batch.name)
    try:
        tops = sorted(os.listdir(place))
    except FileNotFoundError:  # deleted by another process meanwhile
        return
    for top in tops:
        if top not in (BATCH_FILE, PART_FILE):
            for path, status in _walk(below(place, top), ""):
                yield _item(batch, top, path, status)


def _item(batch: Batch, top: str, path: str, status: os.stat_result) -> Item:
    return Item(
        name=f"{batch.name}/{top}/{path}" if path else f"{batch.name}/{top}",
        tree=tree_of(top),
        path=path,
        kind=EntryKind.LINK if stat.S_ISLNK(status.st_mode) else EntryKind.FILE,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        archived_ms=batch.begun_ms,
        reason=batch.reason,
    )


def item_named(folder: str, batch: Batch, top: str, path: str) -> Item | None:
    """Returns one item by the folder of its version and its path; None if it is not there."""
    status = status_of(below(below(below(folder, batch.name), top), path))
    return None if status is None or is_folder(status) else _item(batch, top, path, status)


def _walk(path: str, relative: str) -> Iterator[tuple[str, os.stat_result]]:
    status = status_of(path)
    if status is None:
        return
    if not is_folder(status):
        yield relative, status
        return
    for name in sorted(os.listdir(path)):
        yield from _walk(below(path, name), f"{relative}/{name}" if relative else name)
