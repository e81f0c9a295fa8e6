"""One HTTP/1.1 connection (RFC 9112) over a trio stream: h11 for the protocol, ASGI 2.4 towards the application.

One task, no queue, no shield: requests are answered one after the other, the application reads and writes the stream
through `_receive` and `_send`. So whatever is cancelled ends at once, and what a client sends is read only when asked
for. It tells when it waits for the client, to ask or to read, so that others can be preferred. Knows no routes.
Bounded: the head, the time for it, the pipelined bytes kept, each send, the requests.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import h11
import trio
from starlette.types import ASGIApp, Message, Scope

HEAD_BYTES_MAX = 16 * 1024
HEAD_TIMEOUT_S = 10.0  # also for the next request of a connection that is kept
SEND_TIMEOUT_S = 10.0
LINGER_TIMEOUT_S = 1.0
LINGER_READS_MAX = 16
REQUESTS_MAX = 1000
RECEIVE_BYTES = 16 * 1024

_log = logging.getLogger("agent.admin")


class ClientGoneError(OSError):
    """The client closed the connection or does not read; what ASGI 2.4 wants an application's send to raise."""


class HttpConnection:
    """Serves the requests of one client."""

    def __init__(
        self,
        application: ASGIApp,
        stream: trio.SocketStream,
        waiting: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`waiting()` is entered while the client is waited for: for a whole head, for it to read, for its end."""
        self._application = application
        self._stream = stream
        self._waiting = waiting
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._method = b""
        self._body_ended = False
        self._pipelined_bytes = 0

    async def run(self) -> None:
        """Returns when the connection is over; the caller closes the stream. Nothing that a client does raises."""
        try:
            for _ in range(REQUESTS_MAX):
                request = await self._next_request()
                if request is None:
                    break
                await self._answer(request)
                self._skip_body_received()
                if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
                    break
                self._protocol.start_next_cycle()
            await self._linger()
        except (ClientGoneError, trio.BrokenResourceError):
            return

    async def _next_request(self) -> h11.Request | None:
        self._body_ended = False
        self._pipelined_bytes = 0
        request: h11.Request | None = None
        with self._waiting(), trio.move_on_after(HEAD_TIMEOUT_S):
            try:
                event = await self._next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint)
            else:
                request = event if isinstance(event, h11.Request) else None
        # Whoever lost its place while the head arrived must not begin something that would be cut off.
        await trio.lowlevel.checkpoint_if_cancelled()
        return request

    async def _answer(self, request: h11.Request) -> None:
        self._method = request.method
        try:
            await self._application(self._scope(request), self._receive, self._send)
        except ClientGoneError:
            raise
        except Exception:
            _log.exception("A request to the admin port failed because of a fault in the agent.")
            await self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _skip_body_received(self) -> None:
        """Passes over what has arrived of a body that the application did not want."""
        with contextlib.suppress(h11.RemoteProtocolError):
            while self._protocol.their_state is h11.SEND_BODY:
                if self._protocol.next_event() is h11.NEED_DATA:
                    return

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._protocol.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type) or event is h11.PAUSED
                return event
            if self._protocol.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[]))
            self._protocol.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))

    async def _receive(self) -> Message:
        if not self._body_ended:
            try:
                event = await self._next_event()
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                return {"type": "http.disconnect"}
            if isinstance(event, h11.Data):
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            self._body_ended = True
            if isinstance(event, h11.EndOfMessage):
                return {"type": "http.request", "body": b"", "more_body": False}
        await self._wait_until_gone()
        return {"type": "http.disconnect"}

    async def _wait_until_gone(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while self._pipelined_bytes < HEAD_BYTES_MAX:
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
                self._protocol.receive_data(data)
                self._pipelined_bytes += len(data)
                if not data:
                    return
            # Reading on would keep ever more of what the client sends ahead; it gets no more attention until answered.
            await trio.sleep_forever()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"date", formatdate(usegmt=True).encode("ascii"))]
            await self._write(h11.Response(status_code=message["status"], headers=headers))
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            if body and self._method != b"HEAD":
                await self._write(h11.Data(data=body))
            if not message.get("more_body", False):
                await self._write(h11.EndOfMessage())

    async def _refuse(self, status: int) -> None:
        """Answers without the application, if no answer was begun."""
        if self._protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await self._write(h11.Response(status_code=status, headers=headers))
            await self._write(h11.EndOfMessage())

    async def _write(self, event: h11.Event) -> None:
        data = self._protocol.send(event)
        if not data:
            return
        try:
            with self._waiting(), trio.fail_after(SEND_TIMEOUT_S):
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            raise ClientGoneError("the client does not read") from error

    async def _linger(self) -> None:
        # Closing with unread bytes resets the connection, and the client might lose the answer (RFC 9112, 9.6).
        with self._waiting(), trio.move_on_after(LINGER_TIMEOUT_S):
            await self._stream.send_eof()
            for _ in range(LINGER_READS_MAX):
                if not await self._stream.receive_some(RECEIVE_BYTES):
                    return

    def _scope(self, request: h11.Request) -> Scope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(bytes(name), bytes(value)) for name, value in request.headers],
            "client": _address(self._stream.socket.getpeername),
            "server": _address(self._stream.socket.getsockname),
        }


def _address(ask: Any) -> tuple[str, int] | None:
    try:
        name = ask()
    except OSError:  # the client is gone by now
        return None
    return name[0], name[1]
