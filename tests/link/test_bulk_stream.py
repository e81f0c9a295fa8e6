"""A bulk stream delivers pieces whole and in order, stays small on a slow network, and never waits for ever."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from agent.core.bulk_frames import PIECE_BYTES_MAX
from agent.core.bulk_window import WINDOW_BYTES_MAX
from agent.link import bulk_stream
from agent.link.bulk_stream import STALL_S, BulkStream, Data, Payload
from agent.link.tls import RECORD_BYTES_MAX, RECORDS_PER_KEY_LIMIT, RECORDS_PER_KEY_MAX
from tests.link.bulk_material import SlowStream, bulk_pair, pump_window, send, shown
from tests.link.tls_material import RandomChunks, in_trio


def pieces(seed: int, count: int) -> list[bytes]:
    """Messages ("m:") and data ("d:") of all sizes that are sent in different ways."""
    chance = random.Random(seed)
    sizes = (1, 100, 2_043, 2_048, 4_096, 16_384, 32_768, 32_769, 65_536, 300_000, PIECE_BYTES_MAX)
    return [chance.choice((b"m:", b"d:")) + chance.randbytes(chance.choice(sizes)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
@in_trio
async def test_messages_and_data_arrive_whole_and_in_order_in_both_directions_at_once(seed: int) -> None:
    upward, downward = pieces(seed, 40), pieces(seed + 100, 40)
    async with bulk_pair() as (client, server):
        found: dict[str, list[bytes]] = {}

        async def receive(name: str, stream: BulkStream, count: int) -> None:
            found[name] = [shown(await stream.receive()) for _ in range(count)]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, upward)
            nursery.start_soon(send, server, downward)
            nursery.start_soon(receive, "server", server, len(upward))
            nursery.start_soon(receive, "client", client, len(downward))
        assert found == {"server": upward, "client": downward}


@in_trio
async def test_pieces_arrive_however_the_network_cuts_them() -> None:
    near, far = trio.testing.memory_stream_pair()
    said = pieces(7, 12)
    async with (
        bulk_pair(RandomChunks(near, 1, piece_bytes_max=40_000), RandomChunks(far, 2, piece_bytes_max=40_000)) as (
            client,
            server,
        ),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, client, said)
        assert [shown(await server.receive()) for _ in said] == said


@in_trio
async def test_small_pieces_leave_together_and_only_when_asked() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with bulk_pair(near, far) as (client, server):
        await pump_window(client, server)
        writes = 0
        send_all = near.send_stream.send_all

        async def count(data: bytes) -> None:
            nonlocal writes
            writes += 1
            await send_all(data)

        near.send_stream.send_all = count
        for _ in range(20):
            await client.send_data(bytes(4096))
        assert writes == 0
        await client.flush()
        assert writes == 1
        assert [len(shown(await server.receive())) for _ in range(20)] == [4098] * 20


@in_trio
async def test_over_10_kilobytes_a_second_about_one_second_is_queued_and_requests_still_pass() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        slow_near, slow_far = SlowStream(near, nursery, 10_000), SlowStream(far, nursery, 10_000)
        async with bulk_pair(slow_near, slow_far) as (client, server):
            slow_near.queued_bytes_max = slow_far.queued_bytes_max = 0
            data = random.Random(1).randbytes(PIECE_BYTES_MAX)
            answers: list[float] = []

            async def answer() -> None:
                while isinstance(await client.receive(), Payload):
                    answers.append(trio.current_time())

            async with trio.open_nursery() as within:
                within.start_soon(send, client, [b"d:" + data])
                within.start_soon(answer)
                within.start_soon(server.receive)
                began = trio.current_time()
                await send(server, [b"m:a request"])
                await trio.sleep(60)
                within.cancel_scope.cancel()
            assert answers
            assert answers[0] - began < 0.5, "what goes the other way does not wait"
            assert slow_near.queued_bytes_max <= 11_000
            assert server.statistics.wire_bytes_received > 500_000
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_fast_network_gets_the_whole_window_soon() -> None:
    async with bulk_pair() as (client, server):
        began = trio.current_time()
        await pump_window(client, server)
        assert client.statistics.window_bytes == WINDOW_BYTES_MAX
        assert trio.current_time() - began < 1


@in_trio
async def test_on_a_fast_network_credit_waits_for_no_timer() -> None:
    async with bulk_pair() as (client, server):
        await pump_window(client, server)
        began = trio.current_time()
        await pump_window(client, server)
        assert trio.current_time() == began


@in_trio
async def test_a_sender_waits_for_a_receiver_that_takes_nothing_and_goes_on_when_it_does() -> None:
    async with bulk_pair() as (client, server):
        await pump_window(client, server)
        noise = random.Random(1).randbytes(PIECE_BYTES_MAX)
        sent = 0

        async def send_on() -> None:
            nonlocal sent
            while sent < 100:
                await client.send_data(noise)
                sent += 1
            await client.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_on)
            await trio.sleep(5)
            assert sent * PIECE_BYTES_MAX <= WINDOW_BYTES_MAX + 2 * PIECE_BYTES_MAX
            for _ in range(100):
                shown(await server.receive())
        assert sent == 100


@in_trio
async def test_two_ends_that_both_send_before_they_receive_do_not_block_each_other() -> None:
    async with bulk_pair() as (client, server):
        said = [b"d:" + bytes(100_000)] * 30

        async def send_then_receive(stream: BulkStream) -> None:
            await send(stream, said)
            for _ in said:
                shown(await stream.receive())

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                # Neither window opens beyond what the other end puts aside, so both must give credit meanwhile.
                nursery.start_soon(send_then_receive, client)
                await trio.sleep(1)
                nursery.start_soon(send_then_receive, server)


@in_trio
async def test_where_very_many_small_pieces_lie_aside_nobody_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_stream, "ASIDE_FRAMES_MAX", 50)
    async with bulk_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(send, client, [b"m:x"] * 100)
        nursery.start_soon(send, server, [b"d:" + bytes(PIECE_BYTES_MAX)])
        await trio.sleep(1)
        await send(client, [b"m:y"] * 100)
        await trio.sleep(5 * STALL_S)
        assert len(server._aside) == 100, "what came before it was too much"
        assert [shown(await server.receive()) for _ in range(200)] == [b"m:x"] * 100 + [b"m:y"] * 100
        assert len(shown(await client.receive())) == 2 + PIECE_BYTES_MAX


@in_trio
async def test_compression_begins_on_a_slow_network_where_it_pays() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        slow = SlowStream(near, nursery, 1_000_000)
        async with bulk_pair(slow, far) as (client, server):
            noise = random.Random(3).randbytes(100_000)
            said = [b"d:" + b"a line of a log file\n" * 30_000] * 12 + [b"d:" + noise] * 3
            async with trio.open_nursery() as within:
                within.start_soon(send, client, said)
                assert [shown(await server.receive()) for _ in said] == said
            statistics = client.statistics
            assert statistics.compressing
            assert statistics.wire_bytes_sent < statistics.data_bytes_sent / 2
            assert server.statistics.data_bytes_received == statistics.data_bytes_sent
            assert 0 < statistics.bytes_per_second < 2_000_000
            assert not server.statistics.compressing
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_rate_limit_holds() -> None:
    async with bulk_pair() as (client, server):
        client.limit_rate(1_000_000)
        began = trio.current_time()
        await pump_window(client, server, 5)
        assert 4.9 < trio.current_time() - began < 6
        client.limit_rate(None)
        began = trio.current_time()
        await pump_window(client, server, 5)
        assert trio.current_time() - began < 2


@in_trio
async def test_renewal_is_due_by_what_was_sent_and_by_what_was_received() -> None:
    async with bulk_pair() as (client, server):
        assert not client.renewal_due
        client.tls._records_sent = RECORDS_PER_KEY_MAX
        assert client.renewal_due
        server._reader.received_bytes = RECORDS_PER_KEY_MAX * RECORD_BYTES_MAX - 1
        assert not server.renewal_due
        server._reader.received_bytes += 1
        assert server.renewal_due
        server._reader.received_bytes = client._sender.window.sent_bytes


@in_trio
async def test_beyond_the_bound_of_the_keys_nothing_is_sent() -> None:
    async with bulk_pair() as (client, server):
        client.tls._records_sent = RECORDS_PER_KEY_LIMIT - 1
        await send(client, [b"m:the last record"])
        assert shown(await server.receive()) == b"m:the last record"
        await client.send_payload(b"x")
        with pytest.raises(trio.BrokenResourceError, match="used up"):
            await client.flush()


@in_trio
async def test_a_second_receiver_is_refused() -> None:
    async with bulk_pair() as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive()
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_piece_keeps_its_bytes_until_it_is_released() -> None:
    async with bulk_pair() as (client, server):
        said = [b"d:" + bytes([number]) * 200_000 for number in range(30)]
        held: list[Data] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, said)
            for _ in said:
                item = await server.receive()
                assert isinstance(item, Data)
                held.append(item)
        assert [shown(item) for item in held] == said
