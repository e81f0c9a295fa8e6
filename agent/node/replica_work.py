"""What the replica worker does: mends what a crash left, keeps the index true, and runs the bulk connection.

The composition of the replica's parts, as `agent.node.run` is of the agent's. Invariant: before Ready is told, every
journal that a crash left is carried out, so that no tree is half way.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from agent.config.model import Config
from agent.core import bulk_messages as bulk
from agent.core.errors import PairAgentError, PeerError, StateError
from agent.core.tree_versions import TreeVersion
from agent.link.bulk_stream import BulkStream
from agent.link.identity import load_identity
from agent.node.archive_inquiries import ARCHIVE_FOLDER
from agent.node.bulk_link import BulkLink
from agent.node.replica_inquiries import Inquiries
from agent.node.replica_session import Session
from agent.node.replica_status import snapshot
from agent.platform.locks import DirectoryLock
from agent.platform.socket_passing import SocketTaker
from agent.replica import worker_protocol as say
from agent.replica.archive import Archive
from agent.replica.file_tree import tree_root
from agent.replica.index import Index
from agent.replica.local_trees import LocalTrees, free_bytes
from agent.replica.round import carry_out
from agent.replica.staging import Staging

log = logging.getLogger("agent.replica")

REPLICA_FOLDER = "replica"
INDEX_FILE = "index.db"
LOCK_PAUSE_S = 0.1
LOCK_ATTEMPTS = 100
SNAPSHOT_S = 0.2
CONNECT_PATIENCE_S = 10.0  # for a bulk connection, until a catch-up has failed for want of it
CATCH_UP_LOOK_S = 0.01
FINISH_PATIENCE_S = 4.0  # for a sink to be in sync, with no workload running; the other node waits a second longer
EXPIRE_S = 3600.0
MEGABYTE = 1_000_000
SECONDS_PER_DAY = 86_400


class Work:
    """The worker of one node; see the module."""

    def __init__(self, config: Config, tell: Callable[[say.Telling], None], taker: SocketTaker) -> None:
        self._config = config
        self._tell = tell
        folder = config.state_directory / REPLICA_FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder: Path = folder
        sync = config.sync
        self.archive = Archive(
            config.state_directory / ARCHIVE_FOLDER,
            sync.archive_size * MEGABYTE,
            sync.archive_days * SECONDS_PER_DAY,
            time.time,
        )
        self.local: LocalTrees  # from `run` on
        self.session: Session | None = None
        self.stand: say.Stand = say.Stand(False, False, False, False, 0, False, 0)
        self._permissions = itertools.count(1)
        self._waiting: dict[int, tuple[trio.Event, list[bool]]] = {}
        self._used: list[int] = []
        self._nursery: trio.Nursery | None = None
        self._catching_up: trio.CancelScope | None = None
        self._inquiries = Inquiries(self)
        self.archive_totals = (0, 0)
        self.round = 0  # the last that an operator asked for
        self.conflicts = 0  # since the worker started
        self._news = trio.Event()  # of the state that snapshots show
        identity = load_identity(config.certificates)
        self.bulk = BulkLink(identity, taker, sync.rate_limit, self._run_session)

    @property
    def config(self) -> Config:
        """The agent's configuration."""
        return self._config

    async def run(self) -> None:
        """Works until cancelled."""
        with await trio.to_thread.run_sync(self._locked):
            index = await trio.to_thread.run_sync(Index, self._folder / INDEX_FILE)
            self.local = LocalTrees(
                list(self._config.trees), index, self._config.sync.scan_interval / 1000, self.announce
            )
            if index.was_lost:
                self.announce("tree-trouble", "the index of the trees was damaged: it is made anew, and a copy is kept")
                await self.local.in_index(index.acknowledge_loss)
            try:
                await self._live()
            finally:
                with trio.CancelScope(shield=True), suppress(PairAgentError):
                    await self.local.in_index(index.close)

    async def _live(self) -> None:
        try:
            await self.local.in_index(self._recover)
        except (OSError, PairAgentError) as error:
            self._tell(say.Ready(os.getpid(), f"its trees are half way, and cannot be made whole: {error}"))
            raise PairAgentError(f"what a crash interrupted cannot be finished: {error}") from error
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.local.run)
            nursery.start_soon(self.bulk.run)
            self._tell(say.Ready(os.getpid(), "", self._unusable))
            nursery.start_soon(self._tell_snapshots, self._unusable)
            nursery.start_soon(self._expire)

    def _locked(self) -> ExitStack:
        """Returns the folder's lock, held, waiting for a worker whose agent was killed to be gone."""
        for _ in range(LOCK_ATTEMPTS):
            try:
                stack = ExitStack()
                stack.enter_context(DirectoryLock(self._folder))
            except StateError:
                time.sleep(LOCK_PAUSE_S)
            else:
                return stack
        raise StateError(f"another replica worker holds {self._folder}")

    def _recover(self) -> None:
        """Carries out what was journalled, and throws away what was staged for nothing; in a thread."""
        index = self.local.index
        interrupted = set(index.applying_trees())
        for name, tree in self.local.trees.items():
            try:
                root = tree_root(tree.config)
            except PairAgentError:
                if name in interrupted:
                    raise
                continue
            staging = Staging(root, self.local.disk)
            if name in interrupted:
                carry_out(self.local, name, root, staging, self.archive, None, lambda outcome: None)
                self.announce("tree-trouble", f"tree {name}: what a crash interrupted was finished", tree=name)
            if root.path.exists():
                staging.clean(index.staged_names(name))
            staging.close()

    # -- orders

    def take(self, order: say.Order) -> None:
        """Takes an order of the agent."""
        match order:
            case say.Link():
                self.bulk.use(order)
            case say.Unlink():
                self.bulk.use(None)
            case say.Handover():
                self.bulk.hand_over(order)
            case say.Stand():
                version = (order.data_term, order.alone, order.base_term, order.offered_term)
                news = version != (
                    self.stand.data_term,
                    self.stand.alone,
                    self.stand.base_term,
                    self.stand.offered_term,
                )
                self.stand = order
                if self.session is not None:
                    self.session.stand(order)
                    if news:
                        self._start(self._tell_hold, self.session)
            case say.CatchUp():
                self._catch_up(order.number)
            case say.Finish():
                self._start(self._finish, order.number)
            case say.Grant():
                if waiting := self._waiting.pop(order.number, None):
                    waiting[1].append(order.granted)
                    waiting[0].set()
                elif order.granted:
                    self._tell(say.ApplyEnded(order.number))
            case say.Synchronise():
                self.round = order.number
                if self.session is not None:
                    self.session.restart(full=order.full)
                    self._start(self._ask_restart, self.session, order.full)
            case say.Inquire():
                self._start(self._inquire, order)
            case _:
                log.warning("an order that is not known: %s", type(order).__name__)

    def _start(self, work: Callable[..., Any], *arguments: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._bounded, work, *arguments)

    async def _bounded(self, work: Callable[..., Any], *arguments: Any) -> None:
        with suppress(PeerError, trio.BrokenResourceError, trio.ClosedResourceError):  # who runs it knows
            await work(*arguments)

    async def _run_session(self, stream: BulkStream) -> None:
        session = Session(stream, self.local, self.archive, self, lambda: self.stand)
        session.stand(self.stand)
        self.session = session
        try:
            await session.run()
        finally:
            self.session = None

    # -- what sessions ask and tell

    async def permit(self, incomplete: str) -> bool:
        """See `agent.replica.following.SinkOwner`."""
        number, event, answers = next(self._permissions), trio.Event(), list[bool]()
        self._waiting[number] = event, answers
        self._tell(say.Permission(number, incomplete))
        try:
            await event.wait()
        finally:
            self._waiting.pop(number, None)
        if answers[0]:
            self._used.append(number)
        return answers[0]

    def permission_used(self) -> None:
        """See `agent.replica.following.SinkOwner`."""
        while self._used:
            self._tell(say.ApplyEnded(self._used.pop()))

    def complete(self, term: int, merged: bool) -> None:
        """See `agent.replica.following.SinkOwner`."""
        self.announce("sync-complete", f"every tree is as the other node's (term {term})", term=term)
        self._tell(say.Complete(term, merged))
        self._news.set()

    def followed(self, term: int) -> None:
        """See `agent.node.replica_session.SessionOwner`."""
        self._tell(say.Followed(term))
        self._news.set()

    async def offer(self, peer: TreeVersion) -> None:
        """See `agent.node.replica_session.SessionOwner`."""
        number, event = next(self._permissions), trio.Event()
        self._waiting[number] = event, []
        self._tell(say.Offering(number, peer.data_term, peer.alone, peer.base_term, peer.offered_term))
        await event.wait()

    def announce(self, code: str, sentence: str, **fields: object) -> None:
        """See `agent.replica.following.SinkOwner`."""
        self._tell(say.Happened(code, sentence, fields))

    def conflicted(self, count: int) -> None:
        """See `agent.replica.following.SinkOwner`."""
        self.conflicts += count

    def config_applied(self, tree: str) -> None:
        """See `agent.replica.following.SinkOwner`."""
        self._tell(say.ConfigApplied(tree))

    def restart_asked(self, *, full: bool) -> None:
        """See `agent.node.replica_session.SessionOwner`."""
        if self.session is not None:
            self.session.restart(full=full)

    async def answer(self, what: str) -> dict[str, Any]:
        """See `agent.node.replica_session.SessionOwner`."""
        return await self._inquiries.answer(what)

    async def _tell_hold(self, session: Session) -> None:
        await session.tell_hold()

    # -- what the agent orders

    def _catch_up(self, number: int) -> None:
        if self._catching_up is not None:
            self._catching_up.cancel()
        scope = self._catching_up = trio.CancelScope()

        async def catch_up() -> None:
            with scope:
                problem = await self._until_caught_up()
                self._tell(say.CatchUpFailed(number, problem) if problem else say.CaughtUp(number))

        self._start(catch_up)

    async def _until_caught_up(self) -> str:
        """Returns when the sink is up to date, or why it cannot be brought there."""
        patience = trio.current_time() + CONNECT_PATIENCE_S
        while True:
            session = self.session
            if session is not None and session.sink.following and session.sink.caught_up:
                return ""
            problem = "" if session is None else session.sink.problem
            if problem:
                return problem
            if session is not None and session.sink.following:
                patience = trio.current_time() + CONNECT_PATIENCE_S
            elif trio.current_time() > patience:
                return f"no connection for the trees: {self.bulk.problem}"
            await trio.sleep(CATCH_UP_LOOK_S)

    async def _finish(self, number: int) -> None:
        """Brings everything to the sink, whose last answer may still be under way."""

        def done(undelivered: str) -> None:
            self._tell(say.Finished(number, undelivered))

        with trio.move_on_after(FINISH_PATIENCE_S):
            while self.session is None or not self.session.source.in_sync:  # noqa: ASYNC110  sessions come and go
                await trio.sleep(CATCH_UP_LOOK_S)
        if self.session is None:
            done(f"no connection for the trees: {self.bulk.problem}")
        else:
            self.session.source.finish(number, done)

    async def _ask_restart(self, session: Session, full: bool) -> None:
        if not session.sink.following:
            await session.send(bulk.Restart(full))
            await session.flush()

    async def _inquire(self, order: say.Inquire) -> None:
        try:
            done, sentence, details = await self._inquiries.inquire(order.what, order.arguments)
        except (PairAgentError, OSError) as error:
            done, sentence, details = False, str(error), {}
        self._tell(say.Answered(order.number, done, sentence, details))

    # -- now and then

    @property
    def _unusable(self) -> str:
        """Why no workload may start on what stands here; empty: it may."""
        return next((f"tree {each.name}: {each.unusable}" for each in self.local.trees.values() if each.unusable), "")

    async def _tell_snapshots(self, hindered: str) -> None:
        told: dict[str, Any] = {}
        while True:
            reason = "" if self.stand.active else self._unusable  # one that runs goes on
            if reason != hindered:
                hindered = reason
                self._tell(say.Hindered(reason))
            status = snapshot(self)
            if status != told:
                told = status
                self._tell(say.Snapshot(status))
            news = self._news = trio.Event()
            with trio.move_on_after(SNAPSHOT_S):
                await news.wait()

    async def _expire(self) -> None:
        while True:
            expiry = await trio.to_thread.run_sync(self.archive.expire)
            for batch in expiry.announced:
                when = datetime.fromtimestamp((batch.delete_after_ms or 0) / 1000, UTC).isoformat(timespec="minutes")
                self.announce(
                    "archive-expiring",
                    f"the archive is over its limit: {batch.name} ({batch.items} versions) is deleted after {when}",
                )
            for batch in expiry.deleted:
                self.announce("archive-expiring", f"deleted from the archive, as announced: {batch.name}")
            with trio.move_on_after(EXPIRE_S):
                while True:
                    self.archive_totals = await trio.to_thread.run_sync(self.archive.totals)
                    await trio.sleep(60.0)

    def free_bytes(self) -> dict[str, int]:
        """Returns the free bytes where each tree stands."""
        return {name: free_bytes(tree) for name, tree in self.local.trees.items() if tree.root is not None}
