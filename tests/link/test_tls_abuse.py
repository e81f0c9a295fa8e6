"""What the link puts up with from a hostile or broken other end: one test for every rule (FAULTS.md, S3 to S5)."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from OpenSSL import SSL
from OpenSSL._util import lib

from agent.core.errors import PeerError
from agent.link import tls_buffers
from agent.link.tls import TlsStream, client_stream, server_stream
from tests.link.key_update import KeyUpdater
from tests.link.tls_material import (
    RawEnd,
    exchange_with_server,
    good_pair,
    handshakes_with,
    in_trio,
    nodes,
    outcome,
    raw_context,
)

BOTH_SIDES = pytest.mark.parametrize("wrong_side", ["client", "server"])


@in_trio
async def test_no_session_is_resumed_and_early_data_is_never_offered() -> None:
    identity, context = good_pair()[1], raw_context(nodes()[0])
    _server, first = await exchange_with_server(context, identity)  # kept: a freed connection spoils its session
    session = first.connection.get_session()
    assert session is not None
    assert lib.SSL_SESSION_get_max_early_data(session._session) == 0
    near, far = trio.testing.memory_stream_pair()
    second, unrelated = RawEnd(near, context), RawEnd(near, context)
    second.connection.set_session(session)
    hellos = []
    for end in (second, unrelated):
        with pytest.raises(SSL.WantReadError):
            end.connection.do_handshake()
        hellos.append(end.taken())
    assert len(hellos[0]) > len(hellos[1])  # the session was offered
    await near.send_all(hellos[0])
    server = server_stream(far, identity)
    await handshakes_with(second, server)
    assert lib.SSL_session_reused(second.connection._ssl) == 0
    assert server.peer_certificate == nodes()[0].certificate


@in_trio
async def test_early_data_is_not_accepted() -> None:
    near, far = trio.testing.memory_stream_pair()
    client = RawEnd(near, raw_context(nodes()[0]))
    with pytest.raises(SSL.WantReadError):
        client.connection.do_handshake()
    await near.send_all(client.taken() + b"\x17\x03\x03\x00\x20" + bytes(32))
    error = await outcome(server_stream(far, good_pair()[1]))
    assert isinstance(error, PeerError)


@in_trio
async def test_a_flood_of_key_updates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_buffers, "_BYTES_WITHOUT_DATA_MAX", 16 * 1024)
    near, far = trio.testing.memory_stream_pair()
    updater = KeyUpdater()
    client, server = RawEnd(near, updater.context(raw_context(nodes()[0]))), server_stream(far, good_pair()[1])
    await handshakes_with(client, server)
    await near.send_all(b"".join(updater.key_update() for _ in range(1000)))
    for _ in range(2):
        with pytest.raises(PeerError, match="without any data"), trio.fail_after(1):
            await server.receive_some()


@in_trio
async def test_one_key_update_is_answered_and_data_goes_on_in_both_directions() -> None:
    near, far = trio.testing.memory_stream_pair()
    updater = KeyUpdater()
    client, server = RawEnd(near, updater.context(raw_context(nodes()[0]))), server_stream(far, good_pair()[1])
    await handshakes_with(client, server)
    await server.send_all(b"before")
    assert await client.receive() == b"before"
    await near.send_all(updater.key_update() + updater.data(b"under the new key"))
    assert await server.receive_some() == b"under the new key"
    await server.send_all(b"after")
    assert await client.receive() == b"after"


@in_trio
async def test_answers_to_key_updates_do_not_pile_up_in_a_node_that_only_receives() -> None:
    near, far = trio.testing.memory_stream_pair()
    updater = KeyUpdater()
    client, server = RawEnd(near, updater.context(raw_context(nodes()[0]))), server_stream(far, good_pair()[1])
    await handshakes_with(client, server)
    # The library makes the answer to an update when it meets the next one.
    for _ in range(5):
        await near.send_all(updater.key_update() + updater.key_update() + updater.data(b"x"))
        assert await server.receive_some() == b"x"
    with trio.move_on_after(1):
        await server.receive_some()
    assert not server._buffers.has_records
    with trio.move_on_after(1) as scope:
        assert await near.receive_some()
    assert not scope.cancelled_caught


@in_trio
async def test_half_a_handshake_message_after_the_handshake_makes_nobody_wait() -> None:
    near, far = trio.testing.memory_stream_pair()
    updater = KeyUpdater()
    client, server = RawEnd(near, updater.context(raw_context(nodes()[0]))), server_stream(far, good_pair()[1])
    await handshakes_with(client, server)
    await near.send_all(updater.record(b"\x18\x00\x00\x01", inner_type=22))
    with trio.move_on_after(1):
        await server.receive_some()
    with pytest.raises(PeerError, match="half a handshake message"):
        await server.send_all(b"x")


@in_trio
async def test_a_renegotiation_is_refused() -> None:
    near, far = trio.testing.memory_stream_pair()
    updater = KeyUpdater()
    client, server = RawEnd(near, updater.context(raw_context(nodes()[0]))), server_stream(far, good_pair()[1])
    await handshakes_with(client, server)
    await near.send_all(updater.record(b"\x01\x00\x00\x04abcd", inner_type=22))  # a ClientHello in the middle
    with pytest.raises(PeerError):
        await server.receive_some()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.7\r\n",
        bytes(5000),
        b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"\x16\x03\x01\x40\x00" * 3 + b"y" * 50_000,
        b"\x15\x03\x03\x00\x02\x02\x30",
        b"\x14\x03\x03\x00\x01\x01" * 50_000,
        b"",
    ],
)
@BOTH_SIDES
@in_trio
async def test_garbage_ends_the_handshake_with_a_reason_and_never_hangs(wrong_side: str, garbage: bytes) -> None:
    near, far = trio.testing.memory_stream_pair()
    client_identity, server_identity = good_pair()
    good = server_stream(far, server_identity) if wrong_side == "client" else client_stream(far, client_identity)
    await near.send_all(garbage)
    await near.send_eof()
    error = await outcome(good)
    assert isinstance(error, PeerError | trio.BrokenResourceError)
    assert "\n" not in str(error)


@in_trio
async def test_a_damaged_handshake_or_record_raises_only_the_peers_error() -> None:
    chance = random.Random(6)
    client_identity, server_identity = good_pair()
    for number in range(120):
        near, far = trio.testing.memory_stream_pair()
        client, server = client_stream(near, client_identity), server_stream(far, server_identity)
        damaged = near if number % 2 else far
        damage(damaged, chance)
        for error in await outcomes_with_data(client, server):
            assert error is None or isinstance(error, PeerError | trio.BrokenResourceError)


def damage(stream: trio.StapledStream, chance: random.Random) -> None:
    """Makes one byte of what `stream` sends first or second another one."""
    send = stream.send_stream.send_all
    when = chance.randrange(2)
    count = 0

    async def send_damaged(data: bytes | bytearray | memoryview) -> None:
        nonlocal count
        changed = bytearray(data)
        if count == when and changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        count += 1
        await send(bytes(changed))

    stream.send_stream.send_all = send_damaged


async def outcomes_with_data(client: TlsStream, server: TlsStream) -> list[Exception | None]:
    errors: list[Exception | None] = []

    async def run(stream: TlsStream) -> None:
        try:
            with trio.fail_after(60):
                await stream.do_handshake()
                await stream.send_all(b"hello")
                await stream.receive_some()
        except (PeerError, trio.BrokenResourceError) as error:
            errors.append(error)
        except trio.TooSlowError:
            pass  # a record that claims to be longer than it is: both wait, and the caller's deadline decides
        finally:
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, client)
        nursery.start_soon(run, server)
    return errors
