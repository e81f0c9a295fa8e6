"""Rows of the index as values, and the questions that are asked of them.

Reads only. Knows the tables, but neither the file that they are in nor how rows come to change.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from agent.core.tree_entries import Entry
from agent.replica.file_tree import Fingerprint
from agent.replica.index_schema import below, entry_from, key_of, path_of

CHUNK_ROWS: Final = 1000  # read at once, so that rows may be written between two chunks
SAME_CONTENTS_MAX: Final = 16

ROW_COLUMNS: Final = (
    "e.key, e.kind, e.size, e.mtime_ns, e.mode, e.target, e.digest, e.seq, e.local, e.gone,"
    " e.disk_size, e.disk_mtime_ns, e.inode, e.ctime_ns, e.name_on_disk"
)
ROW_COLUMN_COUNT: Final = 15
StoredRow = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What the index holds of one path."""

    entry: Entry  # if `gone`: what stood there last
    seq: int  # grows with each change of any row of the tree
    local: bool  # changed here since both nodes last had the same
    gone: bool  # a tombstone
    fingerprint: Fingerprint
    name_on_disk: str


@dataclass(frozen=True, slots=True)
class Change:
    """A row as it is told to the other node."""

    seq: int
    path: str
    entry: Entry | None  # None: gone
    local: bool


def row_from(stored: StoredRow) -> Row:
    """Returns the row that was stored with these ROW_COLUMNS."""
    key, *values, seq, local, gone, size, mtime_ns, inode, ctime_ns, name = stored
    path = path_of(key)
    fingerprint = Fingerprint(size, mtime_ns, inode, ctime_ns)
    return Row(entry_from(path, *values), seq, bool(local), bool(gone), fingerprint, path if name is None else name)


def row_of(connection: sqlite3.Connection, tree: int, path: str) -> Row | None:
    """Returns the row of a path, tombstones included."""
    stored = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM entry e WHERE e.tree = ? AND e.key = ?", (tree, key_of(path))
    ).fetchone()
    return None if stored is None else row_from(stored)


def stored_rows(connection: sqlite3.Connection, tree: int, under: str = "") -> Iterator[StoredRow]:
    """Yields the rows at and below a path in the order of keys; rows before the last one yielded may be written."""
    key = key_of(under)
    after, end = key, below(key)[1] if under else "\U0010ffff"
    comparison = ">="
    while True:
        chunk = connection.execute(
            f"SELECT {ROW_COLUMNS} FROM entry e WHERE e.tree = ? AND e.key {comparison} ? AND e.key < ?"
            " ORDER BY e.key LIMIT ?",
            (tree, after, end, CHUNK_ROWS),
        ).fetchall()
        yield from chunk
        if len(chunk) < CHUNK_ROWS:
            return
        comparison, after = ">", chunk[-1][0]


def undigested(connection: sqlite3.Connection, tree: int, limit: int, after: str | None) -> list[Row]:
    """Returns files whose contents were not read yet, in the order of keys, those after the path `after`."""
    beginning = ("", ">=") if after is None else (key_of(after), ">")
    stored = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM entry e INDEXED BY entry_undigested"
        f" WHERE e.tree = ? AND e.digest IS NULL AND e.gone = 0 AND e.kind = 0 AND e.key {beginning[1]} ?"
        " ORDER BY e.key LIMIT ?",
        (tree, beginning[0], limit),
    )
    return [row_from(each) for each in stored]


def changes_after(connection: sqlite3.Connection, tree: int, seq: int, limit: int) -> list[Change]:
    """Returns the rows above `seq`, in the order of seq."""
    stored = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM entry e INDEXED BY entry_by_seq"
        " WHERE e.tree = ? AND e.seq > ? ORDER BY e.seq LIMIT ?",
        (tree, seq, limit),
    )
    return [_change(row_from(each)) for each in stored]


def changes_of(connection: sqlite3.Connection, tree: int, paths: Iterable[str]) -> list[Change]:
    """Returns the rows of those paths that have one."""
    rows = (row_of(connection, tree, path) for path in paths)
    return [_change(row) for row in rows if row is not None]


def by_digest(connection: sqlite3.Connection, tree: int, digest: bytes) -> list[Row]:
    """Returns up to SAME_CONTENTS_MAX files with these contents."""
    stored = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM entry e INDEXED BY entry_by_digest"
        " WHERE e.tree = ? AND e.digest = ? AND e.gone = 0 LIMIT ?",
        (tree, digest, SAME_CONTENTS_MAX),
    )
    return [row_from(each) for each in stored]


def place_of(connection: sqlite3.Connection, tree: int, path: str) -> str:
    """Returns where `path` is on disk, or would be: as the rows of the path or of the folders above it spell it."""
    names = path.split("/")
    for depth in range(len(names), 0, -1):
        row = row_of(connection, tree, "/".join(names[:depth]))
        if row is not None and not row.gone:
            return "/".join([row.name_on_disk, *names[depth:]])
    return path


def _change(row: Row) -> Change:
    return Change(row.seq, row.entry.path, None if row.gone else row.entry, row.local)
