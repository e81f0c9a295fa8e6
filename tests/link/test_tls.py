"""The TLS stream keeps trio's contract for streams, and tells a close from a cut."""

from __future__ import annotations

import random
import socket

import pytest
import trio
import trio.testing

from agent.link.tls import RECORDS_PER_KEY_MAX, TlsStream, client_stream, server_stream
from tests.link.tls_material import RandomChunks, connected, good_pair, handshakes, in_trio, streams


@in_trio
async def test_trios_conformance_suite_passes() -> None:
    async def maker() -> tuple[TlsStream, TlsStream]:
        return await connected()

    async def clogged_maker() -> tuple[TlsStream, TlsStream]:
        near, far = trio.testing.lockstep_stream_pair()
        client_identity, server_identity = good_pair()
        client, server = client_stream(near, client_identity), server_stream(far, server_identity)
        await handshakes(client, server)
        return client, server

    await trio.testing.check_two_way_stream(maker, clogged_maker)


@pytest.mark.parametrize("piece_bytes_max", [1, 7, 100, 100_000])
@in_trio
async def test_data_arrives_whole_in_both_directions_at_once_however_it_is_cut(piece_bytes_max: int) -> None:
    near, far = trio.testing.memory_stream_pair()
    client_identity, server_identity = good_pair()
    client = client_stream(RandomChunks(near, 1, piece_bytes_max=piece_bytes_max), client_identity)
    server = server_stream(RandomChunks(far, 2, piece_bytes_max=piece_bytes_max), server_identity)
    await handshakes(client, server)
    size = min(400_000, 500 * piece_bytes_max)
    upward, downward = random.Random(3).randbytes(size), random.Random(4).randbytes(size)

    async def send(stream: TlsStream, data: bytes) -> None:
        for start in range(0, size, 70_000):
            await stream.send_all(data[start : start + 70_000])

    async def receive(stream: TlsStream, expected: bytes) -> None:
        received = b""
        while len(received) < size:
            received += await stream.receive_some(random.Random(len(received)).randint(1, 50_000))
        assert received == expected

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, client, upward)
        nursery.start_soon(send, server, downward)
        nursery.start_soon(receive, client, downward)
        nursery.start_soon(receive, server, upward)


@in_trio
async def test_one_write_of_many_megabytes_arrives() -> None:
    client, server = await connected()
    data = random.Random(5).randbytes(3_000_001)
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, data)
        while len(received) < len(data):
            received += await server.receive_some()
    assert received == data


@in_trio
async def test_what_was_agreed_on_is_known_on_both_sides() -> None:
    client, server = await connected()
    for stream in (client, server):
        assert stream.alpn == "pair-agent/1"
        assert stream.cipher == "TLS_AES_128_GCM_SHA256"
        assert stream.group in {"X25519MLKEM768", "X25519", "x25519", None}
        assert stream.peer_warning is None
    client_identity, server_identity = good_pair()
    assert client.peer_certificate == server_identity.certificate
    assert server.peer_certificate == client_identity.certificate
    assert client.group == server.group


@in_trio
async def test_both_sides_export_the_same_keys_and_other_connections_others() -> None:
    client, server = await connected()
    other, _ = await connected()
    key = client.export_keying_material(b"EXPORTER-pair-agent", 32)
    assert len(key) == 32
    assert key == server.export_keying_material(b"EXPORTER-pair-agent", 32)
    assert key != server.export_keying_material(b"EXPORTER-something else", 32)
    assert key != other.export_keying_material(b"EXPORTER-pair-agent", 32)


@in_trio
async def test_nothing_is_sent_read_or_told_before_the_handshake() -> None:
    client, _ = streams(*good_pair())
    for operation in (client.send_all(b"x"), client.receive_some(), client.wait_send_all_might_not_block()):
        with pytest.raises(trio.NeedHandshakeError):
            await operation
    with pytest.raises(trio.NeedHandshakeError):
        client.peer_certificate  # noqa: B018  the access itself is under test
    with pytest.raises(trio.NeedHandshakeError):
        client.export_keying_material(b"x", 32)


@in_trio
async def test_a_second_handshake_does_nothing() -> None:
    client, server = await connected()
    await client.do_handshake()
    await server.send_all(b"still here")
    assert await client.receive_some() == b"still here"


@in_trio
async def test_a_clean_close_reads_as_the_end() -> None:
    client, server = await connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        assert await server.receive_some() == b""
        assert await server.receive_some() == b""
        await server.aclose()


def test_a_close_with_unread_data_does_not_destroy_what_was_sent_last_on_a_real_socket() -> None:
    # The kernel answers a close with unread data by a reset, which throws away what the other end has not received yet.
    async def run() -> None:
        client_identity, server_identity = good_pair()
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * 1024 * 1024)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2 * 1024 * 1024)
        client = client_stream(near, client_identity)
        server = server_stream(await listener.accept(), server_identity)
        await handshakes(client, server)
        await server.send_all(b"never read")
        last_words = bytes(100_000)
        await client.send_all(last_words)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await trio.testing.wait_all_tasks_blocked()
            while data := await server.receive_some():
                received += data
            await server.aclose()
        assert received == last_words
        await listener.aclose()

    async def bounded() -> None:
        with trio.fail_after(30):
            await run()

    trio.run(bounded)


