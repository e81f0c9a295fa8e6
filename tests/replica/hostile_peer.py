"""The other end of a worker's session as a test plays it: it sends what it likes, and sees what the worker answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import trio
from blake3 import blake3

from agent.core.bulk_messages import (
    Change,
    Changes,
    Fetch,
    FetchSmall,
    Follow,
    Hold,
    Mark,
    SmallFile,
    Standing,
)
from agent.core.bulk_wire import decode_untrusted, encode
from agent.core.errors import PeerError
from agent.core.tree_entries import Entry, EntryKind
from agent.link.bulk_stream import Payload
from agent.node.replica_session import Session
from tests.replica.memory_connection import Connection
from tests.replica.two_workers import PATIENCE_S, Worker

T = TypeVar("T")
INDEX = b"i" * 16
TERM = 2


class HostilePeer:
    """Plays the peer of `worker`; use as a context manager. `failure`: what ended the worker's session."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._connection = Connection()
        self._end = self._connection.ends[1]
        self.failure: BaseException | None = None
        self.over = trio.Event()

    async def __aenter__(self) -> HostilePeer:
        worker = self.worker
        await worker.changed()
        worker.told.clear()
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        self._nursery = nursery
        worker.session = Session(self._connection.ends[0], worker.local, worker.archive, worker, lambda: worker.stand)  # type: ignore[arg-type]
        worker.session.stand(worker.stand)
        nursery.start_soon(self._run, worker.session)
        return self

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except* (PeerError, trio.BrokenResourceError) as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            self.failure = first
        finally:
            self.worker.session = None
            self._connection.break_off()
            self.over.set()

    async def __aexit__(self, *_: Any) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    async def send(self, *messages: Any) -> None:
        """Sends messages; bytes go as a piece of data. What comes too late for a session that ended is lost."""
        try:
            for message in messages:
                if isinstance(message, bytes):
                    await self._end.send_data(message)
                else:
                    await self._end.send_payload(encode(message))
            await self._end.flush()
        except trio.BrokenResourceError:
            pass

    async def receive(self, shape: type[T]) -> T:
        """Returns the next message of this kind, passing over all others."""
        with trio.fail_after(PATIENCE_S):
            while True:
                item = await self._end.receive()
                message = decode_untrusted(item.payload) if isinstance(item, Payload) else None
                if isinstance(message, shape):
                    return message

    async def ended(self) -> PeerError:
        """Returns what the worker's session ended with, which is to be the peer's fault."""
        with trio.fail_after(PATIENCE_S):
            await self.over.wait()
        assert isinstance(self.failure, PeerError), repr(self.failure)
        return self.failure

    # -- as a source

    async def tell(self, entries: Iterable[Entry], *, whole: bool = True) -> Follow:
        """Tells that these stand here, and ends the round's telling."""
        standing = Standing("data", "data", "folder", INDEX, 1, 1, "")
        await self.send(Hold(False, TERM, True, 1, 0, (standing,)))
        follow = await self.receive(Follow)
        await self.send(self.changes(follow, entries), self.mark(follow, whole=whole))
        return follow

    @staticmethod
    def changes(follow: Follow, entries: Iterable[Entry]) -> Changes:
        return Changes(follow.number, follow.tree, tuple(Change(each.path, each, True) for each in entries))

    @staticmethod
    def mark(follow: Follow, *, whole: bool = True, number: int = 0, seq: int = 9) -> Mark:
        return Mark(number or follow.number, follow.tree, INDEX, seq, whole, 0, TERM, 1, 1)

    async def until_asked_small(self, entries: Iterable[Entry]) -> FetchSmall:
        await self.tell(entries)
        return await self.receive(FetchSmall)

    async def until_asked_big(self, entry: Entry) -> Fetch:
        await self.tell([entry])
        return await self.receive(Fetch)


def file(path: str, contents: bytes = b"contents", *, size: int | None = None) -> Entry:
    """Returns an entry with these contents, unread."""
    return Entry(path, EntryKind.FILE, len(contents) if size is None else size, 1, 0o644)


def link(path: str, target: str) -> Entry:
    return Entry(path, EntryKind.LINK, target=target)


def small(contents: bytes = b"contents", problem: str = "") -> SmallFile:
    return SmallFile(problem, 1, 0o644, contents)


def digest(contents: bytes) -> bytes:
    value: bytes = blake3(contents).digest()
    return value


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    trio.run(scenario)
