"""Takes what a scan found into the rows of the index: merges two streams in one order, and holds neither.

A row counts as unchanged while its fingerprint is; then it keeps its digest, and also what the disk cannot hold of its
entry (permission bits on Windows, the last digits of a time). Otherwise it is `local`, has a new seq, and its contents
are unknown, unless they moved here: a file of another row, or one that was there a moment ago, with the same inode,
size and time of change is the same file under another name. That is believed only of a time with a part of a second:
what was unpacked from archives has round times, and a new version may get inode, size and time of the one before.

What is not among the found becomes a tombstone, except for what is at or below a path that could not be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.core.tree_entries import EntryKind
from agent.replica.file_tree import Fingerprint, Found, Refused
from agent.replica.index_rows import StoredRow, stored_rows
from agent.replica.index_schema import FILE, KIND_CODES, LINK, SEPARATOR, key_of, path_of

PATHS_MAX: Final = 1000
_BATCH_ROWS: Final = 500
_DISPLACED_MAX: Final = 4096
_SECOND_NS: Final = 1_000_000_000

PUT: Final = """
INSERT INTO entry(tree, key, kind, size, mtime_ns, mode, target, digest, seq, local, gone,
                  disk_size, disk_mtime_ns, inode, ctime_ns, name_on_disk)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(tree, key) DO UPDATE SET
    kind = excluded.kind, size = excluded.size, mtime_ns = excluded.mtime_ns, mode = excluded.mode,
    target = excluded.target, digest = excluded.digest, seq = excluded.seq, local = excluded.local,
    gone = excluded.gone, disk_size = excluded.disk_size, disk_mtime_ns = excluded.disk_mtime_ns,
    inode = excluded.inode, ctime_ns = excluded.ctime_ns, name_on_disk = excluded.name_on_disk
"""
BURY: Final = "UPDATE entry SET gone = 1, seq = ?, local = ? WHERE tree = ? AND key = ?"
_REFRESH: Final = (
    "UPDATE entry SET disk_size = ?, disk_mtime_ns = ?, inode = ?, ctime_ns = ?, name_on_disk = ?"
    " WHERE tree = ? AND key = ?"
)
_SAME_FILE: Final = (
    "SELECT digest FROM entry INDEXED BY entry_by_inode"
    " WHERE tree = ? AND inode = ? AND disk_size = ? AND disk_mtime_ns = ?"
    " AND digest IS NOT NULL AND kind = ? LIMIT 1"
)


@dataclass(slots=True)
class Update:
    """What a scan changed in the index; callers add up several."""

    changed: int  # entries that are new, or other than before
    gone: int  # entries that became tombstones
    paths: list[str] = field(default_factory=list)  # of both, the first PATHS_MAX
    refused: list[Refused] = field(default_factory=list)  # the first PATHS_MAX
    refused_count: int = 0


class Displaced:
    """Digests of files that gave way to others a short while ago: a log that was rotated is met again. Bounded."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, int, int], bytes] = {}

    def put(self, fingerprint: Fingerprint, digest: bytes) -> None:
        """Remembers the contents of a file whose row is being overwritten."""
        while len(self._digests) >= _DISPLACED_MAX:
            self._digests.pop(next(iter(self._digests)))
        self._digests[fingerprint.inode, fingerprint.size, fingerprint.mtime_ns] = digest

    def get(self, fingerprint: Fingerprint) -> bytes | None:
        """Returns the contents of the file with the same inode, size and time, if it is known."""
        return self._digests.get((fingerprint.inode, fingerprint.size, fingerprint.mtime_ns))