@in_trio
async def test_truncation_is_seen() -> None:
    client, server = await connected()
    await client.send_all(b"first half")
    await client.transport.aclose()
    assert await server.receive_some() == b"first half"
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="cut off"):
            await server.receive_some()


@in_trio
async def test_truncation_in_the_middle_of_a_record_is_seen() -> None:
    near, far = trio.testing.memory_stream_pair()
    client_identity, server_identity = good_pair()
    client, server = client_stream(near, client_identity), server_stream(far, server_identity)
    await handshakes(client, server)
    await client.send_all(b"whole")
    far.receive_stream.put_data(b"\x17\x03\x03\x01\x00 the first bytes of a record of 256")
    far.receive_stream.put_eof()
    assert await server.receive_some() == b"whole"
    with pytest.raises(trio.BrokenResourceError, match="cut off"):
        await server.receive_some()


@in_trio
async def test_a_link_that_dies_at_any_byte_of_the_handshake_breaks_and_never_hangs() -> None:
    client_identity, server_identity = good_pair()
    for dying in ("client", "server"):
        for alive_bytes in range(0, await _handshake_bytes(dying), 45):
            near, far = trio.testing.memory_stream_pair()
            client, server = client_stream(near, client_identity), server_stream(far, server_identity)
            await _die_after(near if dying == "client" else far, alive_bytes)
            broken = []

            async def run(stream: TlsStream, broken: list[TlsStream] = broken) -> None:
                try:
                    await stream.do_handshake()
                    await stream.receive_some()
                except trio.BrokenResourceError:
                    broken.append(stream)
                finally:
                    await stream.aclose()

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run, client)
                    nursery.start_soon(run, server)
            assert (server if dying == "client" else client) in broken, alive_bytes


async def _handshake_bytes(counted: str) -> int:
    """Returns how many bytes one side sends until the handshake is complete."""
    near, far = trio.testing.memory_stream_pair()
    client_identity, server_identity = good_pair()
    sending = near.send_stream if counted == "client" else far.send_stream
    send, sent = sending.send_all, 0

    async def count(data: bytes | bytearray | memoryview) -> None:
        nonlocal sent
        sent += len(data)
        await send(data)

    sending.send_all = count
    await handshakes(client_stream(near, client_identity), server_stream(far, server_identity))
    return sent


async def _die_after(stream: trio.StapledStream, alive_bytes: int) -> None:
    """Makes everything after the first `alive_bytes` that `stream` sends an end of the connection."""
    send, left = stream.send_stream.send_all, alive_bytes

    async def send_what_is_left(data: bytes | bytearray | memoryview) -> None:
        nonlocal left
        await send(bytes(data[:left]))
        left -= min(left, len(data))
        if not left:
            await stream.send_stream.aclose()

    stream.send_stream.send_all = send_what_is_left


@in_trio
async def test_a_cancelled_handshake_ends_cleanly() -> None:
    client, _ = streams(*good_pair())
    with trio.move_on_after(1) as scope:
        await client.do_handshake()
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError):
        await client.do_handshake()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")
    await client.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()


@in_trio
async def test_a_cancelled_receive_loses_nothing() -> None:
    client, server = await connected()
    with trio.move_on_after(1) as scope:
        await server.receive_some()
    assert scope.cancelled_caught
    await client.send_all(b"one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.receive_some()
    assert scope.cancelled_caught
    await client.send_all(b"two")
    assert await server.receive_some() == b"onetwo"


@in_trio
async def test_a_send_cancelled_before_it_began_leaves_the_stream_whole() -> None:
    client, server = await connected()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.send_all(b"never")
    await client.send_all(b"later")
    assert await server.receive_some() == b"later"


@in_trio
async def test_a_send_cancelled_in_the_middle_breaks_sending_and_not_receiving() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    client_identity, server_identity = good_pair()
    client, server = client_stream(near, client_identity), server_stream(far, server_identity)
    await handshakes(client, server)
    with trio.move_on_after(1):
        await client.send_all(b"x" * 100_000)
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"why?")
        assert await client.receive_some() == b"why?"


@in_trio
async def test_closing_is_bounded_when_the_other_end_neither_reads_nor_closes() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    client_identity, server_identity = good_pair()
    client, server = client_stream(near, client_identity), server_stream(far, server_identity)
    await handshakes(client, server)
    start = trio.current_time()
    await client.aclose()
    assert trio.current_time() - start <= 1.5
    client, server = await connected()
    start = trio.current_time()
    await client.aclose()
    assert trio.current_time() - start <= 0.5


@in_trio
async def test_a_second_task_in_one_direction_is_refused() -> None:
    client, _ = await connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive_some()
        nursery.cancel_scope.cancel()


@in_trio
async def test_renewal_is_due_after_as_many_records_as_one_key_is_good_for() -> None:
    client, server = await connected()
    client._records_sent = RECORDS_PER_KEY_MAX - 3
    await client.send_all(b"x" * 16 * 1024 * 2)
    assert not client.renewal_due
    await client.send_all(b"x")
    assert client.renewal_due
    assert not server.renewal_due


@in_trio
async def test_memory_stays_bounded_over_many_connections_and_much_data() -> None:
    client, server = await connected()
    block = bytes(256 * 1024)
    for _ in range(40):
        await client.send_all(block)
        received = 0
        while received < len(block):
            received += len(await server.receive_some())
        assert client._buffers.take_records() is None
    assert len(client._buffers._plain) + len(client._buffers._taken) < 600 * 1024
