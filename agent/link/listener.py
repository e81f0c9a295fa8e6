"""The primary's side of making a connection: accepts, lets strangers fail cheaply, hands over verified streams.

Whoever is not the peer gets nothing and costs little: one who says nothing costs a socket, a handshake costs a place
among HANDSHAKES_MAX, and where places are short the oldest occupant leaves, so that a flood or half-open connections
can slow the real peer down but not keep it out. All of them together leave the agent the descriptors that it needs
itself, however few there are. Whoever asks for a bulk connection is handed over, still a stranger, with what it sent so
far: its handshake, and the bounds on it, are the receiver's business. Knows nothing of sessions or roles.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from agent.core.errors import PeerError
from agent.link.identity import Identity
from agent.link.paced_stream import PacedStream, Turnstile
from agent.link.tls import BulkOffered, TlsStream, server_stream
from agent.platform.descriptors import descriptor_limit
from agent.platform.sockets import tune_link_socket

log = logging.getLogger("agent.link")

SILENT_MAX = 512  # sockets from which no byte has come yet
HANDSHAKES_MAX = 64  # at a time
PLACES_MIN = 4  # of each kind, so that a peer gets in although descriptors are short
DESCRIPTORS_RESERVED = 176  # for state, log, workload and health checks at least 100; for clients of the admin port 64
HANDSHAKE_S = 5.0
ACCEPT_PAUSE_S = 0.05  # after an accept that failed for want of something here
KERNEL_TIMEOUT_MS = 20_000


def places_within(limit: int | None) -> tuple[int, int]:
    """Returns how many may be silent and how many may shake hands at a time with `limit` descriptors (None: any)."""
    if limit is None:
        return SILENT_MAX, HANDSHAKES_MAX
    share = limit - DESCRIPTORS_RESERVED
    handshakes = max(PLACES_MIN, min(HANDSHAKES_MAX, share // 4))
    return max(PLACES_MIN, min(SILENT_MAX, share - handshakes)), handshakes


class Places:
    """A bounded number of places; when all are taken, the one who sat longest is cancelled."""

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._scopes: dict[trio.CancelScope, None] = {}

    async def occupy(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Runs `work` in a place, for HANDSHAKE_S at most; returns False when it had to leave or time ran out."""
        while len(self._scopes) >= self._places_max:
            oldest = next(iter(self._scopes))
            del self._scopes[oldest]
            oldest.cancel()
        with trio.move_on_after(HANDSHAKE_S) as scope:
            self._scopes[scope] = None
            try:
                await work()
            finally:
                self._scopes.pop(scope, None)
        return not scope.cancelled_caught


class Listener:
    """Accepts on sockets that are listening already."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        identity: Callable[[], Identity],
        *,
        on_stream: Callable[[TlsStream, str], Awaitable[None]],
        on_refused: Callable[[str, str], None],
        on_bulk: Callable[[socket.socket, bytes, str], None] | None = None,
    ) -> None:
        """`on_stream(stream, address)` runs a verified connection; `on_refused(address, sentence)` tells of others.

        `on_bulk(accepted, received, address)` owns the socket of whoever asks for a bulk connection, and `received` is
        all that came from it; it must not wait. None: such are refused.
        """
        self._sockets = sockets
        self._identity = identity
        self._on_stream = on_stream
        self._on_refused = on_refused
        self._on_bulk = on_bulk
        silent_max, handshakes_max = places_within(descriptor_limit())
        self._turnstile = Turnstile()
        self._silent = Places(silent_max)
        self._handshakes = Places(handshakes_max)

    async def run(self) -> None:
        """Accepts until cancelled."""
        async with trio.open_nursery() as nursery:
            for each in self._sockets:
                each.setblocking(False)
                nursery.start_soon(self._accept, trio.socket.from_stdlib_socket(each), nursery)

    async def _accept(self, listening: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                accepted, address = await listening.accept()
            except OSError as error:
                # The connection was gone before it was accepted, or descriptors ran out: neither ends the service.
                log.debug("accept failed: %s", error)
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            nursery.start_soon(self._serve, accepted, f"{address[0]} port {address[1]}")

    async def _serve(self, accepted: trio.socket.SocketType, address: str) -> None:
        with accepted:
            try:
                tune_link_socket(accepted, KERNEL_TIMEOUT_MS)
                if not await self._silent.occupy(partial(trio.lowlevel.wait_readable, accepted)):
                    return
                await self._turnstile.pass_through()
                paced = PacedStream(trio.SocketStream(accepted), self._turnstile)
                stream = server_stream(paced, self._identity(), tells_bulk=self._on_bulk is not None)
                if not await self._handshakes.occupy(stream.do_handshake):
                    self._on_refused(address, "the TLS handshake was not finished in time")
                    return
            except BulkOffered as offered:
                assert self._on_bulk is not None
                taken = socket.socket(fileno=accepted.detach())
                taken.setblocking(False)
                self._on_bulk(taken, offered.received, address)
                return
            except PeerError as error:
                self._on_refused(address, str(error))
                return
            except (trio.BrokenResourceError, OSError):
                return  # it went away
            paced.let_free()
            await self._on_stream(stream, address)
