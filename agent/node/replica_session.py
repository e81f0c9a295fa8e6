"""One bulk connection between two replica workers: what arrives goes to the source's or the sink's side of this node.

Knows neither how a connection comes about nor what either side makes of a message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import msgpack
import trio

from agent.core import bulk_messages as bulk
from agent.core import bulk_wire
from agent.core.errors import PairAgentError, PeerError
from agent.core.tree_versions import TreeVersion
from agent.link.bulk_stream import BulkStream, Data, Payload
from agent.node.replica_status import Pace
from agent.replica.archive import Archive
from agent.replica.following import SinkOwner
from agent.replica.local_trees import LocalTrees
from agent.replica.sink import Sink
from agent.replica.source import Source
from agent.replica.worker_protocol import Stand

log = logging.getLogger("agent.replica")

SIGNATURE_BYTES_MAX = 64 * 1024 * 1024
REPLY_S = 60.0


class SessionOwner(SinkOwner, Protocol):
    """Whom a session tells."""

    def followed(self, term: int) -> None:
        """The other node has everything of that term."""

    async def offer(self, peer: TreeVersion) -> None:
        """The other node is about to be given everything; returns when that is noted durably."""

    def restart_asked(self, *, full: bool) -> None:
        """The other node's operator wants the trees compared anew."""

    async def answer(self, what: str) -> dict[str, Any]:
        """Returns the answer to the other node's question."""


