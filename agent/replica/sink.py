"""The side that receives: follows the source's trees, round by round, until it stands as they do, and then goes on.

What is told between two Marks is one round (`agent.replica.round`). The trees count as half way from the first change
that is put in place after the source's state turned out to be another one, until every tree is through; that is told to
the agent, which makes it durable first. Knows nothing of roles: whether to follow is ordered.
"""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from agent.core.bulk_messages import (
    Applied,
    Ask,
    Begin,
    BulkMessage,
    Changes,
    Copy,
    End,
    Fetch,
    Files,
    Follow,
    Hold,
    Mark,
    Progress,
    Troubled,
    Unfollow,
    Zeros,
)
from agent.core.errors import PairAgentError
from agent.core.tree_entries import EntryKind
from agent.core.tree_names import refusal_of_link_untrusted, refusal_of_path_untrusted
from agent.core.tree_plan import PlanMode, Want
from agent.core.tree_versions import Relation, TreeVersion, relation
from agent.replica.archive import Archive
from agent.replica.local_trees import LocalTree, LocalTrees, free_bytes
from agent.replica.round import Result, Round, StuckError
from agent.replica.source import Outlet
from agent.replica.worker_protocol import Stand

AGAIN_S = 5.0  # until a tree that could not be brought over is followed anew
PROGRESS_S = 0.5
SMALL_ROUND_FILES = 256  # what is left when a sink counts as caught up
ROUNDS_MAX = 5  # that a workload which writes faster than the link can make a catch-up wait
PATHS_MAX = 256


class SinkOwner(Protocol):
    """Whom the sink tells; called in the trio thread, must not block but where it is async."""

    async def permit(self, incomplete: str) -> bool:
        """Asks the agent whether the trees may be changed now."""

    def permission_used(self) -> None:
        """The apply has ended."""

    def complete(self, term: int, merged: bool) -> None:
        """Every tree is whole and as the source's in that term; `merged`: own changes were kept besides."""

    def announce(self, code: str, sentence: str, **fields: object) -> None:
        """Takes an event."""

    def conflicted(self, count: int) -> None:
        """So many paths were written on both nodes."""

    def config_applied(self, tree: str) -> None:
        """A config tree was changed."""


@dataclass
class Following:
    """One tree that is followed."""

    tree: LocalTree
    number: int = 0  # of the Follow that counts
    mark: Mark | None = None  # to be applied
    rounds: int = 0  # since following began
    last_changed: int = 0  # entries in the last round
    problem: str = ""
    again_at: float | None = None  # trio's clock
    last_sync_ms: int | None = None  # wall clock
    refused: tuple[tuple[str, str], ...] = ()
    refused_total: int = 0
    begun: bool = False  # its incoming changes are being taken


@dataclass
class Listing:
    """A dry run: instead of being applied, rounds are listed."""

    done: trio.Event
    changes: list[dict[str, object]]
    total: int = 0
    size: int = 0
    count_max: int = 0
    waiting: set[str] | None = None
    problem: str = ""


