"""HTTP/1.1 as clients use it: connections kept, requests sent ahead, odd chunkings, heads only."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from starlette.types import Receive, Scope, Send

from agent.admin import http_connection
from agent.admin.control import Action
from agent.admin.http_connection import HttpConnection
from tests.admin.fake_control import TOKEN, serving

LAST = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def statuses(received: bytes) -> list[int]:
    """The status codes of all answers in `received`."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


def test_a_connection_is_kept_for_the_next_request(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api, await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
            for _ in range(3):
                await stream.send_all(b"GET /active HTTP/1.1\r\nHost: localhost\r\n\r\n")
                received = b""
                while not received.endswith(b"active\n"):
                    received += await stream.receive_some()

    trio.run(main)


def test_requests_sent_ahead_are_answered_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            ahead = (
                b"GET /active HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"GET /standby HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            assert statuses(await api.exchange(ahead + LAST)) == [200, 503, 404]

    trio.run(main)


def test_a_flood_of_requests_sent_ahead_ends_with_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "REQUESTS_MAX", 3)

    async def main() -> None:
        async with serving(tmp_path) as api:
            flood = b"GET /active HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10
            assert statuses(await api.exchange(flood)) == [200, 200, 200]

    trio.run(main)


def test_a_refused_body_does_not_become_the_next_request(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            hidden = (
                b"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
                + TOKEN.encode()
                + b"\r\n\r\n"
            )
            head = f"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(hidden)}\r\n\r\n".encode()
            assert statuses(await api.exchange(head + hidden + LAST)) == [401, 404]
            assert api.control.acted == []

    trio.run(main)


def test_a_request_is_understood_byte_by_byte(tmp_path: Path) -> None:
    body = b'{"on": true}'
    head = f"POST /v1/maintenance HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
    framings = {
        "length": f"Content-Length: {len(body)}\r\n\r\n".encode() + body,
        "chunks": b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n" + body[at : at + 1] + b"\r\n" for at in range(len(body)))
        + b"0\r\n\r\n",
    }

    async def main() -> None:
        async with serving(tmp_path) as api:
            for framing in framings.values():
                request = head.encode() + b"Content-Type: application/json\r\n" + framing
                async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
                    for at in range(len(request)):
                        await stream.send_all(request[at : at + 1])
                    assert statuses(b"".join([chunk async for chunk in stream])) == [200]
            assert api.control.acted == [(Action.MAINTENANCE, {"on": True})] * 2

    trio.run(main)


def test_a_client_may_ask_first_whether_its_body_is_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api, await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
            head = f"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 2\r\n"
            head += "Expect: 100-continue\r\nConnection: close\r\n\r\n"
            await stream.send_all(head.encode())
            assert statuses(await stream.receive_some()) == [100]
            await stream.send_all(b"{}")
            assert statuses(b"".join([chunk async for chunk in stream])) == [200]

    trio.run(main)


def test_a_head_request_gets_the_head_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("HEAD", "/active")
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["content-length"] == str(len("active\n"))

    trio.run(main)
    assert caplog.records == []


def test_a_client_that_hangs_up_in_its_body_does_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
                head = f"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
                await stream.send_all(head.encode() + b"Content-Length: 2\r\n\r\n{")
                await stream.send_eof()
                assert statuses(b"".join([chunk async for chunk in stream])) == [400]
            assert api.control.acted == []

    trio.run(main)


def test_what_a_client_sends_while_it_waits_is_not_kept_without_bound() -> None:
    async def wait_for_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with (
            listener,
            await trio.testing.open_stream_to_socket_listener(listener) as client,
            await listener.accept() as stream,
            trio.open_nursery() as nursery,
        ):
            connection = HttpConnection(wait_for_the_end, stream)
            nursery.start_soon(connection.run)
            await client.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            nursery.start_soon(client.send_all, b"x" * 10_000_000)
            await trio.testing.wait_all_tasks_blocked(0.05)
            kept, _ = connection._protocol.trailing_data
            assert 0 < len(kept) < http_connection.HEAD_BYTES_MAX + http_connection.RECEIVE_BYTES
            nursery.cancel_scope.cancel()

    trio.run(main)
