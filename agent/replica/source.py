"""The side whose trees are copied: tells the sink what changed, and sends what it asks for.

Serves whoever is linked and asks; who is to follow whom is decided by the roles. Between a Mark and its Applied nothing
more is told of a tree, so that a sink that is slow gets fewer and larger rounds. Knows nothing of the sink's disk.
Invariants: a Mark is sent only after everything it covers; what a sink could not take stays told again until it could.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from agent.core.bulk_messages import (
    ENTRIES_MAX,
    Applied,
    Ask,
    BulkMessage,
    Change,
    Changes,
    Fetch,
    FetchSmall,
    Follow,
    Look,
    Mark,
    Troubled,
)
from agent.core.errors import PairAgentError, PeerError
from agent.replica.index import Change as IndexChange
from agent.replica.local_trees import LocalTree, LocalTrees
from agent.replica.sending import FileSender

REFUSED_AGAIN_S = 5.0
FETCHES_WAITING_MAX = 4096  # a sink asks for a quarter of that ahead


class Outlet(Protocol):
    """Where messages go: the bulk connection."""

    async def send(self, message: BulkMessage) -> None:
        """Appends a message to what will be sent."""

    async def send_data(self, data: bytes | memoryview) -> None:
        """Appends a piece of data."""

    async def flush(self) -> None:
        """Sends what was appended."""


@dataclass
class Feed:
    """What the sink was told of one tree."""

    tree: LocalTree
    number: int  # of the Follow
    position: int = 0  # told up to here
    whole: bool = True  # the next Mark ends a whole listing
    asked: set[str] = field(default_factory=set)
    outstanding: Mark | None = None
    outstanding_since: float | None = None  # the first change in it was noticed
    final: int = 0  # asked for by the agent, to be told
    applied: bool = False  # since this sink follows
    due: bool = True  # something is to be told even if nothing changed
    look: int = Look.NONE
    refused: set[str] = field(default_factory=set)  # told again now and then
    free_bytes: int | None = None  # on the sink's disk
    refused_last: tuple[tuple[str, str], ...] = ()
    outstanding_bytes: int = 0
    last_applied_ms: int | None = None


class Source:
    """Serves one sink over one bulk connection."""

    def __init__(
        self,
        outlet: Outlet,
        local: LocalTrees,
        term: Callable[[], int],
        followed: Callable[[int], None],
        offer: Callable[[], Awaitable[None]],
        shared: Callable[[], set[str]],
    ) -> None:
        """`followed(term)` is called when the sink has everything, each time anew after it had not; `offer` is awaited
        before the first Mark; `shared` names the trees that both nodes have."""
        self._outlet = outlet
        self._local = local
        self._term = term
        self._tell_followed = followed
        self._offer = offer
        self._shared = shared
        self._offered = False
        self._feeds: dict[str, Feed] = {}
        self._wake = trio.Event()
        self._in_sync = False
        self._troubles: dict[str, str] = {}  # why the sink could not take a tree, until it has
        self._marked_term = 0
        self._finish: tuple[int, Callable[[str], None]] | None = None
        self._fetches, self._to_fetch = trio.open_memory_channel[tuple[Fetch | FetchSmall, bytes]](FETCHES_WAITING_MAX)
        self._sender = FileSender(outlet, local)

    @property
    def serving(self) -> bool:
        """Whether somebody follows, or will again when it can."""
        return bool(self._feeds or self._troubles)

    @property
    def in_sync(self) -> bool:
        """Whether the sink has had everything, and has since then been told every change."""
        return self._in_sync

    async def run(self) -> None:
        """Serves until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sender.run, self._to_fetch)
            for tree in self._local.trees.values():
                nursery.start_soon(self._watch_tree, tree)
            nursery.start_soon(self._tell_refused_again)
            while True:
                wake = self._wake
                for feed in list(self._feeds.values()):
                    await self._serve(feed)
                await wake.wait()

    def _ring(self) -> None:
        wake, self._wake = self._wake, trio.Event()
        wake.set()

    async def _watch_tree(self, tree: LocalTree) -> None:
        while True:
            await tree.changed.wait()
            self._ring()

    async def _tell_refused_again(self) -> None:
        while True:
            await trio.sleep(REFUSED_AGAIN_S)
            for feed in list(self._feeds.values()):
                if feed.refused:
                    refused, feed.refused = feed.refused, set()
                    await self._local.in_index(self._local.index.touch, feed.tree.name, sorted(refused))
                    self._ring()

    # -- what the sink asks

    async def follow(self, message: Follow) -> None:
        """Begins to tell the changes of a tree."""
        tree = self._local.trees.get(message.tree)
        if tree is None:
            await self._outlet.send(Troubled(message.tree, "no tree of this name is configured on the other node", 0))
            await self._outlet.flush()
            return
        index_id = await self._local.in_index(self._local.index.index_id, tree.name)
        begins = await self._local.in_index(self._local.index.feed_begins, tree.name)
        whole = message.index != index_id or message.after < begins or message.look >= Look.CONTENTS
        if not whole:
            # What the sink could not take, or took and lost before it said so, is told once more.
            await self._local.in_index(self._local.index.touch_local, tree.name, message.after)
        self._in_sync = False
        feed = Feed(tree, message.number, 0 if whole else message.after, whole, look=message.look)
        feed.final = self._finish[0] if self._finish is not None else 0
        self._feeds[tree.name] = feed
        self._ring()

    def unfollow(self) -> None:
        """Nobody follows any more."""
        self._feeds.clear()
        self._troubles.clear()
        self._in_sync = False
        self._end_finish("the other node stopped following")

    def doubt(self) -> None:
        """The sink is asked to follow anew: until it does, it counts as not in sync."""
        self._in_sync = False

    def ask(self, message: Ask) -> None:
        """Tells certain paths again."""
        if feed := self._feeds.get(message.tree):
            feed.asked.update(message.paths)
            feed.due = True
            self._ring()

    def fetch(self, message: Fetch | FetchSmall, signature: bytes) -> None:
        """Queues a file to be sent. Raises PeerError if the sink asks for more than it may."""
        try:
            self._fetches.send_nowait((message, signature))
        except trio.WouldBlock:
            raise PeerError("the other node asks for too many files at once") from None

    async def applied(self, message: Applied) -> None:
        """The sink has put a Mark's changes in place."""
        feed = self._feeds.get(message.tree)
        if feed is None or feed.outstanding is None or message.number != feed.number:
            return
        if message.seq != feed.outstanding.seq:
            raise PeerError("the other node says that it has what it was not told")
        mark, feed.outstanding, feed.outstanding_since = feed.outstanding, None, None
        feed.applied = True
        self._troubles.pop(feed.tree.name, None)
        index = self._local.index
        if message.refused_total <= len(message.refused):
            refused = [path for path, _ in message.refused]
            await self._local.in_index(index.mark_common, feed.tree.name, message.seq, refused)
        feed.refused.update(path for path, _ in message.refused)
        feed.free_bytes = message.free
        feed.refused_last, feed.last_applied_ms = message.refused, time.time_ns() // 1_000_000
        if mark.final and self._finish is not None and mark.final == self._finish[0]:
            feed.final = -mark.final  # done
            if message.refused:
                path, reason = message.refused[0]
                self._end_finish(f"tree {feed.tree.name}: {path}: {reason}")
            elif all(each.final == -mark.final for each in self._feeds.values()):
                self._end_finish("")
        await self._note_sync()
        self._ring()

    async def _note_sync(self) -> None:
        told = self._feeds.keys() >= self._shared()
        if self._in_sync or not told or not all(each.applied and not each.outstanding for each in self._feeds.values()):
            return
        self._in_sync = True
        self._tell_followed(self._marked_term)

    def troubled(self, message: Troubled) -> None:
        """The sink cannot take a tree now; it follows anew by itself when it can."""
        feed = self._feeds.pop(message.tree, None)
        self._in_sync = False
        if message.tree in self._local.trees:
            self._troubles[message.tree] = message.sentence
        if feed is not None:
            self._end_finish(f"tree {message.tree}: {message.sentence}")

    # -- what the agent asks

    def finish(self, number: int, done: Callable[[str], None]) -> None:
        """Brings everything to the sink, and calls `done` with why that did not work, or nothing."""
        self._finish = (number, done)
        if not self._in_sync:
            self._end_finish("the other node was not in sync yet")
            return
        for feed in self._feeds.values():
            feed.final = number
            feed.due = True
        self._ring()

    def close(self) -> None:
        """The connection is gone."""
        self._end_finish("the connection to the other node was lost")

    def _end_finish(self, undelivered: str) -> None:
        if self._finish is not None:
            done, self._finish = self._finish[1], None
            done(undelivered)

    # -- telling

    async def _serve(self, feed: Feed) -> None:
        tree, index, name = feed.tree, self._local.index, feed.tree.name
        if feed.outstanding is not None or self._feeds.get(name) is not feed:
            return
        final, due = max(feed.final, 0), feed.due  # what is asked for from here on is for the next time
        try:
            if look := feed.look:
                feed.look = Look.NONE
                await self._local.scan(tree, full=look >= Look.CONTENTS, believed=True)
            if final:
                await self._local.settle(tree)
        except PairAgentError as error:
            await self._cannot(feed, str(error))
            return
        if tree.problem:
            await self._cannot(feed, tree.problem)
            return
        if not tree.scanned:
            return
        last = await self._local.in_index(index.last_seq, name)
        if last == feed.position and not due:
            return
        asked, feed.asked = feed.asked, set()
        feed.due = feed.final > 0 and not final
        since, tree.changed_at = tree.changed_at, None
        feed.outstanding_bytes = 0
        if not self._offered:
            self._offered = True
            await self._offer()
        await self._tell(feed, last, asked)
        index_id = await self._local.in_index(index.index_id, name)
        mark = Mark(feed.number, name, index_id, last, feed.whole, final, self._term(), tree.files, tree.size)
        feed.position, feed.whole = last, False
        self._marked_term = mark.term
        feed.outstanding, feed.outstanding_since = mark, since
        await self._outlet.send(mark)
        await self._outlet.flush()

    async def _tell(self, feed: Feed, last: int, asked: set[str]) -> None:
        index, name, position = self._local.index, feed.tree.name, feed.position
        while position < last:
            page = await self._local.in_index(index.changes_after, name, position, ENTRIES_MAX)
            if not page:
                break
            position = page[-1].seq
            page = [each for each in page if each.entry is not None or not feed.whole]
            feed.outstanding_bytes += sum(each.entry.size for each in page if each.entry is not None)
            await self._send_changes(feed, page)
        if asked:
            page = await self._local.in_index(index.changes_of, name, sorted(asked))
            known = {each.path for each in page}
            missing = [IndexChange(0, path, None, False) for path in asked - known]
            for start in range(0, len(page) + len(missing), ENTRIES_MAX):
                await self._send_changes(feed, [*page, *missing][start : start + ENTRIES_MAX])

    async def _send_changes(self, feed: Feed, page: list[IndexChange]) -> None:
        if page:
            changes = tuple(Change(each.path, each.entry, each.local) for each in page)
            await self._outlet.send(Changes(feed.number, feed.tree.name, changes))

    async def _cannot(self, feed: Feed, sentence: str) -> None:
        """Tells the sink that a tree cannot be told of; it follows anew by itself."""
        self._feeds.pop(feed.tree.name, None)
        self._in_sync = False
        await self._outlet.send(Troubled(feed.tree.name, sentence, 0))
        await self._outlet.flush()
        self._end_finish(f"tree {feed.tree.name}: {sentence}")

    # -- status

    def lag_bytes(self, name: str) -> int:
        """Returns how many bytes of the changes that were told are not known to be on the sink."""
        feed = self._feeds.get(name)
        return 0 if feed is None or feed.outstanding is None else feed.outstanding_bytes

    @property
    def free_bytes(self) -> int | None:
        """Returns the least that is free where the sink's trees stand; None: not told yet."""
        return min((feed.free_bytes for feed in self._feeds.values() if feed.free_bytes is not None), default=None)

    def last_applied_ms(self, name: str) -> int | None:
        """Returns when the sink last had everything, by the wall clock."""
        feed = self._feeds.get(name)
        return None if feed is None else feed.last_applied_ms

    def trouble(self, name: str) -> str:
        """Returns why the sink cannot take a tree now; empty: nothing is in the way."""
        if name not in self._shared():
            return "it has no tree of this name"
        return self._troubles.get(name, "")

    def refused(self, name: str) -> tuple[tuple[str, str], ...]:
        """Returns what the sink could not take."""
        feed = self._feeds.get(name)
        return () if feed is None else feed.refused_last

    def lag(self, name: str) -> tuple[int, bool]:
        """Returns for how many milliseconds the oldest change waits to be on the sink, and whether it is in sync."""
        feed = self._feeds.get(name)
        tree = self._local.trees[name]
        times = [t for t in (tree.changed_at, feed.outstanding_since if feed else None) if t is not None]
        waiting = round((time.monotonic() - min(times)) * 1000) if times else 0
        return waiting, feed is not None and feed.applied and not times
