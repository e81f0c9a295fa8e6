"""The round that a sink is receiving, in the index: what the source has, what follows from it, the journal, its end.

Each function runs within a transaction or a guard of the caller. Knows the tables and the rules of `core.tree_plan`, no
disk. Promise: the rows say at each moment either what stood before the round or what stands after it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import islice
from typing import Any, Final

from agent.core.tree_plan import NOWHERE, Around, Decision, Deed, Have, PlanMode, Want, decide
from agent.replica.file_tree import Fingerprint
from agent.replica.index_rows import CHUNK_ROWS, ROW_COLUMN_COUNT, ROW_COLUMNS, Row, row_from
from agent.replica.index_schema import (
    FILE,
    FOLDER,
    KIND_CODES,
    SEPARATOR,
    below,
    entry_from,
    entry_values,
    key_of,
    pack_step,
    path_of,
    unpack_step,
)
from agent.replica.index_update import BURY, PUT
from agent.replica.steps import Applied, Step

_BATCH_ROWS: Final = 500
_NO_FINGERPRINT: Final = Fingerprint(0, 0, 0, 0)  # of no file: the next scan finds a change

_WANT_COLUMNS: Final = "i.key, i.kind, i.size, i.mtime_ns, i.mode, i.target, i.digest, i.changed"
_WANT_COLUMN_COUNT: Final = 8
_TOLD: Final = (
    f"SELECT {_WANT_COLUMNS}, {ROW_COLUMNS} FROM incoming i"
    " LEFT JOIN entry e ON e.tree = i.tree AND e.key = i.key"
    " WHERE i.tree = ? AND i.key {after} ? ORDER BY i.key LIMIT ?"
)
_UNTOLD: Final = (
    f"SELECT {', '.join(['NULL'] * _WANT_COLUMN_COUNT)}, {ROW_COLUMNS} FROM entry e"
    " WHERE e.tree = ? AND e.key {after} ? AND (e.gone = 0 OR e.local = 1)"
    " AND NOT EXISTS (SELECT 1 FROM incoming i WHERE i.tree = e.tree AND i.key = e.key)"
    " ORDER BY e.key LIMIT ?"
)
_ADD: Final = """
INSERT INTO incoming(tree, key, kind, size, mtime_ns, mode, target, digest, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(tree, key) DO UPDATE SET
    kind = excluded.kind, size = excluded.size, mtime_ns = excluded.mtime_ns, mode = excluded.mode,
    target = excluded.target, digest = excluded.digest, changed = excluded.changed, outcome = 0, own_seq = NULL
"""
_DECIDE: Final = """
INSERT INTO incoming(tree, key, size, mtime_ns, target, changed, outcome, own_seq) VALUES (?, ?, 0, 0, '', 1, ?, ?)
ON CONFLICT(tree, key) DO UPDATE SET outcome = excluded.outcome, own_seq = excluded.own_seq
"""


class _Outcome(IntEnum):
    """What becomes of a row without any step."""

    NONE = 0
    COMMON = 1  # no longer local
    LOCAL = 2  # from now on local; if there is none, one of a removed entry


_OUTCOMES: Final = {Deed.ADOPT: _Outcome.COMMON, Deed.KEEP: _Outcome.LOCAL, Deed.CONFLICT: _Outcome.LOCAL}


def add_incoming(connection: sqlite3.Connection, tree: int, wants: Iterable[Want]) -> None:
    """Notes what the source has; the last word on a path counts."""
    nothing = (None, 0, 0, None, "", None)
    connection.executemany(
        _ADD,
        (
            (tree, key_of(want.path), *(nothing if want.entry is None else entry_values(want.entry)), want.changed)
            for want in wants
        ),
    )


class Plan:
    """Decides path by path, in chunks, so that the index may be used in between."""

    def __init__(self, connection: sqlite3.Connection, tree: int, mode: PlanMode) -> None:
        self._connection = connection
        self._tree = tree
        self._mode = mode
        self._local_above: dict[str, bool] = {}  # of the folders above the last path

    def chunks(self, *, whole: bool) -> Iterator[list[tuple[Want, Row | None, Decision]]]:
        """Yields what is to be done, leaving out NOTHING and ADOPT; notes what needs no step to become true.

        The caller wraps each advance into a transaction.
        """
        for query in (_TOLD, _UNTOLD) if whole else (_TOLD,):
            after, key = ">=", ""
            while True:
                stored = self._connection.execute(query.format(after=after), (self._tree, key, CHUNK_ROWS)).fetchall()
                if stored:
                    yield self._decided(stored)
                if len(stored) < CHUNK_ROWS:
                    break
                last = stored[-1]
                after, key = ">", last[_WANT_COLUMN_COUNT] if last[0] is None else last[0]

    def _decided(self, stored: list[tuple[Any, ...]]) -> list[tuple[Want, Row | None, Decision]]:
        deeds: list[tuple[Want, Row | None, Decision]] = []
        outcomes: list[tuple[object, ...]] = []
        for columns in stored:
            own = columns[_WANT_COLUMN_COUNT : _WANT_COLUMN_COUNT + ROW_COLUMN_COUNT]
            row = None if own[0] is None else row_from(own)
            want = _want_from(columns[:_WANT_COLUMN_COUNT], row)
            have = None if row is None else Have(None if row.gone else row.entry, row.local)
            decision = decide(have, want, self._mode, self._around(key_of(want.path)))
            outcome = _OUTCOMES.get(decision.deed)
            if outcome is not None:
                outcomes.append((self._tree, key_of(want.path), outcome, None if row is None else row.seq))
            if decision.deed not in (Deed.NOTHING, Deed.ADOPT):
                deeds.append((want, None if row is None or row.gone else row, decision))
        self._connection.executemany(_DECIDE, outcomes)
        return deeds

    def _around(self, key: str) -> Around:
        if self._mode is not PlanMode.MERGE:
            return NOWHERE
        names = key.split(SEPARATOR)
        above = [SEPARATOR.join(names[:depth]) for depth in range(1, len(names))]
        self._local_above = {
            folder: known if (known := self._local_above.get(folder)) is not None else self._is_local_non_folder(folder)
            for folder in above
        }
        within = self._connection.execute(
            "SELECT 1 FROM entry INDEXED BY entry_local"
            " WHERE tree = ? AND local = 1 AND gone = 0 AND key > ? AND key < ? LIMIT 1",
            (self._tree, *below(key)),
        ).fetchone()
        return Around(local_above=any(self._local_above.values()), local_below=within is not None)

    def _is_local_non_folder(self, key: str) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM entry WHERE tree = ? AND key = ? AND local = 1 AND gone = 0 AND kind <> ?",
            (self._tree, key, FOLDER),
        )
        return found.fetchone() is not None


def _want_from(columns: tuple[Any, ...], row: Row | None) -> Want:
    key, kind, *values, changed = columns
    if key is None:  # not told: gone at the source, when and by whom is unknown
        assert row is not None
        return Want(row.entry.path, None, changed=True)
    path = path_of(key)
    return Want(path, None if kind is None else entry_from(path, kind, *values), bool(changed))


def add_steps(connection: sqlite3.Connection, tree: int, steps: Iterable[Step]) -> None:
    """Appends steps to the journal, and notes the staged files that they use."""
    (last,) = connection.execute("SELECT max(number) FROM step WHERE tree = ?", (tree,)).fetchone()
    for number, step in enumerate(steps, start=1 + (last or 0)):
        connection.execute("INSERT INTO step(tree, number, step) VALUES (?, ?, ?)", (tree, number, pack_step(step)))
        if step.staged and step.entry is not None and step.entry.digest:
            note_staged(connection, tree, step.staged, step.entry.digest)


def note_staged(connection: sqlite3.Connection, tree: int, name: str, digest: bytes) -> None:
    """Notes that the staged file `name` is to hold these contents."""
    connection.execute("INSERT OR REPLACE INTO staged(tree, name, digest) VALUES (?, ?, ?)", (tree, name, digest))


def steps_after(connection: sqlite3.Connection, tree: int, number: int) -> list[tuple[int, Step]]:
    """Returns the next steps, each with its number, in the order in which they were added."""
    stored = connection.execute(
        "SELECT number, step FROM step WHERE tree = ? AND number > ? ORDER BY number LIMIT ?",
        (tree, number, _BATCH_ROWS),
    )
    return [(number, unpack_step(step)) for number, step in stored.fetchall()]


def incoming_totals(connection: sqlite3.Connection, tree: int) -> tuple[int, int]:
    """Returns how many of the told files have contents that do not stand at their path yet, and their bytes."""
    files, size = connection.execute(
        "SELECT count(*), coalesce(sum(i.size), 0) FROM incoming i"
        " LEFT JOIN entry e ON e.tree = i.tree AND e.key = i.key AND e.gone = 0 AND e.kind = i.kind"
        " WHERE i.tree = ? AND i.kind = ? AND (e.key IS NULL OR e.size <> i.size OR e.digest IS NULL"
        " OR (i.digest IS NOT NULL AND e.digest <> i.digest) OR (i.digest IS NULL AND e.mtime_ns <> i.mtime_ns))",
        (tree, FILE),
    ).fetchone()
    return int(files), int(size)


def finish(connection: sqlite3.Connection, tree: int, seq: int, results: Iterable[Applied]) -> int:
    """Takes the outcome of a round into the rows, results over what needed no step; returns the last seq given."""
    connection.execute(
        "UPDATE entry SET local = 0 FROM incoming i WHERE entry.tree = ? AND entry.local = 1"
        " AND i.tree = entry.tree AND i.key = entry.key AND i.outcome = ? AND i.own_seq = entry.seq",
        (tree, _Outcome.COMMON),
    )
    seq = _make_local(connection, tree, seq)
    results = iter(results)
    while batch := list(islice(results, _BATCH_ROWS)):
        for applied in batch:
            seq = _take_over(connection, tree, seq, applied)
    return seq


def _make_local(connection: sqlite3.Connection, tree: int, seq: int) -> int:
    """Makes local what stays although the source has it otherwise, so that the source is told when the roles turn."""
    key = ""
    while True:
        stored = connection.execute(
            "SELECT i.key, e.key FROM incoming i LEFT JOIN entry e ON e.tree = i.tree AND e.key = i.key"
            " WHERE i.tree = ? AND i.key > ? AND i.outcome = ? AND (e.key IS NULL OR e.local = 0)"
            " AND i.own_seq IS e.seq ORDER BY i.key LIMIT ?",
            (tree, key, _Outcome.LOCAL, _BATCH_ROWS),
        ).fetchall()
        for incoming, own in stored:
            seq += 1
            if own is None:
                _put_tombstone(connection, tree, incoming, seq)
            else:
                connection.execute("UPDATE entry SET local = 1, seq = ? WHERE tree = ? AND key = ?", (seq, tree, own))
        if len(stored) < _BATCH_ROWS:
            return seq
        key = stored[-1][0]


def _put_tombstone(connection: sqlite3.Connection, tree: int, key: str, seq: int) -> None:
    connection.execute(PUT, (tree, key, FOLDER, 0, 0, None, "", None, seq, 1, 1, 0, 0, 0, 0, None))


def _take_over(connection: sqlite3.Connection, tree: int, seq: int, applied: Applied) -> int:
    key, entry = key_of(applied.path), applied.entry
    seq += 1
    if entry is None:
        connection.execute(BURY, (seq, 0, tree, key))
    else:
        now = applied.fingerprint or _NO_FINGERPRINT
        name = applied.name_on_disk
        on_disk = (now.size, now.mtime_ns, now.inode, now.ctime_ns, None if name in ("", applied.path) else name)
        connection.execute(PUT, (tree, key, *entry_values(entry), seq, 0, 0, *on_disk))
    if applied.path and (entry is None or KIND_CODES[entry.kind] != FOLDER):
        # What stood in a folder that gave way went with it.
        inside = connection.execute(
            "SELECT key FROM entry WHERE tree = ? AND key > ? AND key < ? AND gone = 0", (tree, *below(key))
        ).fetchall()
        for (each,) in inside:
            seq += 1
            connection.execute(BURY, (seq, 0, tree, each))
    return seq


def reach_position(connection: sqlite3.Connection, tree: int, position: tuple[bytes, int] | None) -> None:
    """Notes what this node now has of the source: `position`, else what the round was to lead to, if it said so."""
    if position is None:
        connection.execute(
            "UPDATE tree SET peer_index_id = round_index_id, peer_seq = round_seq"
            " WHERE number = ? AND round_index_id IS NOT NULL",
            (tree,),
        )
    else:
        connection.execute("UPDATE tree SET peer_index_id = ?, peer_seq = ? WHERE number = ?", (*position, tree))


def empty(connection: sqlite3.Connection, tree: int) -> None:
    """Drops what the round holds: what the source told, and the steps, journalled or not. Staged files stay known."""
    connection.execute("DELETE FROM incoming WHERE tree = ?", (tree,))
    connection.execute("DELETE FROM step WHERE tree = ?", (tree,))
    connection.execute(
        "UPDATE tree SET whole = 0, applying = 0, round_index_id = NULL, round_seq = NULL WHERE number = ?", (tree,)
    )
