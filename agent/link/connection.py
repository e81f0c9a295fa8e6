"""Runs one core session over one encrypted stream: read, feed, dispatch; time, feed, dispatch; write what is there.

Three tasks: a reader, a timer and the only writer. The reader never waits for the writer, so a peer that does not read
cannot keep this node from hearing it. Knows nothing of roles: what the session says is handed to `on_event` in order,
in the trio thread, and must not block.

Invariants: `on_event` is told of an Ended at most once, last, and not if this side ended the connection; `on_sent` is
told only times before bytes that the operating system took, because the workload's lease rests on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from agent.core.beacon import BeaconKeys
from agent.core.compatibility import CloseCode
from agent.core.errors import PeerError
from agent.core.messages import Invite, Refusal, Release, Report, Request
from agent.core.session import EndCause, Ended, Opened, ProbeReturned, Session, SessionEvent, State
from agent.platform.clock import boottime_ns, wall_ms

RECEIVE_BYTES = 64 * 1024
LAST_WORDS_S = 0.5  # for the bytes that say why a connection ends
NANOSECONDS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Watchers:
    """Whom a connection tells: that the peer is authenticated and this node's hello on its way, every session event,
    and the time before each write that went out."""

    on_met: Callable[[], None]
    on_event: Callable[[Connection, SessionEvent], None]
    on_sent: Callable[[Connection, int], None]


class Connection:
    """One connection to a peer whose certificate is verified; `run` lives as long as the connection."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        session: Session,
        watchers: Watchers,
        address: str,
        beacon_keys: BeaconKeys,
        bulk_key: bytes = b"",
    ) -> None:
        self._stream = stream
        self._watchers = watchers
        self._ring_writer, self._writer_bell = trio.open_memory_channel[None](1)
        self._open = trio.Event()
        self._over = trio.Event()  # the session ended
        self._parted = trio.Event()  # nothing more will be said
        self._drained = trio.Event()  # everything that was said is with the operating system
        self._echoes = trio.open_memory_channel[int](0)[0]
        self._met = False
        self._gone = False  # nobody is there to hear last words
        self._dropped = False
        self.session = session
        self.address = address
        self.beacon_keys = beacon_keys  # for when this connection is the link and then no more
        self.bulk_key = bulk_key  # what binds bulk connections to this one
        self.closed = trio.Event()

    async def run(self) -> None:
        """Drives the session until it ends, lets the last words out and closes the stream."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._time)
                nursery.start_soon(self._read)
                self._ring()
                await self._over.wait()
                self._parted.set()
                if not self._gone:
                    self._ring()
                    with trio.move_on_after(LAST_WORDS_S):
                        await self._drained.wait()
                nursery.cancel_scope.cancel()
            if not self._gone:
                with trio.move_on_after(LAST_WORDS_S):
                    await self._stream.aclose()
        finally:
            await trio.aclose_forcefully(self._stream)
            self._dispatch(self.session.receive_end("the connection was closed here"))
            self.closed.set()

    def tell(self, message: Invite | Request | Release | Refusal) -> None:
        """Sends a message of the roles."""
        self.session.tell(message)
        self._ring()

    def publish(self, report: Report) -> None:
        """Tells the peer what this node is now."""
        self.session.publish(report)
        self._ring()

    async def probe(self, timeout_s: float) -> int | None:
        """Asks for an echo and returns how long it took in nanoseconds; None: it did not come in time."""
        waiting, self._echoes = trio.open_memory_channel[int](1)[::-1]
        self.session.probe(boottime_ns())
        self._ring()
        with trio.move_on_after(timeout_s):
            return await waiting.receive()
        return None

    def say_goodbye(self, reason: str) -> None:
        """Ends the connection in good order."""
        self.session.say_goodbye(reason)
        self._part()

    def leave(self, code: CloseCode, sentence: str) -> None:
        """Ends the connection and tells the peer why."""
        self.session.leave(code, sentence)
        self._part()

    def drop(self) -> None:
        """Ends the connection without a word; `on_event` is told nothing more."""
        self._dropped = self._gone = True
        self.session.abandon()
        self._part()

    def _part(self) -> None:
        self._parted.set()
        self._over.set()

    def _ring(self) -> None:
        with suppress(trio.WouldBlock):  # it rings already
            self._ring_writer.send_nowait(None)

    def _dispatch(self, events: Sequence[SessionEvent]) -> None:
        if not self._met and self.session.state in (State.GREETING, State.OPEN):
            self._met = True
            self._watchers.on_met()
        for event in events:
            if isinstance(event, ProbeReturned):
                with suppress(trio.WouldBlock, trio.BrokenResourceError):
                    self._echoes.send_nowait(event.round_trip_ns)
            elif not self._dropped:
                self._watchers.on_event(self, event)
            if isinstance(event, Opened):
                self._open.set()
            if isinstance(event, Ended):
                self._gone = self._gone or event.cause is EndCause.CLOSED
                self._over.set()
        self._ring()

    async def _read(self) -> None:
        while not self._over.is_set():
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except PeerError as error:
                self._dispatch(self.session.receive_refusal(error.code, str(error)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._dispatch(self.session.receive_end("the connection was reset"))
            else:
                if data:
                    self._dispatch(self.session.receive_data(data, boottime_ns()))
                else:
                    self._dispatch(self.session.receive_end("the other node closed the connection"))

    async def _time(self) -> None:
        while not self._over.is_set():
            deadline_ns = self.session.next_deadline()
            if deadline_ns is None:
                return
            wait_s = (deadline_ns - boottime_ns()) / NANOSECONDS_PER_SECOND
            if self._open.is_set():
                await trio.sleep(max(0.0, wait_s))
            else:
                with trio.move_on_after(max(0.0, wait_s)):
                    await self._open.wait()
                    continue
            self._dispatch(self.session.handle_timer(boottime_ns(), wall_ms()))

    async def _write(self) -> None:
        while True:
            await self._writer_bell.receive()
            last = self._parted.is_set()
            before_ns = boottime_ns()
            if data := self.session.data_to_send():
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError, PeerError):
                    last = True  # the reader learns why, and learns it in order
                else:
                    self._watchers.on_sent(self, before_ns)
            if last:
                self._drained.set()
                return
