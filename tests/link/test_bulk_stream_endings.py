"""A bulk stream ends for good reasons only, says which, and never waits for ever."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agent.core.bulk_frames import PIECE_BYTES_MAX, FrameType, credit_frame, frame_head
from agent.core.errors import PeerError
from agent.link.bulk_stream import SIGN_OF_LIFE_S, STALL_S, BulkStream
from tests.link.bulk_material import SlowStream, bulk_pair, received, send, shown
from tests.link.tls_material import in_trio


@in_trio
async def test_an_idle_connection_lives_on_and_a_slow_consumer_is_no_stall() -> None:
    async with bulk_pair() as (client, server):
        await trio.sleep(20 * STALL_S)
        await send(client, [b"m:still here"])
        assert shown(await server.receive()) == b"m:still here"
        await send(client, [b"m:1"])
        await trio.sleep(3 * STALL_S)
        assert shown(await server.receive()) == b"m:1"


@in_trio
async def test_a_stalled_peer_ends_the_connection_for_whoever_waits() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        stuck = SlowStream(far, nursery, 1e9)
        async with bulk_pair(near, stuck) as (client, _):
            stuck.bytes_per_second = 1e-9
            began = trio.current_time()
            with pytest.raises(trio.BrokenResourceError, match="nothing came from the other node for 6"):
                await client.receive()
            assert STALL_S <= trio.current_time() - began <= STALL_S + SIGN_OF_LIFE_S
            with pytest.raises(trio.BrokenResourceError, match="nothing came"):
                await client.send_data(b"x")
            nursery.cancel_scope.cancel()


@in_trio
async def test_a_close_reads_as_the_end_after_everything_that_was_appended() -> None:
    async with bulk_pair() as (client, server):
        await client.send_payload(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            assert await received(server) == [b"m:last words"]
            assert await server.receive() is None
        for act in (client.receive(), client.send_payload(b"x"), client.flush(), client.send_data(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await act


@in_trio
async def test_a_run_cancelled_while_it_gives_credit_cuts_nothing_in_half() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    async with bulk_pair(near, far, running=False) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, [b"m:one"])
            assert shown(await server.receive()) == b"m:one"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            await trio.sleep(1)
            assert server._sender.writing, "the credit is on its way: nobody reads it"
            nursery.cancel_scope.cancel()
            nursery.start_soon(read_shielded, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            assert await client.receive() is None


@in_trio
async def test_a_run_that_is_cancelled_before_it_began_ends() -> None:
    async with bulk_pair(running=False) as (client, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.run()
        assert scope.cancelled_caught


async def read_shielded(stream: BulkStream) -> None:
    with trio.move_on_after(0.5, shield=True):
        await stream.receive()


@in_trio
async def test_a_cut_in_a_frame_is_no_end() -> None:
    async with bulk_pair(running=False) as (client, server):
        await client.tls.send_all(frame_head(FrameType.DATA, 10) + b"half")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.tls.aclose)
            with pytest.raises(PeerError, match="in the middle of a frame"):
                await server.receive()
            with pytest.raises(PeerError, match="in the middle of a frame"):
                await server.send_data(b"x")


@in_trio
async def test_a_cancelled_receive_loses_nothing() -> None:
    async with bulk_pair() as (client, server):
        with trio.move_on_after(1) as scope:
            await server.receive()
        assert scope.cancelled_caught
        await send(client, [b"m:one", b"m:two"])
        assert [shown(await server.receive()) for _ in range(2)] == [b"m:one", b"m:two"]


@in_trio
async def test_a_send_cancelled_within_a_cut_piece_breaks_sending_and_not_receiving() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        slow = SlowStream(near, nursery, 10_000)
        async with bulk_pair(slow, far) as (client, server):
            with trio.move_on_after(5) as scope:
                async with trio.open_nursery() as within:
                    within.start_soon(server.receive)
                    await client.send_data(bytes(PIECE_BYTES_MAX))
            assert scope.cancelled_caught
            with pytest.raises(trio.BrokenResourceError, match="interrupted"):
                await client.send_payload(b"x")
            await send(server, [b"m:why?"])
            assert shown(await client.receive()) == b"m:why?"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        (b"\0\0\0\0\0", "MESSAGE frame of -1 bytes"),
        (credit_frame(10**6, 0), "credit for 1000000 bytes"),
        (frame_head(FrameType.COMPRESSED, 4) + b"zzzz", "cannot be restored"),
    ],
)
@in_trio
async def test_a_peer_that_breaks_the_protocol_ends_the_stream_in_both_directions(wire: bytes, sentence: str) -> None:
    async with bulk_pair() as (client, server):
        await client.tls.send_all(frame_head(FrameType.MESSAGE, 2) + b"ok" + wire)
        assert shown(await server.receive()) == b"m:ok"
        for act in (server.receive(), server.receive(), server.send_data(b"x")):
            with pytest.raises(PeerError, match=sentence):
                await act


@in_trio
async def test_a_peer_that_ignores_the_window_is_cut_off_before_it_fills_the_memory() -> None:
    async with bulk_pair() as (client, server):
        frame = frame_head(FrameType.DATA, PIECE_BYTES_MAX) + bytes(PIECE_BYTES_MAX)

        async def flood() -> None:
            for _ in range(40):
                await client.tls.send_all(frame)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            # Nobody receives, so that the server reads only because it waits for credit itself.
            with pytest.raises(PeerError, match="beyond its credit"):
                await send(server, [b"d:" + bytes(PIECE_BYTES_MAX)])
            nursery.cancel_scope.cancel()
