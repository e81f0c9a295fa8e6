"""What arrives at a sink, sorted: changes go to the index, contents to the round that asked for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import trio

from agent.core.bulk_messages import (
    Begin,
    Changes,
    Copy,
    End,
    Files,
    Hold,
    Look,
    Mark,
    Troubled,
    Zeros,
)
from agent.core.tree_entries import EntryKind
from agent.core.tree_names import refusal_of_link_untrusted, refusal_of_path_untrusted
from agent.core.tree_plan import Want
from agent.core.tree_versions import Relation, TreeVersion
from agent.replica.archive import Archive
from agent.replica.following import Following, Listing, SinkOwner
from agent.replica.local_trees import LocalTrees
from agent.replica.round import Round
from agent.replica.source import Outlet
from agent.replica.worker_protocol import Stand

AGAIN_S = 5.0  # until a tree that could not be brought over is followed anew


class Intake:
    """What a sink holds, and what arrives of it; see the module."""

    def __init__(self, outlet: Outlet, local: LocalTrees, archive: Archive, owner: SinkOwner) -> None:
        self._outlet = outlet
        self._local = local
        self._archive = archive
        self._owner = owner
        self._numbers = itertools.count(1)
        self._stand: Stand | None = None
        self._hold: Hold | None = None
        self._following: dict[str, Following] = {}
        self._relation = Relation.SAME
        self._merging = False
        self._round: Round | None = None
        self._round_tree = ""
        self._wake = trio.Event()
        self._listing: Listing | None = None
        self._next_look = Look.NONE  # at the disk, when following begins
        self.complete_term: int | None = None

    # -- the source, as it told last

    @property
    def knows_source(self) -> bool:
        """Whether the other node has told what it has."""
        return self._hold is not None

    @property
    def shared(self) -> set[str]:
        """The trees that both nodes have; empty until the other node has told its own."""
        theirs = {standing.name for standing in self._hold.trees} if self._hold is not None else set[str]()
        return theirs & self._local.trees.keys()

    @property
    def source_version(self) -> TreeVersion:
        """The version of the other node's trees, as it told last."""
        hold = self._hold
        if hold is None:
            return TreeVersion()
        return TreeVersion(hold.data_term, hold.alone, hold.base_term, hold.offered_term)

    # -- what arrives

    async def changes(self, message: Changes) -> None:
        """Takes some of what stands at the source."""
        following = self._following.get(message.tree)
        if following is None or following.number != message.number:
            return
        wants = []
        single_file = following.tree.root is not None and following.tree.root.single_file
        for change in message.changes:
            refusal = refusal_of_path_untrusted(change.path, single_file=single_file)
            entry = change.entry
            if refusal is None and entry is not None and entry.kind is EntryKind.LINK:
                refusal = refusal_of_link_untrusted(change.path, entry.target)
            if refusal is None:
                wants.append(Want(change.path, entry, change.changed))
                following.note_told(change.path)
            else:
                shown = change.path.encode("utf-8", "backslashreplace").decode()
                self._owner.announce("name-refused", f"tree {message.tree}: {shown}: {refusal}", tree=message.tree)
        await self._begin_incoming(following)
        await self._local.in_index(self._local.index.add_incoming, message.tree, wants)

    async def _begin_incoming(self, following: Following, *, whole: bool = False) -> None:
        if not following.begun:
            following.begun = True
            await self._local.in_index(self._local.index.begin_incoming, following.tree.name, whole)

    async def mark(self, message: Mark) -> None:
        """Takes the end of what is told: a round is due."""
        following = self._following.get(message.tree)
        if following is not None and following.number == message.number:
            await self._begin_incoming(following)
            if message.whole:
                await self._local.in_index(self._local.index.incoming_is_whole, message.tree)
            following.mark = message
            self._ring()

    def troubled(self, message: Troubled) -> None:
        """The source cannot tell a tree now."""
        if following := self._following.get(message.tree):
            self._note_problem(following, message.sentence)
        if self._listing is not None and self._listing.waiting is not None:
            self._listing.problem = f"tree {message.tree}: {message.sentence}"
            self._listing.done.set()

    async def files(self, message: Files) -> None:
        """Takes small files."""
        if self._round is not None:
            await self._round.receiver.files(message)

    async def begin(self, message: Begin) -> None:
        """Takes the beginning of a big file."""
        if self._round is not None:
            await self._round.receiver.begin(message)

    async def piece(self, message: Copy | Zeros) -> None:
        """Takes a piece of a big file that is not sent as data."""
        if self._round is not None:
            await self._round.receiver.piece(message)

    async def end(self, message: End) -> None:
        """Takes the end of a big file."""
        if self._round is not None:
            await self._round.receiver.end(message)

    async def data(self, view: memoryview, release: Callable[[], None]) -> None:
        """Takes a piece of a big file."""
        if self._round is None:
            release()
        else:
            await self._round.receiver.data(view, release)

    def _ring(self) -> None:
        wake, self._wake = self._wake, trio.Event()
        wake.set()

    def _note_problem(self, following: Following, problem: str) -> None:
        if problem != following.problem_told:
            self._owner.announce("sync-failed", f"tree {following.tree.name}: {problem}", tree=following.tree.name)
        following.problem = following.problem_told = problem
        following.mark = None
        following.again_at = trio.current_time() + AGAIN_S
