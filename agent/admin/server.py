"""Serves an ASGI application over HTTP on trio, bounded: hypercorn's protocol, with this module's connections.

hypercorn's own accept loop is not used: it takes any number of connections, lets an error of one end them all, and
sends under a shield without a deadline, so that one client that never reads would keep the agent from stopping.
Knows no routes. Invariants: at most `CONNECTIONS_MAX` connections; no client holds one without progress for ever;
whatever a client does ends its own connection only; cancelling ends all of them at once.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

CONNECTIONS_MAX = 64
HEAD_BYTES_MAX = 16 * 1024
IDLE_TIMEOUT_S = 10.0  # also for a request's head to arrive
SEND_TIMEOUT_S = 10.0
ACCEPT_RETRY_DELAY_S = 0.5

_log = logging.getLogger("agent.admin")
_HTTP_2_PREFACE = b"PRI * HTTP/2.0"


async def serve(
    application: ASGIApp,
    listeners: Sequence[socket.socket],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; takes over the listening `listeners` and closes them."""
    config = _hypercorn_config()
    slots = trio.Semaphore(CONNECTIONS_MAX)
    open_streams: set[BoundedStream] = set()

    async def converse(stream: BoundedStream) -> None:
        open_streams.add(stream)
        try:
            await _converse(application, config, stream)
        finally:
            open_streams.discard(stream)
            stream.close()
            slots.release()

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            await slots.acquire()
            try:
                accepted = await listener.accept()
            except OSError as error:
                # Out of descriptors, most likely: the agent has more important uses for them than this port.
                _log.warning("The admin port cannot take a connection: %s", error)
                slots.release()
                await trio.sleep(ACCEPT_RETRY_DELAY_S)
                continue
            nursery.start_soon(converse, BoundedStream(accepted))

    async with contextlib.AsyncExitStack() as stack:
        for listener in listeners:
            listener.setblocking(False)
            stack.callback(listener.close)
        nursery = await stack.enter_async_context(trio.open_nursery())
        try:
            for listener in listeners:
                nursery.start_soon(accept, trio.SocketListener(trio.socket.from_stdlib_socket(listener)))
            task_status.started()
            await trio.sleep_forever()
        finally:
            # hypercorn sends under a shield: only a closed socket ends that before its deadline.
            for stream in tuple(open_streams):
                stream.close()


class BoundedStream:
    """What hypercorn needs of a TCP stream, each send with a deadline, HTTP/2 without TLS refused."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._first_bytes = b""
        self.socket = stream.socket

    async def send_all(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError if the client does not take `data` within `SEND_TIMEOUT_S`."""
        with trio.move_on_after(SEND_TIMEOUT_S) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            self.close()
            raise trio.BrokenResourceError("the client does not read")

    async def receive_some(self, bytes_max: int) -> bytes:
        data = bytes(await self._stream.receive_some(bytes_max))
        if len(self._first_bytes) < len(_HTTP_2_PREFACE):
            self._first_bytes = (self._first_bytes + data)[: len(_HTTP_2_PREFACE)]
            if self._first_bytes == _HTTP_2_PREFACE:
                return b""
        return data

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def close(self) -> None:
        """Closes at once, from any task; whoever waits on the stream is woken."""
        self.socket.close()


async def _converse(application: ASGIApp, config: Config, stream: BoundedStream) -> None:
    # The casts: hypercorn annotates each ASGI message on its own where starlette says mapping, and TLS streams only,
    # although it takes a stream without do_handshake() for plain TCP.
    connection = TCPServer(
        ASGIWrapper(cast(Any, application)), config, WorkerContext(None), ConnectionState({}), cast(Any, stream)
    )
    try:
        await connection.run()
    except* Exception:
        _log.debug("A connection to the admin port ended with an error.", exc_info=True)


def _hypercorn_config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = _log
    config.include_server_header = False
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    config.keep_alive_timeout = IDLE_TIMEOUT_S
    config.websocket_max_message_size = HEAD_BYTES_MAX
    config.h2_max_concurrent_streams = 1  # an upgrade to HTTP/2 can be asked for; the application refuses it
    return config
