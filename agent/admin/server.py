"""Accepts HTTP clients on listening sockets, a bounded number at a time, each in a task of its own.

Knows no routes and no HTTP. Invariants: at most `CONNECTIONS_MAX` connections; whatever a client does ends its own
connection only; running out of descriptors stops nothing but new clients; cancelling ends everything at once.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence

import trio
from starlette.types import ASGIApp

from agent.admin.http_connection import HttpConnection

CONNECTIONS_MAX = 64
ACCEPT_RETRY_DELAY_S = 0.5

_log = logging.getLogger("agent.admin")


async def serve(
    application: ASGIApp,
    listeners: Sequence[socket.socket],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; takes over the listening `listeners` and closes them."""
    slots = trio.Semaphore(CONNECTIONS_MAX)

    async def converse(stream: trio.SocketStream) -> None:
        try:
            await HttpConnection(application, stream).run()
        except Exception:
            _log.exception("A connection to the admin port ended because of a fault in the agent.")
        finally:
            stream.socket.close()
            slots.release()

    async def accept(listener: trio.SocketListener) -> None:
        while True:
            await slots.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:
                # Out of descriptors, most likely: the agent has more important uses for them than this port.
                _log.warning("The admin port cannot take a connection: %s", error)
                slots.release()
                await trio.sleep(ACCEPT_RETRY_DELAY_S)
                continue
            nursery.start_soon(converse, stream)

    with contextlib.ExitStack() as stack:
        for listener in listeners:
            listener.setblocking(False)
            stack.callback(listener.close)
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept, trio.SocketListener(trio.socket.from_stdlib_socket(listener)))
            task_status.started()
