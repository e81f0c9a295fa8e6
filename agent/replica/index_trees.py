"""The trees of the index: their numbers, what is noted once for each, and the giving of seqs.

A seq is never given twice for one index id, although the last transactions may be lost with the power: a block of seqs
is reserved durably before the first of it is given, and whoever opens the file goes on behind the block. Otherwise the
other node, which remembers up to where it has everything, would miss what is numbered like something it has. Rows may
be lost, too, of what the other node was told and what is gone by now: so it is told the whole tree then.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any, Final

from agent.replica.index_file import IndexFile
from agent.replica.index_schema import TABLES_OF_A_TREE

INDEX_ID_BYTES: Final = 16
SEQ_BLOCK: Final = 1 << 32


class IndexTrees:
    """The trees in an open index; a tree that is asked for the first time is made."""

    def __init__(self, file: IndexFile) -> None:
        self._file = file
        self._numbers: dict[str, int] = {}
        with file.transaction(durable=True) as connection:
            connection.execute(
                "UPDATE tree SET last_seq = seq_reserved, feed_begins = seq_reserved WHERE seq_reserved > last_seq"
            )
            connection.execute("UPDATE tree SET seq_reserved = last_seq + ?", (SEQ_BLOCK,))
            self._numbers.update(connection.execute("SELECT name, number FROM tree"))

    def names(self) -> list[str]:
        """Returns the names of all trees, sorted."""
        return sorted(self._numbers)

    def number(self, tree: str) -> int:
        """Returns the number of a tree in the tables."""
        number = self._numbers.get(tree)
        if number is None:
            with self._file.transaction(durable=True) as connection:
                number = connection.execute(
                    "INSERT INTO tree(name, index_id, seq_reserved) VALUES (?, ?, ?)",
                    (tree, os.urandom(INDEX_ID_BYTES), SEQ_BLOCK),
                ).lastrowid
            assert number is not None
            self._numbers[tree] = number
        return number

    def noted(self, tree: str, columns: str) -> tuple[Any, ...]:
        """Returns these columns of a tree."""
        number = self.number(tree)
        with self._file.guarded() as connection:
            values: tuple[Any, ...] = connection.execute(
                f"SELECT {columns} FROM tree WHERE number = ?", (number,)
            ).fetchone()
        return values

    def note(self, tree: str, columns: str, *values: object, durable: bool = False) -> None:
        """Sets columns of a tree, given as in SQL's SET with a "?" for each of the values."""
        number = self.number(tree)
        with self._file.transaction(durable=durable) as connection:
            connection.execute(f"UPDATE tree SET {columns} WHERE number = ?", (*values, number))

    def reserve(self, tree: str) -> None:
        """Sees to it that seqs can be given in the transaction that follows, more than any transaction needs."""
        last, reserved = self.noted(tree, "last_seq, seq_reserved")
        if reserved - last < SEQ_BLOCK // 2:
            self.note(tree, "seq_reserved = last_seq + ?", SEQ_BLOCK, durable=True)

    def forget(self, tree: str) -> None:
        """Drops a tree and all that belongs to it."""
        number = self._numbers.pop(tree, None)
        if number is None:
            return
        with self._file.transaction(durable=True) as connection:
            for table in TABLES_OF_A_TREE:
                connection.execute(f"DELETE FROM {table} WHERE tree = ?", (number,))
            connection.execute("DELETE FROM tree WHERE number = ?", (number,))

    def close(self) -> None:
        """Gives back the seqs that were reserved, so that the next to open the file goes on where this one ended."""
        with self._file.transaction(durable=True) as connection:
            connection.execute("UPDATE tree SET seq_reserved = last_seq")


def last_seq(connection: sqlite3.Connection, number: int) -> int:
    """Returns the last seq that was given in a tree."""
    (seq,) = connection.execute("SELECT last_seq FROM tree WHERE number = ?", (number,)).fetchone()
    return int(seq)


def set_last_seq(connection: sqlite3.Connection, number: int, seq: int) -> None:
    """Notes the last seq that was given in a tree, in the transaction in which it was."""
    connection.execute("UPDATE tree SET last_seq = ? WHERE number = ?", (seq, number))
