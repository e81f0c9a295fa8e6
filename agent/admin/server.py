"""Accepts HTTP clients on listening sockets, a bounded number at a time, each in a task of its own.

Knows no routes and no HTTP. Invariants: at most `CONNECTIONS_MAX` connections, and one more at each listener that waits
for its turn; where places are short, whoever has kept the agent waiting for longest leaves, but nobody who is being
answered; whatever a client does ends its own connection only; running out of descriptors stops nothing but new clients;
cancelling ends everything at once.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence
from functools import partial

import trio
from starlette.types import ASGIApp

from agent.admin.http_connection import HttpConnection

CONNECTIONS_MAX = 64
ACCEPT_RETRY_DELAY_S = 0.5

_log = logging.getLogger("agent.admin")


class Places:
    """A bounded number of places. Each is a cancel scope: who gets it works within it, and leaves when it is cancelled.

    An occupant is either being answered, and then nobody takes its place, or the agent waits for it.
    """

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._taken: set[trio.CancelScope] = set()
        self._waited_for: dict[trio.CancelScope, None] = {}  # the longest first
        self._newcomers = trio.lowlevel.ParkingLot()

    async def take(self) -> trio.CancelScope:
        """Returns a place, at once if one is free or the agent waits for somebody; give it back with `leave`."""
        while len(self._taken) >= self._places_max:
            if self._waited_for:
                longest = next(iter(self._waited_for))
                self.leave(longest)
                longest.cancel()
            else:
                await self._newcomers.park()
        place = trio.CancelScope()
        self._taken.add(place)
        self._waited_for[place] = None  # here, because tasks that start together run in any order
        return place

    def leave(self, place: trio.CancelScope) -> None:
        """Gives a place back; nothing happens if it was lost already."""
        self._taken.discard(place)
        self._waited_for.pop(place, None)
        self._newcomers.unpark()

    @contextlib.contextmanager
    def waiting_for(self, place: trio.CancelScope) -> Iterator[None]:
        """Within it the agent waits for the occupant, who may lose the place."""
        if place in self._taken:
            self._waited_for[place] = None
            self._newcomers.unpark()
        try:
            yield
        finally:
            self._waited_for.pop(place, None)


async def serve(
    application: ASGIApp,
    listeners: Sequence[socket.socket],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; takes over the listening `listeners` and closes them."""
    places = Places(CONNECTIONS_MAX)

    async def converse(stream: trio.SocketStream, place: trio.CancelScope) -> None:
        try:
            with place:
                await HttpConnection(application, stream, partial(places.waiting_for, place)).run()
        except Exception:
            _log.exception("A connection to the admin port ended because of a fault in the agent.")
        finally:
            stream.socket.close()
            places.leave(place)

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                # Out of descriptors, most likely: the agent has more important uses for them than this port.
                _log.warning("The admin port cannot take a connection: %s", error)
                await trio.sleep(ACCEPT_RETRY_DELAY_S)
                continue
            try:
                place = await places.take()
            except trio.Cancelled:
                stream.socket.close()
                raise
            nursery.start_soon(converse, stream, place)

    with contextlib.ExitStack() as stack:
        for listener in listeners:
            listener.setblocking(False)
            stack.callback(listener.close)
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept, trio.SocketListener(trio.socket.from_stdlib_socket(listener)))
            task_status.started()
