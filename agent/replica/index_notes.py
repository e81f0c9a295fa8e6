"""What is noted on rows of the index without a scan: digests that were read, what both nodes have, what is told again.

Each function runs within a transaction of the caller; those that give seqs take the last one and return the new last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from agent.replica.file_tree import Fingerprint
from agent.replica.index_schema import key_of

Digested = tuple[str, Fingerprint, bytes]  # a path, under which fingerprint it was read, and its digest

_BATCH_ROWS = 500
_STILL_THERE = (
    "tree = ? AND key = ? AND gone = 0 AND disk_size = ? AND disk_mtime_ns = ? AND inode = ? AND ctime_ns = ?"
)


def note_digests(connection: sqlite3.Connection, tree: int, digests: Iterable[Digested]) -> int:
    """Notes the digest of each file whose row still has the fingerprint; returns of how many."""
    noted = 0
    for path, now, digest in digests:
        values = (digest, tree, *_place(path, now))
        noted += connection.execute(f"UPDATE entry SET digest = ? WHERE {_STILL_THERE}", values).rowcount
    return noted


def correct_digests(
    connection: sqlite3.Connection, tree: int, seq: int, digests: Iterable[Digested]
) -> tuple[int, int]:
    """The same for files that were read again; returns the last seq, and how many were other than noted before.

    Those changed in a way that no scan can see, by a write that left the times as they were, or by the disk itself.
    They count as any other change.
    """
    differing = 0
    for path, now, digest in digests:
        known = connection.execute(
            f"SELECT digest FROM entry WHERE {_STILL_THERE}", (tree, *_place(path, now))
        ).fetchone()
        if known is None or known[0] == digest:
            continue
        if known[0] is None:
            connection.execute(f"UPDATE entry SET digest = ? WHERE {_STILL_THERE}", (digest, tree, *_place(path, now)))
            continue
        seq, differing = seq + 1, differing + 1
        connection.execute(
            "UPDATE entry SET digest = ?, seq = ?, local = 1 WHERE tree = ? AND key = ?",
            (digest, seq, tree, key_of(path)),
        )
    return seq, differing


def touch(connection: sqlite3.Connection, tree: int, seq: int, paths: Iterable[str]) -> int:
    """Gives the rows of these paths a new seq each."""
    for path in paths:
        seq += 1
        connection.execute("UPDATE entry SET seq = ? WHERE tree = ? AND key = ?", (seq, tree, key_of(path)))
    return seq


def touch_local(connection: sqlite3.Connection, tree: int, seq: int, up_to: int) -> int:
    """Gives the local rows that have a seq up to `up_to` a new one each."""
    while True:
        stored = connection.execute(
            "SELECT key FROM entry INDEXED BY entry_local WHERE tree = ? AND local = 1 AND seq <= ? LIMIT ?",
            (tree, up_to, _BATCH_ROWS),
        ).fetchall()
        for (key,) in stored:
            seq += 1
            connection.execute("UPDATE entry SET seq = ? WHERE tree = ? AND key = ?", (seq, tree, key))
        if len(stored) < _BATCH_ROWS:
            return seq


def mark_common(
    connection: sqlite3.Connection, tree: int, seq: int, tombstones_kept: int, but: Iterable[str] = ()
) -> None:
    """Makes the rows up to `seq` no longer local, those at the paths `but` local, and drops the oldest tombstones, if
    there are more than allowed."""
    connection.execute(
        "UPDATE entry INDEXED BY entry_local SET local = 0 WHERE tree = ? AND local = 1 AND seq <= ?", (tree, seq)
    )
    for path in but:
        connection.execute("UPDATE entry SET local = 1 WHERE tree = ? AND key = ?", (tree, key_of(path)))
    oldest = connection.execute(
        "SELECT seq FROM entry INDEXED BY entry_gone"
        " WHERE tree = ? AND gone = 1 AND local = 0 ORDER BY seq DESC LIMIT 1 OFFSET ?",
        (tree, tombstones_kept),
    ).fetchone()
    if oldest is not None:
        connection.execute(
            "DELETE FROM entry INDEXED BY entry_gone WHERE tree = ? AND gone = 1 AND local = 0 AND seq <= ?",
            (tree, oldest[0]),
        )
        connection.execute("UPDATE tree SET feed_begins = max(feed_begins, ?) WHERE number = ?", (oldest[0], tree))


def _place(path: str, now: Fingerprint) -> tuple[str, int, int, int, int]:
    return key_of(path), now.size, now.mtime_ns, now.inode, now.ctime_ns
