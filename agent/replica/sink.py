"""The side that receives: follows the source's trees, round by round, until it stands as they do, and then goes on.

What is told between two Marks is one round (`agent.replica.round`). The trees count as half way from the first change
that is put in place after the source's state turned out to be another one, until every tree is through; that is told to
the agent, which makes it durable first. Knows nothing of roles: whether to follow is ordered.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import trio

from agent.core.bulk_messages import (
    Applied,
    Ask,
    BulkMessage,
    Fetch,
    Follow,
    Hold,
    Look,
    Mark,
    Progress,
    Troubled,
    Unfollow,
)
from agent.core.errors import PairAgentError, PeerError
from agent.core.tree_plan import PlanMode
from agent.core.tree_versions import Relation, TreeVersion, relation
from agent.replica.following import PATHS_MAX, Following, Listing, prepare, tell_what_came
from agent.replica.gathering import Result
from agent.replica.local_trees import LocalTree, free_bytes
from agent.replica.round import DISK_FULL, Round, StuckError
from agent.replica.sink_intake import AGAIN_S, Intake
from agent.replica.worker_protocol import Stand

PROGRESS_S = 0.5
SMALL_ROUND_FILES = 256  # what is left when a sink counts as caught up
ONLY_THERE = "only the other node has a tree of this name"
ROUNDS_MAX = 5  # that a workload which writes faster than the link can make a catch-up wait


class Sink(Intake):
    """Follows one source over one bulk connection."""

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
        """Follows everything anew; ends a dry run."""
        self._end_listing("the trees are compared anew now; ask again in a moment")
        self._next_look = Look.CONTENTS if full else Look.METADATA
        self._following.clear()
        self.complete_term = None
        self._ring()

    def close(self) -> None:
        """The connection is gone."""
        self._end_listing("the connection to the other node was lost")

    def _end_listing(self, problem: str) -> None:
        if self._listing is not None:
            self._listing.problem = problem
            self._listing.done.set()

    @property
    def following(self) -> bool:
        """Whether this side follows now."""
        return bool(self._following)

    @property
    def caught_up(self) -> bool:
        """Whether what remains to be brought over is small."""
        return self.complete_term is not None and all(
            each.rounds > 0
            and not each.blocked
            and (each.last_changed <= SMALL_ROUND_FILES or each.rounds >= ROUNDS_MAX)
            for each in self._following.values()
        )

    @property
    def problem(self) -> str:
        """Why a tree cannot be brought over now; empty: nothing is in the way."""
        for name, each in self._following.items():
            if each.problem:
                return f"tree {name}: {each.problem}"
            for path in sorted(each.blocked):
                return f"tree {name}: {path}: {each.refusing[path]}"
        for standing in self._hold.trees if self._hold is not None else ():
            if standing.name not in self._local.trees:
                return f"tree {standing.name}: {ONLY_THERE}"
        return ""

    # -- following

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
        look, self._next_look = self._next_look, Look.NONE
        if self._relation is Relation.BOTH_CHANGED and not stand.overwrite:
            kept = "the ones here stay in place" if stand.primary else "the primary's stay in place"
            self._owner.announce(
                "conflict", f"both nodes wrote their trees on their own; where both wrote the same path, {kept}"
            )
        for following in list(self._following.values()):
            if self._following.get(following.tree.name) is following:  # else it was ordered to begin anew meanwhile
                await self._follow(following, look=look)

    async def _follow(self, following: Following, *, look: Look = Look.NONE, whole: bool = False) -> None:
        tree, hold = following.tree, self._hold
        assert hold is not None
        try:
            make = self._listing is None  # a dry run changes nothing
            following.root = await prepare(self._local, tree, hold, make=make, believed=look is not Look.NONE)
        except (PairAgentError, OSError) as error:
            await self._give_up(following, str(error))
            return
        position = (b"", 0)
        tree.edited.clear()
        # What was written here on its own is told of by the source only in a whole listing.
        edited = await self._local.in_index(self._local.index.has_local, tree.name)
        if not (look is Look.CONTENTS or whole or edited or self._stand is None or self._stand.overwrite):
            position = await self._local.in_index(self._local.index.peer_position, tree.name)
        following.begun, following.mark = False, None
        following.number = next(self._numbers)
        await self._outlet.send(Follow(following.number, tree.name, *position, look))
        await self._outlet.flush()
        if look is not Look.NONE:  # while the source does the same; no round begins before this is done
            await self._local.scan(tree, full=look is Look.CONTENTS)

    def _mode(self, stand: Stand) -> PlanMode:
        first = self.complete_term is None
        if first and stand.overwrite:
            return PlanMode.OVERWRITE
        # AHEAD: it has merged before, and what it kept is still not on the other node.
        if first and stand.primary and self._relation in (Relation.BOTH_CHANGED, Relation.AHEAD):
            return PlanMode.MERGE
        return PlanMode.MIRROR

    async def _apply(self, following: Following, stand: Stand, hold: Hold) -> None:
        tree, mark = following.tree, following.mark
        assert mark is not None
        mode = self._mode(stand)
        self._merging = self._merging or mode is PlanMode.MERGE
        same = stand.data_term == mark.term and not stand.overwrite
        incomplete = "" if same or self.complete_term is not None else f"bringing over the state of term {mark.term}"
        assert following.root is not None
        self._round = round_ = Round(self._local, tree, following.root, self._archive, self, self._numbers)
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
            full = error.errno in DISK_FULL
            sentence = "the disk is full" if full else f"the disk failed: {error.strerror}"
            if full and sentence != following.problem_told:
                self._owner.announce("disk-full", f"tree {tree.name}: {sentence}; nothing was changed", tree=tree.name)
            await self._give_up(following, sentence, mark.final)
            return
        except PeerError:
            raise
        except PairAgentError as error:
            await self._give_up(following, str(error), mark.final)
            return
        finally:
            self._round = None
        if not result.granted:
            self._following.clear()  # every tree is followed anew when the roles let it be so
            self.complete_term = None
            return
        await self._conclude(following, mark, result)

    async def _give_up(self, following: Following, sentence: str, final: int = 0) -> None:
        self._note_problem(following, sentence)
        await self._outlet.send(Troubled(following.tree.name, sentence, final))
        await self._outlet.flush()

    async def _conclude(self, following: Following, mark: Mark, result: Result) -> None:
        tree = following.tree
        following.mark, following.begun, following.problem, following.problem_told = None, False, "", ""
        following.rounds += 1
        following.last_changed = result.changed
        following.last_sync_ms = time.time_ns() // 1_000_000
        refused = following.note_refused(result, whole=mark.whole)
        if result.refused_total > len(following.refused):
            following.again_at = trio.current_time() + AGAIN_S
        tell_what_came(self._owner, tree, result, refused)
        if result.changed and tree.kind.value == "config":
            self._owner.config_applied(tree.name)
        self._note_complete(mark.term)  # before the source learns it (core/tree_versions)
        await self._outlet.send(
            Applied(
                mark.number, tree.name, mark.seq, mark.final, following.refused, result.refused_total, free_bytes(tree)
            )
        )
        await self._outlet.flush()
        await self._ask_for_edited(following)

    def _note_complete(self, term: int | None = None) -> None:
        # One that was not granted is left out of what is followed; one that only this node has belongs to no pair.
        pairs = [self._following.get(name) for name in self.shared]
        if not all(each is not None and each.rounds and not each.problem for each in pairs):
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
            changed = tree.changed  # what changes while something is sent counts too
            if following := self._following.get(tree.name):
                await self._ask_for_edited(following)
            await changed.wait()

    async def _ask_for_edited(self, following: Following) -> None:
        tree = following.tree
        if not following.rounds or not tree.edited or self._listing is not None:
            return  # the first round is not through yet, and asks when it is
        paths, tree.edited = tree.edited, set()
        if len(paths) > PATHS_MAX or "" in paths:
            following.again_at = trio.current_time()
            following.refused_total = len(following.refused) + 1  # everything is told anew
            self._ring()
            return
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
            while self._round is not None:  # noqa: ASYNC110  it may be another one each time
                await trio.sleep(0.05)
            own = TreeVersion(stand.data_term, stand.alone, stand.base_term, stand.offered_term)
            self._relation = relation(own, TreeVersion(hold.data_term, hold.alone, hold.base_term, hold.offered_term))
            self._following = {name: Following(tree) for name, tree in self._local.trees.items()}
            for following in list(self._following.values()):
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
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # why it ended is said already
                await self._outlet.send(Unfollow())
                await self._outlet.flush()

    async def _list_rounds(self, listing: Listing) -> None:
        for name, following in list(self._following.items()):
            if following.mark is None or listing.waiting is None or name not in listing.waiting:
                continue
            assert self._stand is not None
            assert following.root is not None
            round_ = Round(self._local, following.tree, following.root, self._archive, self, self._numbers)
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
        done_bytes = each.done_bytes + self._round.receiver.under_way_bytes
        return Progress(each.done_files, each.total_files, done_bytes, each.total_bytes)

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
