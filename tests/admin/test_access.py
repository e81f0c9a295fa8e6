"""Who is refused: foreign pages, callers without the token, and whatever is too large, too slow or too much."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from starlette.requests import Request

from agent.admin import arguments, http_connection, server
from agent.admin.access import Access, Gate
from agent.admin.problem import RefusedError
from tests.admin.fake_control import LARGE, TOKEN, deaf_client, parse_reply, sample_status, serving


def request(client: str, server_address: str, **headers: str) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": (client, 5), "server": (server_address, 3003)})


@pytest.mark.parametrize(
    ("interface", "host", "welcome"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LocalHost:3003", True),
        ("127.0.0.1", "127.0.0.1:3003", True),
        ("127.0.0.1", "127.1.2.3", True),
        ("127.0.0.1", "[::1]:3003", True),
        ("127.0.0.1", "::1", False),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "evil.example:3003", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "evil.localhost", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "localhost@evil.example", False),
        ("127.0.0.1", "evil.example@localhost", False),
        ("127.0.0.1", "localhost:3003:1", False),
        ("127.0.0.1", "localhost:x", False),
        ("127.0.0.1", "[::1]evil", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "0x7f.1", False),
        ("127.0.0.1", "192.168.10.11:3003", False),
        ("192.168.10.11", "192.168.10.11:3003", True),
        ("192.168.10.11", "192.168.10.12:3003", False),
        ("192.168.10.11", "line-4-a:3003", False),
        ("0.0.0.0", "192.168.10.11:3003", True),
        ("::", "[fd00::11]:3003", True),
        ("All interfaces", "evil.example", False),
        ("localhost", "127.0.0.1", True),
    ],
)
def test_a_rebound_dns_name_does_not_pass(interface: str, host: str, welcome: bool) -> None:
    gate = Gate(interface=interface, token=TOKEN)
    if welcome:
        gate.check_origin(request("127.0.0.1", "127.0.0.1", host=host))
    else:
        with pytest.raises(RefusedError) as refused:
            gate.check_origin(request("127.0.0.1", "127.0.0.1", host=host))
        assert refused.value.status == 421


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        ("http://localhost:3003", True),
        ("http://LOCALHOST:3003", True),
        ("http://localhost", False),
        ("http://localhost:8080", False),
        ("https://localhost:3003", False),
        ("http://127.0.0.1:3003", False),
        ("http://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_page_of_another_site_is_refused(origin: str, welcome: bool) -> None:
    gate = Gate(interface="127.0.0.1", token=TOKEN)
    if welcome:
        gate.check_origin(request("127.0.0.1", "127.0.0.1", host="localhost:3003", origin=origin))
    else:
        with pytest.raises(RefusedError) as refused:
            gate.check_origin(request("127.0.0.1", "127.0.0.1", host="localhost:3003", origin=origin))
        assert refused.value.status == 403


@pytest.mark.parametrize(
    ("access", "client", "server_address", "token_needed"),
    [
        (Access.PROBE, "192.168.10.99", "192.168.10.11", False),
        (Access.READ, "127.0.0.1", "127.0.0.1", False),
        (Access.READ, "::1", "::1", False),
        (Access.READ, "::ffff:127.0.0.1", "::ffff:127.0.0.1", False),
        (Access.READ, "192.168.10.99", "192.168.10.11", True),
        (Access.READ, "192.168.10.11", "192.168.10.11", True),
        (Access.READ, "127.0.0.1", "192.168.10.11", True),
        (Access.READ, "", "", True),
        (Access.ACT, "127.0.0.1", "127.0.0.1", True),
        (Access.ACT, "192.168.10.99", "192.168.10.11", True),
    ],
)
def test_reading_is_free_on_the_loopback_interface_only_and_acting_nowhere(
    access: Access, client: str, server_address: str, token_needed: bool
) -> None:
    gate = Gate(interface="0.0.0.0", token=TOKEN)
    gate.check_access(request(client, server_address, authorization=f"Bearer {TOKEN}"), access)
    if token_needed:
        with pytest.raises(RefusedError) as refused:
            gate.check_access(request(client, server_address), access)
        assert refused.value.status == 401
    else:
        gate.check_access(request(client, server_address), access)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}t",
        f"Bearer {TOKEN} x",
        "Bearer é",
    ],
)
def test_acting_without_the_exact_token_is_unauthorized(authorization: str) -> None:
    gate = Gate(interface="127.0.0.1", token=TOKEN)
    with pytest.raises(RefusedError) as refused:
        gate.check_access(request("127.0.0.1", "127.0.0.1", authorization=authorization), Access.ACT)
    assert refused.value.status == 401
    assert refused.value.headers == {"WWW-Authenticate": 'Bearer realm="pair-agent"'}


def test_the_token_is_not_in_the_repr_of_the_gate() -> None:
    assert TOKEN not in repr(Gate(interface="127.0.0.1", token=TOKEN))


ACTING = ["/v1/failover", "/v1/failback", "/v1/maintenance", "/v1/test/heartbeat"]


@pytest.mark.parametrize("path", ACTING)
def test_no_action_happens_without_the_token(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            for token in (None, "wrong"):
                answer = await api.ask("POST", path, token=token, body=b'{"on": true}')
                assert answer.status == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
            assert api.control.acted == []

    trio.run(main)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403)],
)
@pytest.mark.parametrize("path", ["/active", "/v1/status", "/nothing"])
def test_a_foreign_page_gets_nothing_even_from_a_path_that_needs_no_secret(
    tmp_path: Path, path: str, headers: dict[str, str], status: int
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            answer = await api.ask("GET", path, headers=headers)
            assert (answer.status, answer.json()["status"]) == (status, status)
            assert b"line-4-a" not in answer.body

    trio.run(main)


def test_a_cross_site_form_post_is_refused_even_with_the_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            foreign = {"Origin": "http://evil.example"}
            assert (await api.ask("POST", "/v1/failover", token=TOKEN, headers=foreign)).status == 403
            form = {"Content-Type": "text/plain"}
            answer = await api.ask("POST", "/v1/maintenance", token=TOKEN, headers=form, body=b'{"on": true}')
            assert answer.status == 415
            assert api.control.acted == []

    trio.run(main)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 65537\r\n\r\n",
        b"Content-Length: 9999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n10001\r\n" + b" " * 0x10001 + b"\r\n0\r\n\r\n",
    ],
    ids=["declared", "declared enormous", "chunked"],
)
def test_a_body_larger_than_the_bound_is_refused(tmp_path: Path, head: bytes) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            start = f"POST /v1/maintenance HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
            start += b"Content-Type: application/json\r\nConnection: close\r\n"
            answer = parse_reply(await api.exchange(start + head))
            assert answer.status == 413

    trio.run(main)


def test_a_body_that_does_not_arrive_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "BODY_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with serving(tmp_path) as api:
            start = f"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
            answer = parse_reply(await api.exchange(start + b"Content-Length: 10\r\n\r\n{"))
            assert answer.status == 408
            assert api.control.acted == []

    trio.run(main)


@pytest.mark.parametrize("sent", [b"", b"GET /active HTTP/1.1\r\nHo"], ids=["silent", "half a head"])
def test_a_client_that_does_not_ask_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_connection, "HEAD_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with serving(tmp_path) as api:
            assert await api.exchange(sent) == b""

    trio.run(main)


def test_a_head_larger_than_the_bound_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            received = await api.exchange(b"GET /active HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000)
            assert received == b"" or received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))

    trio.run(main)


def test_a_client_that_does_not_read_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "SEND_TIMEOUT_S", 0.05)
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 1)

    async def main() -> None:
        async with serving(tmp_path, status_now=LARGE) as api:
            with deaf_client(api.port) as client:
                await trio.lowlevel.wait_readable(client)
                assert (await api.ask("GET", "/liveness")).status == 200

    trio.run(main)


def test_the_agent_stops_at_once_although_a_client_does_not_read(tmp_path: Path) -> None:
    async def main() -> None:
        with trio.fail_after(http_connection.SEND_TIMEOUT_S / 2):
            async with serving(tmp_path, status_now=LARGE) as api:
                client = deaf_client(api.port)
                await trio.lowlevel.wait_readable(client)
        client.close()

    trio.run(main)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"\x00" * 1000,
        b"GET\r\n\r\n",
        b"GET /active HTTP/1.1\r\n\r\n",
        b"GET /active HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/failover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /active HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 30,
    ],
)
def test_garbage_and_other_protocols_end_their_own_connection_only(tmp_path: Path, data: bytes) -> None:
    async def main() -> None:
        async with serving(tmp_path) as api:
            async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
                await stream.send_all(data)
                await stream.send_eof()
                received = b""
                try:
                    async for chunk in stream:
                        received += chunk
                except trio.BrokenResourceError:
                    pass  # closed before everything was read
            assert b"HTTP/1.1 200" not in received
            assert b"Traceback" not in received
            assert (await api.ask("GET", "/active")).status == 200
            assert api.control.acted == []

    trio.run(main)


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: ?\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ],
    ids=["h2c", "h2c malformed", "websocket"],
)
def test_no_upgrade_leads_around_the_rules(tmp_path: Path, upgrade: bytes) -> None:
    async def main() -> None:
        async with serving(tmp_path, status_now=sample_status(role="standby")) as api:
            start = b"GET /active HTTP/1.1\r\nHost: localhost\r\n" + upgrade
            received = await api.exchange(
                start + b"\r\nGET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            assert received.startswith(b"HTTP/1.1 503 ")
            assert b"HTTP/1.1 404 " in received
            assert b"HTTP/1.1 101 " not in received

    trio.run(main)