class Merging:
    """One update of a tree, within a transaction that belongs to the caller; `seq` is the last one given."""

    def __init__(self, connection: sqlite3.Connection, tree: int, seq: int, displaced: Displaced) -> None:
        self.seq = seq
        self._connection = connection
        self._tree = tree
        self._displaced = displaced
        self._changed = self._gone = self._refused_count = 0
        self._paths: list[str] = []
        self._refused: list[Refused] = []
        self._puts: list[tuple[object, ...]] = []
        self._burials: list[tuple[object, ...]] = []
        self._refreshments: list[tuple[object, ...]] = []

    def merge(self, found: Iterable[Found | Refused], under: str) -> Update:
        """Takes all of `found` into the rows at and below `under`; raises ValueError if it is not in a scan's order."""
        rows = stored_rows(self._connection, self._tree, under)
        row = next(rows, None)
        last_key = ""
        for item in found:
            if type(item) is Found:
                entry = item.entry
                key = key_of(entry.path)
                if key <= last_key and last_key:
                    raise ValueError(f"{entry.path!r} comes after {path_of(last_key)!r}: that is no scan")
                last_key = key
                while row is not None and row[0] < key:
                    self._bury(row)
                    row = next(rows, None)
                if row is None or row[0] != key:
                    self._put(item, key, self._contents_of(item, None))
                    continue
                self._compare(item, key, row)
                row = next(rows, None)
            else:
                assert isinstance(item, Refused)
                self._note(item)
                if item.unreadable:
                    row = self._pass_over(key_of(item.path), row, rows)
        while row is not None:
            self._bury(row)
            row = next(rows, None)
        self._write()
        return Update(self._changed, self._gone, self._paths, self._refused, self._refused_count)

    def _pass_over(self, key: str, row: StoredRow | None, rows: Iterator[StoredRow]) -> StoredRow | None:
        """Leaves the rows at and below `key` as they are; returns the first one after them."""
        inside = key + SEPARATOR
        while row is not None:
            if row[0] < key:
                self._bury(row)
            elif row[0] != key and not row[0].startswith(inside):
                break
            row = next(rows, None)
        return row

    def _compare(self, found: Found, key: str, row: StoredRow) -> None:
        (_, kind, _, _, mode, target, digest, _, _, gone, disk_size, disk_mtime_ns, inode, ctime_ns, name) = row
        entry, now = found.entry, found.fingerprint
        same_file = (
            now.inode == inode and now.mtime_ns == disk_mtime_ns and now.size == disk_size and now.ctime_ns == ctime_ns
        )
        kind_now = KIND_CODES[entry.kind]
        if not gone and kind_now == kind:
            if kind == FILE:
                same = same_file
            elif kind == LINK:
                same = entry.target == target
            else:
                same = True
            if same and (mode is None or entry.mode is None or mode == entry.mode):
                name_now = found.name_on_disk
                if not same_file or (name_now if name_now != entry.path else None) != name:
                    self._refresh(found, key)
                return
        if kind == FILE and digest is not None:
            self._displaced.put(Fingerprint(disk_size, disk_mtime_ns, inode, ctime_ns), digest)
        # A file that did not move, but whose attributes were touched, may have been written and given its old time.
        stayed = None if gone else inode
        self._put(found, key, self._contents_of(found, stayed))

    def _contents_of(self, found: Found, stayed: int | None) -> bytes | None:
        """Returns the digest of a file that moved here; `stayed`: the inode that stood here before, which did not."""
        now = found.fingerprint
        if found.entry.kind is not EntryKind.FILE or now.inode == stayed or now.mtime_ns % _SECOND_NS == 0:
            return None
        known = self._displaced.get(now)
        if known is not None:
            return known
        row = self._connection.execute(_SAME_FILE, (self._tree, now.inode, now.size, now.mtime_ns, FILE)).fetchone()
        digest: bytes | None = None if row is None else row[0]
        return digest

    def _put(self, found: Found, key: str, digest: bytes | None) -> None:
        entry, now, name = found.entry, found.fingerprint, found.name_on_disk
        self.seq += 1
        self._changed += 1
        if len(self._paths) < PATHS_MAX:
            self._paths.append(entry.path)
        values = (KIND_CODES[entry.kind], entry.size, entry.mtime_ns, entry.mode, entry.target, digest)
        on_disk = (now.size, now.mtime_ns, now.inode, now.ctime_ns, None if name == entry.path else name)
        self._puts.append((self._tree, key, *values, self.seq, 1, 0, *on_disk))
        if len(self._puts) >= _BATCH_ROWS:
            self._write()

    def _refresh(self, found: Found, key: str) -> None:
        now, name = found.fingerprint, found.name_on_disk
        on_disk = (now.size, now.mtime_ns, now.inode, now.ctime_ns, None if name == found.entry.path else name)
        self._refreshments.append((*on_disk, self._tree, key))
        if len(self._refreshments) >= _BATCH_ROWS:
            self._write()

    def _bury(self, row: StoredRow) -> None:
        if row[9]:
            return
        self.seq += 1
        self._gone += 1
        if len(self._paths) < PATHS_MAX:
            self._paths.append(path_of(row[0]))
        self._burials.append((self.seq, 1, self._tree, row[0]))
        if len(self._burials) >= _BATCH_ROWS:
            self._write()

    def _note(self, refused: Refused) -> None:
        self._refused_count += 1
        if len(self._refused) < PATHS_MAX:
            self._refused.append(refused)

    def _write(self) -> None:
        """Writes what is waiting: all of it lies before the row that comes next, so reading on is not disturbed."""
        for statement, rows in ((PUT, self._puts), (BURY, self._burials), (_REFRESH, self._refreshments)):
            if rows:
                self._connection.executemany(statement, rows)
                rows.clear()