class Sink:
    """Follows one source over one bulk connection."""

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
        self._full = False
        self.complete_term: int | None = None

    # -- what is ordered

    def stand(self, stand: Stand) -> None:
        """Takes what the roles decided."""
        self._stand = stand
        self._ring()

    def hold(self, hold: Hold) -> None:
        """Takes what the source has."""
        self._hold = hold
        self._ring()

    def restart(self, *, full: bool) -> None:
        """Follows everything anew."""
        self._full = full
        self._following.clear()
        self.complete_term = None
        self._ring()

    @property
    def knows_source(self) -> bool:
        """Whether the other node has told what it has."""
        return self._hold is not None

    @property
    def following(self) -> bool:
        """Whether this side follows now."""
        return bool(self._following)

    @property
    def caught_up(self) -> bool:
        """Whether what remains to be brought over is small."""
        return self.complete_term is not None and all(
            each.rounds > 0 and (each.last_changed <= SMALL_ROUND_FILES or each.rounds >= ROUNDS_MAX)
            for each in self._following.values()
        )

    @property
    def problem(self) -> str:
        """Why a tree cannot be brought over now; empty: nothing is in the way."""
        return next((f"tree {name}: {each.problem}" for name, each in self._following.items() if each.problem), "")

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

    # -- following

    def _ring(self) -> None:
        wake, self._wake = self._wake, trio.Event()
        wake.set()

    async def run(self) -> None:
        """Follows as ordered, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_progress)
            for tree in self._local.trees.values():
                nursery.start_soon(self._watch_edits, tree)
            while True:
                wake = self._wake
                again_at = await self._look()
                with trio.move_on_at(again_at):
                    await wake.wait()

    async def _look(self) -> float:
        """Does what is due; returns when to look again without being woken."""
        stand, hold = self._stand, self._hold
        if stand is None or hold is None or self._listing is not None:
            if self._listing is not None:
                await self._list_rounds(self._listing)
            return float("inf")
        if not stand.following:
            if self._following:
                self._following.clear()
                self.complete_term = None
                await self._outlet.send(Unfollow())
                await self._outlet.flush()
            return float("inf")
        if not self._following:
            await self._begin(stand, hold)
        for following in list(self._following.values()):
            if following.mark is not None and self._following.get(following.tree.name) is following:
                await self._apply(following, stand, hold)
            elif following.again_at is not None and trio.current_time() >= following.again_at:
                following.again_at = None
                await self._follow(following, whole=following.refused_total > len(following.refused))
        self._note_complete()
        return min(
            (each.again_at for each in self._following.values() if each.again_at is not None), default=float("inf")
        )

    async def _begin(self, stand: Stand, hold: Hold) -> None:
        """Begins to follow every tree."""
        own = TreeVersion(stand.data_term, stand.alone, stand.base_term, stand.offered_term)
        self._relation = relation(own, TreeVersion(hold.data_term, hold.alone, hold.base_term, hold.offered_term))
        self._following = {name: Following(tree) for name, tree in self._local.trees.items()}
        full, self._full = self._full, False
        if self._relation is Relation.BOTH_CHANGED and not stand.overwrite:
            kept = "the ones here stay in place" if stand.primary else "the primary's stay in place"
            self._owner.announce(
                "conflict", f"both nodes wrote their trees on their own; where both wrote the same path, {kept}"
            )
        for following in self._following.values():
            await self._follow(following, full=full)

    @property
    def source_version(self) -> TreeVersion:
        """The version of the other node's trees, as it told last."""
        hold = self._hold
        if hold is None:
            return TreeVersion()
        return TreeVersion(hold.data_term, hold.alone, hold.base_term, hold.offered_term)

    async def _follow(self, following: Following, *, full: bool = False, whole: bool = False) -> None:
        tree, hold = following.tree, self._hold
        assert hold is not None
        try:
            await self._prepare(tree, hold)
            if full:
                await self._local.scan(tree, full=True)
        except (PairAgentError, OSError) as error:
            self._note_problem(following, str(error))
            return
        position = (b"", 0)
        # What was written here on its own is told of by the source only in a whole listing.
        edited = await self._local.in_index(self._local.index.has_local, tree.name)
        if not (full or whole or edited or self._stand is None or self._stand.overwrite):
            position = await self._local.in_index(self._local.index.peer_position, tree.name)
        following.begun, following.mark, following.problem = False, None, ""
        tree.edited.clear()
        following.number = next(self._numbers)
        await self._outlet.send(Follow(following.number, tree.name, *position, full))
        await self._outlet.flush()

    async def _prepare(self, tree: LocalTree, hold: Hold) -> None:
        """Makes sure that the tree fits the source's, and stands here. Raises PairAgentError or OSError."""
        theirs = next((each for each in hold.trees if each.name == tree.name), None)
        if theirs is None:
            raise PairAgentError("no tree of this name is configured on the other node")
        if theirs.kind != tree.kind.value:
            raise PairAgentError(
                f'its kind is "{tree.kind.value}" here and "{theirs.kind}" there; set the same on both'
            )
        if theirs.shape == "missing":
            raise PairAgentError("it does not exist on the other node; nothing is taken for deleted")
        await self._local.make_root(tree, single_file=theirs.shape == "file")
        assert tree.root is not None
        if tree.root.single_file != (theirs.shape == "file"):
            here, there = ("a file", "a folder") if tree.root.single_file else ("a folder", "a file")
            raise PairAgentError(
                f"{tree.root.path} is {here} here and {there} on the other node; mend one of the paths"
            )

    def _note_problem(self, following: Following, problem: str) -> None:
        if problem != following.problem:
            self._owner.announce("sync-failed", f"tree {following.tree.name}: {problem}", tree=following.tree.name)
        following.problem = problem
        following.mark = None
        following.again_at = trio.current_time() + AGAIN_S

    def _mode(self, stand: Stand) -> PlanMode:
        if stand.overwrite:
            return PlanMode.OVERWRITE
        first = self.complete_term is None
        if first and stand.primary and self._relation is Relation.BOTH_CHANGED:
            return PlanMode.MERGE
        return PlanMode.MIRROR

    async def _apply(self, following: Following, stand: Stand, hold: Hold) -> None:
        tree, mark = following.tree, following.mark
        assert mark is not None
        mode = self._mode(stand)
        self._merging = self._merging or mode is PlanMode.MERGE
        same = stand.data_term == mark.term and not stand.overwrite
        incomplete = "" if same or self.complete_term is not None else f"bringing over the state of term {mark.term}"
        self._round = round_ = Round(self._local, tree, self._archive, self, self._numbers)
        self._round_tree = tree.name
        round_.progress.total_files, round_.progress.total_bytes = await self._local.in_index(
            self._local.index.incoming_totals, tree.name
        )
        try:
            result = await round_.run(mode, mark, incomplete)
        except StuckError as error:
            self._owner.announce("disk-full", str(error), tree=tree.name)
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            sentence = "the disk is full" if full else f"the disk failed: {error.strerror}"
            if full:
                self._owner.announce("disk-full", f"tree {tree.name}: {sentence}; nothing was changed", tree=tree.name)
            await self._give_up(following, sentence, mark)
            return
        except PairAgentError as error:
            await self._give_up(following, str(error), mark)
            return
        finally:
            self._round = None
        if not result.granted:
            self._following.pop(tree.name, None)
            return
        await self._conclude(following, mark, result)

    async def _give_up(self, following: Following, sentence: str, mark: Mark) -> None:
        self._note_problem(following, sentence)
        await self._outlet.send(Troubled(following.tree.name, sentence, mark.final))
        await self._outlet.flush()

    async def _conclude(self, following: Following, mark: Mark, result: Result) -> None:
        tree = following.tree
        following.mark, following.begun, following.problem = None, False, ""
        following.rounds += 1
        following.last_changed = result.changed
        following.last_sync_ms = time.time_ns() // 1_000_000
        following.refused, following.refused_total = tuple(result.refused[:PATHS_MAX]), result.refused_total
        if result.refused_total > len(following.refused):
            following.again_at = trio.current_time() + AGAIN_S
        self._tell_what_came(tree, result)
        if result.changed and tree.kind.value == "config":
            self._owner.config_applied(tree.name)
        await self._outlet.send(Applied(mark.number, tree.name, mark.seq, mark.final, following.refused, result.refused_total, free_bytes(tree)))
        await self._outlet.flush()
        self._note_complete(mark.term)

    def _tell_what_came(self, tree: LocalTree, result: Result) -> None:
        if result.conflicts_total:
            self._owner.conflicted(result.conflicts_total)
            named = ", ".join(result.conflicts[:5])
            self._owner.announce(
                "conflict",
                f"tree {tree.name}: {result.conflicts_total} paths were written on both nodes, and the version that gave "
                f"way is in the archive: {named}",
                tree=tree.name,
                paths=result.conflicts[:PATHS_MAX],
            )
        if result.archived_total:
            named = ", ".join(each.path for each in result.archived[:5])
            self._owner.announce(
                "archived",
                f"tree {tree.name}: {result.archived_total} versions went to the archive ({result.archived[0].reason}): "
                f"{named}",
                tree=tree.name,
                items=[each.item for each in result.archived[:PATHS_MAX]],
            )
        if result.refused_total:
            path, reason = result.refused[0]
            self._owner.announce(
                "name-refused",
                f"tree {tree.name}: {result.refused_total} not brought over: {path}: {reason}",
                tree=tree.name,
            )

    def _note_complete(self, term: int | None = None) -> None:
        if not self._following or not all(each.rounds and not each.problem for each in self._following.values()):
            return
        term = term if term is not None else self.complete_term
        if term is not None and term != self.complete_term:
            self.complete_term = term
            self._owner.complete(term, self._merging)
            self._merging = False

    # -- edits on this side

    async def _watch_edits(self, tree: LocalTree) -> None:
        """What was changed here is asked for again, and so replaced; the edited version goes to the archive."""
        while True:
            await tree.changed.wait()
            following = self._following.get(tree.name)
            if following is None or not following.rounds or self._listing is not None:
                continue
            paths, tree.edited = tree.edited, set()
            if not paths:
                continue
            if len(paths) > PATHS_MAX or "" in paths:
                following.again_at = trio.current_time()
                following.refused_total = len(following.refused) + 1  # everything is told anew
                self._ring()
                continue
            await self._outlet.send(Ask(tree.name, tuple(sorted(paths))))
            await self._outlet.flush()

    # -- dry run

    async def list_changes(self, count_max: int) -> Listing:
        """Returns what following now would change, without changing anything."""
        hold, stand = self._hold, self._stand
        if hold is None or stand is None:
            raise PairAgentError("the other node has not told its trees yet")
        listing = self._listing = Listing(trio.Event(), [], count_max=count_max, waiting=set(self._local.trees))
        try:
            while self._round is not None:
                await trio.sleep(0.05)
            own = TreeVersion(stand.data_term, stand.alone, stand.base_term, stand.offered_term)
            self._relation = relation(own, TreeVersion(hold.data_term, hold.alone, hold.base_term, hold.offered_term))
            self._following = {name: Following(tree) for name, tree in self._local.trees.items()}
            for following in self._following.values():
                await self._follow(following, whole=True)
                if following.problem:
                    raise PairAgentError(f"tree {following.tree.name}: {following.problem}")
            self._ring()
            await listing.done.wait()
            if listing.problem:
                raise PairAgentError(listing.problem)
            return listing
        finally:
            self._listing = None
            self._following.clear()
            self.complete_term = None
            self._ring()
            await self._outlet.send(Unfollow())
            await self._outlet.flush()

    async def _list_rounds(self, listing: Listing) -> None:
        for name, following in list(self._following.items()):
            if following.mark is None or listing.waiting is None or name not in listing.waiting:
                continue
            assert self._stand is not None
            round_ = Round(self._local, following.tree, self._archive, self, self._numbers)
            changes, total, size = await round_.listing(
                self._mode(self._stand), listing.count_max - len(listing.changes)
            )
            listing.changes += changes
            listing.total += total
            listing.size += size
            await self._local.in_index(self._local.index.drop_round, name)
            listing.waiting.discard(name)
        if not listing.waiting:
            listing.done.set()

    # -- errands of a round

    async def ask(self, fetch: Fetch, signature: list[bytes]) -> None:
        """See `agent.replica.round.Errands`."""
        await self._outlet.send(fetch)
        for piece in signature:
            await self._outlet.send_data(piece)

    async def send(self, message: BulkMessage) -> None:
        """See `agent.replica.round.Errands`."""
        await self._outlet.send(message)

    async def flush(self) -> None:
        """See `agent.replica.round.Errands`."""
        await self._outlet.flush()

    async def permit(self, incomplete: str) -> bool:
        """See `agent.replica.round.Errands`."""
        return await self._owner.permit(incomplete)

    def permission_used(self) -> None:
        """See `agent.replica.round.Errands`."""
        self._owner.permission_used()

    # -- progress

    @property
    def progress(self) -> Progress | None:
        """How far the present round is; None: none is going on."""
        if self._round is None:
            return None
        each = self._round.progress
        return Progress(each.done_files, each.total_files, each.done_bytes, each.total_bytes)

    @property
    def copying(self) -> str:
        """The tree whose round is going on; empty: none."""
        return "" if self._round is None else self._round_tree

    @property
    def trees(self) -> dict[str, Following]:
        """The trees that are followed, for status."""
        return self._following

    async def _tell_progress(self) -> None:
        last = None
        while True:
            await trio.sleep(PROGRESS_S)
            if (progress := self.progress) is not None and progress != last:
                last = replace(progress)
                await self._outlet.send(progress)
                await self._outlet.flush()
