"""The index: what stands in each tree of this node, and the round that is being received.

For each path one row: the entry, the fingerprint under which it was looked at, its `seq` (grows with each change of any
row of the tree; no seq is ever given twice, even after a loss of power) and whether it is `local`. What is gone leaves
a tombstone. Blocking; for one thread at a time, any thread. Memory does not grow with the tree.

What is durable: the journal of a round and its end, at once. Other changes may be lost with the power, and are found
again by the next scan. Reads no tree and knows nothing of peers but what a round tells.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.core.errors import StateError
from agent.core.tree_plan import Decision, PlanMode, Want
from agent.replica import index_notes, index_round, index_rows
from agent.replica.file_tree import Fingerprint, Found, Refused
from agent.replica.index_file import IndexFile
from agent.replica.index_notes import Digested
from agent.replica.index_rows import Change, Row
from agent.replica.index_trees import IndexTrees, last_seq, set_last_seq
from agent.replica.index_update import Displaced, Merging, Update
from agent.replica.steps import Applied, Step

__all__ = ["Change", "Index", "Row", "Update"]

TOMBSTONES_KEPT: Final = 10_000  # of a tree, among those that both nodes know


class Index:
    """The index in the file at `path`. Every method raises StateError if the file cannot be used."""

    def __init__(self, path: Path, *, tombstones_kept: int = TOMBSTONES_KEPT) -> None:
        """Opens or makes it. StateError: written by a newer release, in use by another process, not writable."""
        self._file = IndexFile(path)
        self._tombstones_kept = tombstones_kept
        self._displaced: dict[str, Displaced] = {}
        self._trees = IndexTrees(self._file)

    @property
    def was_lost(self) -> bool:
        """True if an earlier index was damaged or outdated, and began anew; until `acknowledge_loss`, over restarts."""
        return self._file.was_lost

    def acknowledge_loss(self) -> None:
        """Forgets that an earlier index was lost."""
        self._file.acknowledge_loss()

    def close(self) -> None:
        """Closes the file; may be called twice."""
        if not self._file.is_open:
            return
        try:
            self._trees.close()
        finally:
            self._file.close()

    # Trees

    def trees(self) -> list[str]:
        """Returns the names of all trees that the index knows."""
        return self._trees.names()

    def forget(self, tree: str) -> None:
        """Drops all that is known of a tree; if it comes back, its index id is another."""
        self._displaced.pop(tree, None)
        self._trees.forget(tree)

    def index_id(self, tree: str) -> bytes:
        """Returns 16 random bytes that name this numbering; new when the rows of the tree are."""
        (index_id,) = self._trees.noted(tree, "index_id")
        return bytes(index_id)

    def last_seq(self, tree: str) -> int:
        """Returns the last seq that was given in a tree, 0 if none."""
        return int(self._trees.noted(tree, "last_seq")[0])

    def root(self, tree: str) -> str:
        """Returns which folder the rows were read from, as `note_root` was told; empty: never told."""
        return str(self._trees.noted(tree, "root")[0])

    def note_root(self, tree: str, root: str) -> None:
        """Notes which folder the rows are read from."""
        self._trees.note(tree, "root = ?", root)

    def totals(self, tree: str) -> tuple[int, int]:
        """Returns how many files stand in a tree, and their bytes; cheap."""
        files, size = self._trees.noted(tree, "files, bytes")
        return int(files), int(size)

    # Rows

    def row(self, tree: str, path: str) -> Row | None:
        """Returns the row of a path, tombstones included."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_rows.row_of(connection, number, path)

    def place_of(self, tree: str, path: str) -> str:
        """Returns where `path` is on disk, or would be below the folders that stand, with "/" between the names."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_rows.place_of(connection, number, path)

    def update(self, tree: str, found: Iterable[Found | Refused], under: str = "") -> Update:
        """Takes one scan (of the whole tree, a subtree or one path) into the rows, in one transaction.

        `found` is what `Scanner.scan(root, under)` yields, in its order and with what it refused: that says what must
        not be taken for deleted. An exception from it undoes the update and goes through.
        """
        number = self._trees.number(tree)
        displaced = self._displaced.setdefault(tree, Displaced())
        with self._giving_seqs(tree) as (connection, last):
            merging = Merging(connection, number, last, displaced)
            done = merging.merge(found, under)
            set_last_seq(connection, number, merging.seq)
        return done

    def undigested(self, tree: str, limit: int, after: str | None = None) -> list[Row]:
        """Returns files whose contents were not read yet, in the order of a scan, those after the path `after`."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_rows.undigested(connection, number, limit, after)

    def note_digest(self, tree: str, path: str, fingerprint: Fingerprint, digest: bytes) -> bool:
        """Notes the digest of a file, if its row still has this fingerprint; returns whether."""
        return self.note_digests(tree, [(path, fingerprint, digest)]) == 1

    def note_digests(self, tree: str, digests: Iterable[Digested]) -> int:
        """The same for many at once; returns how many rows still had their fingerprint."""
        number = self._trees.number(tree)
        with self._file.transaction() as connection:
            return index_notes.note_digests(connection, number, digests)

    def correct_digests(self, tree: str, digests: Iterable[Digested]) -> int:
        """Notes digests of files that were read again; returns how many were other than noted before.

        Those changed in a way that no scan can see: they get a new seq, and are local.
        """
        number = self._trees.number(tree)
        with self._giving_seqs(tree) as (connection, last):
            seq, differing = index_notes.correct_digests(connection, number, last, digests)
            set_last_seq(connection, number, seq)
        return differing

    def touch(self, tree: str, paths: Iterable[str]) -> None:
        """Gives the rows of these paths a new seq, so that they are told again."""
        number = self._trees.number(tree)
        with self._giving_seqs(tree) as (connection, last):
            set_last_seq(connection, number, index_notes.touch(connection, number, last, paths))

    def touch_local(self, tree: str, up_to: int) -> None:
        """Gives the local rows that have a seq up to `up_to` a new one: who has that much may still lack them."""
        number = self._trees.number(tree)
        with self._giving_seqs(tree) as (connection, last):
            set_last_seq(connection, number, index_notes.touch_local(connection, number, last, up_to))

    def changes_after(self, tree: str, seq: int, limit: int) -> list[Change]:
        """Returns the rows above `seq` in the order of seq, tombstones included."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_rows.changes_after(connection, number, seq, limit)

    def changes_of(self, tree: str, paths: Iterable[str]) -> list[Change]:
        """Returns the rows of those paths that have one."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_rows.changes_of(connection, number, paths)

    def by_digest(self, tree: str, digest: bytes) -> list[Row]:
        """Returns files that hold these contents, at most 16."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_rows.by_digest(connection, number, digest)

    def has_local(self, tree: str) -> bool:
        """Returns whether anything was changed here since both nodes last had the same."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            found = connection.execute("SELECT 1 FROM entry WHERE tree = ? AND local = 1 LIMIT 1", (number,)).fetchone()
        return found is not None

    def mark_common(self, tree: str, seq: int, but: Iterable[str] = ()) -> None:
        """Both nodes have the same up to `seq`, except at the paths `but`, which the other one could not take.

        These rows are not local any more, those at `but` are, and old tombstones are dropped.
        """
        number = self._trees.number(tree)
        with self._file.transaction() as connection:
            index_notes.mark_common(connection, number, seq, self._tombstones_kept, but)

    def feed_begins(self, tree: str) -> int:
        """Returns from which seq on `changes_after` tells everything; to who has less, the whole tree must be told."""
        return int(self._trees.noted(tree, "feed_begins")[0])

    # The round at the sink

    def begin_incoming(self, tree: str, whole: bool) -> None:
        """Begins a round, dropping one that was not journalled; what it staged stays known.

        StateError while a journal waits to be carried out.
        """
        number = self._trees.number(tree)
        self._require_no_journal(tree)
        with self._file.transaction() as connection:
            index_round.empty(connection, number)
            connection.execute("UPDATE tree SET whole = ? WHERE number = ?", (whole, number))

    def add_incoming(self, tree: str, wants: list[Want]) -> None:
        """Notes what the source has; the last word on a path counts."""
        number = self._trees.number(tree)
        with self._file.transaction() as connection:
            index_round.add_incoming(connection, number, wants)

    def incoming_is_whole(self, tree: str) -> None:
        """What was told is all that the source has, as in `begin_incoming`."""
        self._trees.note(tree, "whole = 1")

    def incoming_totals(self, tree: str) -> tuple[int, int]:
        """Returns how many of the told files have contents that do not stand at their path yet, and their bytes."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return index_round.incoming_totals(connection, number)

    def plan(self, tree: str, mode: PlanMode) -> Iterator[tuple[Want, Row | None, Decision]]:
        """Yields what is to be done, leaving out NOTHING and ADOPT; a tombstone is given as None.

        In a `whole` round, rows of which the source did not tell count as gone there. Must be iterated to its end for
        `finish_apply` to know what is adopted or kept. Other methods may be called in between.
        """
        number = self._trees.number(tree)
        (whole,) = self._trees.noted(tree, "whole")
        with self._file.guarded() as connection:
            chunks = index_round.Plan(connection, number, mode).chunks(whole=bool(whole))
        while True:
            with self._file.transaction():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield from chunk

    def stage(self, tree: str, steps: list[Step]) -> None:
        """Appends steps to the round; the staged files that they use are known to `staged` from then on."""
        number = self._trees.number(tree)
        self._require_no_journal(tree)
        with self._file.transaction() as connection:
            index_round.add_steps(connection, number, steps)

    def note_staged(self, tree: str, name: str, digest: bytes) -> None:
        """Notes that the staged file `name` is to hold these contents, before there is a step that uses it."""
        number = self._trees.number(tree)
        with self._file.transaction() as connection:
            index_round.note_staged(connection, number, name, digest)

    def staged(self, tree: str, digest: bytes) -> str:
        """Returns the name of a staged file that should hold these contents, also of an earlier round; "" if none.

        It may be missing or incomplete after a crash: to be verified before it is used.
        """
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            found = connection.execute(
                "SELECT name FROM staged WHERE tree = ? AND digest = ? LIMIT 1", (number, digest)
            ).fetchone()
        return str(found[0]) if found else ""

    def staged_names(self, tree: str) -> set[str]:
        """Returns the names of the staged files that may still be used."""
        number = self._trees.number(tree)
        with self._file.guarded() as connection:
            return {name for (name,) in connection.execute("SELECT name FROM staged WHERE tree = ?", (number,))}

    def forget_staged_file(self, tree: str, name: str) -> None:
        """Forgets one staged file."""
        number = self._trees.number(tree)
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM staged WHERE tree = ? AND name = ?", (number, name))

    def forget_staged(self, tree: str) -> None:
        """Forgets all staged files."""
        number = self._trees.number(tree)
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM staged WHERE tree = ?", (number,))

    def begin_apply(self, tree: str, peer_position: tuple[bytes, int] | None = None) -> None:
        """Makes the steps a journal: durable when this returns; `peer_position` becomes true with its end."""
        index_id, seq = peer_position or (None, None)
        self._trees.note(tree, "applying = 1, round_index_id = ?, round_seq = ?", index_id, seq, durable=True)

    def steps(self, tree: str) -> Iterator[Step]:
        """Yields the steps in the order in which they were staged; other methods may be called in between."""
        number = self._trees.number(tree)
        after = 0
        while True:
            with self._file.guarded() as connection:
                chunk = index_round.steps_after(connection, number, after)
            if not chunk:
                return
            for after, step in chunk:  # noqa: B007  the last one is where the next chunk begins
                yield step

    def applying_trees(self) -> list[str]:
        """Returns the trees whose journal has to be carried out before anything else."""
        with self._file.guarded() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM tree WHERE applying = 1 ORDER BY name")]

    def finish_apply(
        self, tree: str, results: Iterable[Applied], peer_position: tuple[bytes, int] | None = None
    ) -> None:
        """Ends the round in one durable transaction: the results, and what is adopted or kept, go into the rows.

        They get a new seq and are not local (what is kept is); what stood below a path that is no folder now becomes
        tombstones. The journal and all that belongs to the round is dropped. Without steps no `begin_apply` is needed.
        """
        number = self._trees.number(tree)
        with self._giving_seqs(tree, durable=True) as (connection, last):
            set_last_seq(connection, number, index_round.finish(connection, number, last, results))
            index_round.reach_position(connection, number, peer_position)
            index_round.empty(connection, number)
            connection.execute("DELETE FROM staged WHERE tree = ?", (number,))

    def drop_round(self, tree: str) -> None:
        """Ends a round without any effect on the rows, journalled or not; staged files stay known. Durable."""
        number = self._trees.number(tree)
        with self._file.transaction(durable=True) as connection:
            index_round.empty(connection, number)

    def peer_position(self, tree: str) -> tuple[bytes, int]:
        """Returns what this node has of the source: the source's index id and the seq in it; (b"", 0) for nothing."""
        index_id, seq = self._trees.noted(tree, "peer_index_id, peer_seq")
        return bytes(index_id), int(seq)

    def set_peer_position(self, tree: str, peer_index_id: bytes, seq: int) -> None:
        """Notes what this node has of the source."""
        self._trees.note(tree, "peer_index_id = ?, peer_seq = ?", peer_index_id, seq)

    @contextlib.contextmanager
    def _giving_seqs(self, tree: str, *, durable: bool = False) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Gives a transaction and the last seq of the tree; who gives more notes the new last one."""
        self._trees.reserve(tree)
        with self._file.transaction(durable=durable) as connection:
            yield connection, last_seq(connection, self._trees.number(tree))

    def _require_no_journal(self, tree: str) -> None:
        if self._trees.noted(tree, "applying")[0]:
            raise StateError(f'the journal of tree "{tree}" has to be carried out first.')