class Session:
    """Runs until the connection ends; `sink` and `source` are the two sides of this node."""

    def __init__(
        self, stream: BulkStream, local: LocalTrees, archive: Archive, owner: SessionOwner, version: Callable[[], Stand]
    ) -> None:
        self._stream = stream
        self._local = local
        self._owner = owner
        self._version = version
        self._replies: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._question = 0
        self._signature: tuple[bulk.Fetch, bytearray] | None = None
        self.sink = Sink(self, local, archive, owner)
        self.source = Source(
            self, local, lambda: version().data_term, owner.followed, self._offer, lambda: self.sink.shared
        )
        self.peer_progress: bulk.Progress | None = None
        self.left_s = Pace().left_s

    @property
    def stream(self) -> BulkStream:
        """The connection, for its statistics."""
        return self._stream

    # -- outlet

    async def send(self, message: bulk.BulkMessage) -> None:
        """See `agent.replica.source.Outlet`."""
        await self._stream.send_payload(bulk_wire.encode(message))

    async def send_data(self, data: bytes | memoryview) -> None:
        """See `agent.replica.source.Outlet`."""
        await self._stream.send_data(data)

    async def flush(self) -> None:
        """See `agent.replica.source.Outlet`."""
        await self._stream.flush()

    # -- life

    async def run(self) -> None:
        """Raises PeerError or trio's errors of a broken connection when it ends otherwise than in order."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stream.run)
                nursery.start_soon(self.source.run)
                nursery.start_soon(self.sink.run)
                nursery.start_soon(self._renew, nursery.cancel_scope)
                await self.tell_hold()
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self.source.close()
            self.sink.close()
            for event, _ in self._replies.values():
                event.set()

    async def _renew(self, scope: trio.CancelScope) -> None:
        """Ends a connection whose keys are nearly used up; the next one goes on where this one ended."""
        while not self._stream.renewal_due:  # noqa: ASYNC110  the stream counts, and tells nobody
            await trio.sleep(1.0)
        scope.cancel()

    async def tell_hold(self) -> None:
        """Tells what this node has, and in which version."""
        stand, standing = self._version(), []
        for tree in self._local.trees.values():
            shape = "missing"
            if tree.root is not None and not tree.problem:
                shape = "file" if tree.root.single_file else "folder"
            index_id = await self._local.in_index(self._local.index.index_id, tree.name)
            standing.append(
                bulk.Standing(tree.name, tree.kind.value, shape, index_id, tree.files, tree.size, tree.problem)
            )
        hold = bulk.Hold(False, stand.data_term, stand.alone, stand.base_term, stand.offered_term, tuple(standing))
        await self.send(hold)
        await self.flush()

    async def _offer(self) -> None:
        await self._owner.offer(self.sink.source_version)

    def restart(self, *, full: bool) -> None:
        """Compares everything anew."""
        if self.sink.following:
            self.sink.restart(full=full)
        self.source.doubt()

    def stand(self, stand: Stand) -> None:
        """Takes what the roles decided."""
        self.sink.stand(stand)

    async def question(self, what: str) -> dict[str, Any]:
        """Asks the other node; raises PairAgentError without an answer."""
        self._question += 1
        number, event, answers = self._question, trio.Event(), list[Any]()
        self._replies[number] = event, answers
        try:
            await self.send(bulk.Question(number, what))
            await self.flush()
            with trio.move_on_after(REPLY_S):
                await event.wait()
        finally:
            del self._replies[number]
        if not answers:
            raise PairAgentError("the other node did not answer")
        return dict(answers[0])

    async def _receive(self) -> None:
        async with trio.open_nursery() as nursery:
            while (arrived := await self._stream.receive()) is not None:
                if not isinstance(arrived, Payload):
                    await self._data(arrived)
                    continue
                message = bulk_wire.decode_untrusted(arrived.payload)
                if isinstance(message, bulk.Question):
                    nursery.start_soon(self._reply, message)
                elif message is not None:
                    await self._take(message)
            nursery.cancel_scope.cancel()

    async def _data(self, data: Data) -> None:
        if self._signature is None:
            await self.sink.data(data.view, data.release)
            return
        fetch, signature = self._signature
        signature += data.view
        data.release()
        if len(signature) > fetch.signature:
            raise PeerError("the other node sent more of a signature than it said")
        if len(signature) == fetch.signature:
            self._signature = None
            self.source.fetch(fetch, bytes(signature))

    async def _take(self, message: bulk.BulkMessage) -> None:
        match message:
            case bulk.Hold():
                self.sink.hold(message)
            case bulk.Follow():
                await self.source.follow(message)
            case bulk.Unfollow():
                self.source.unfollow()
            case bulk.Ask():
                self.source.ask(message)
            case bulk.Applied():
                await self.source.applied(message)
            case bulk.Fetch():
                self._fetch(message)
            case bulk.FetchSmall():
                self._fetch_small(message)
            case bulk.Progress():
                self.peer_progress = message
            case bulk.Changes():
                await self.sink.changes(message)
            case bulk.Mark():
                await self.sink.mark(message)
            case bulk.Files():
                await self.sink.files(message)
            case bulk.Begin():
                await self.sink.begin(message)
            case bulk.Copy() | bulk.Zeros():
                await self.sink.piece(message)
            case bulk.End():
                await self.sink.end(message)
            case bulk.Troubled():
                if self.source.serving:
                    self.source.troubled(message)
                else:
                    self.sink.troubled(message)
            case bulk.Restart():
                self._owner.restart_asked(full=message.full)
            case bulk.Reply():
                self._take_reply(message)
            case bulk.Question():
                pass  # answered beside

    def _fetch(self, message: bulk.Fetch) -> None:
        self._require_no_signature()
        if message.signature > SIGNATURE_BYTES_MAX:
            raise PeerError("the other node announces a signature beyond all bounds")
        if message.signature:
            self._signature = message, bytearray()
        else:
            self.source.fetch(message, b"")

    def _fetch_small(self, message: bulk.FetchSmall) -> None:
        self._require_no_signature()
        self.source.fetch(message, b"")

    def _require_no_signature(self) -> None:
        if self._signature is not None:
            raise PeerError("the other node asks for a file before it has sent the signature of another")

    async def _reply(self, question: bulk.Question) -> None:
        try:
            body = await self._owner.answer(question.what)
        except PairAgentError as error:
            body = {"problem": str(error)}
        await self.send(bulk.Reply(question.number, msgpack.packb(body)))
        await self.flush()

    def _take_reply(self, reply: bulk.Reply) -> None:
        waiting = self._replies.get(reply.number)
        if waiting is None:
            return
        try:
            body = msgpack.unpackb(reply.body, strict_map_key=True, max_ext_len=0)
        except Exception as error:  # msgpack raises a dozen unrelated types for hostile bytes
            raise PeerError("the other node sent a reply that is no msgpack") from error
        if isinstance(body, dict):
            waiting[1].append(body)
        waiting[0].set()
