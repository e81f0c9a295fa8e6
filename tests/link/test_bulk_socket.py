"""The transport of a bulk connection is a proper trio stream over a real socket; what was read before comes first."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from agent.link.bulk_socket import TURN_BYTES, BulkSocket


def sockets(*, small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection on the loopback interface; `small` buffers make writes wait."""
    with socket.socket() as listening:
        if small:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        near = socket.socket()
        if small:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
        near.connect(listening.getsockname())
        far, _ = listening.accept()
        if small:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
        return near, far


async def pair() -> tuple[BulkSocket, BulkSocket]:
    near, far = sockets()
    return BulkSocket(near), BulkSocket(far)


def test_much_data_passes_both_ways_at_once_and_ends_with_a_half_close() -> None:
    data = bytes(range(256)) * 20_000

    async def main() -> None:
        near, far = (BulkSocket(sock) for sock in sockets(small=True))
        found: dict[str, bytes] = {}

        async def send(stream: BulkSocket) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async def receive(name: str, stream: BulkSocket) -> None:
            received, buffer = bytearray(), memoryview(bytearray(100_000))
            while count := await stream.receive_into(buffer):
                received += buffer[:count]
            found[name] = bytes(received)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, near)
                nursery.start_soon(send, far)
                nursery.start_soon(receive, "near", near)
                nursery.start_soon(receive, "far", far)
        assert found == {"near": data, "far": data}
        await near.aclose()
        await far.aclose()

    trio.run(main)


def test_bytes_read_by_somebody_else_come_first_whatever_the_size_of_the_reads() -> None:
    async def main() -> None:
        near, far = sockets()
        stream, other = BulkSocket(near, received=b"read before"), BulkSocket(far)
        await other.send_all(b", read here")
        await other.send_eof()
        received = b""
        while data := await stream.receive_some(3):
            assert len(data) <= 3
            received += data
        assert received == b"read before, read here"
        await stream.aclose()
        await other.aclose()

    trio.run(main)


def test_a_closed_stream_says_so_also_to_whoever_waits() -> None:
    async def main() -> None:
        stream, other = await pair()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some(1)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
        for act in (stream.receive_some(1), stream.send_all(b"x"), stream.wait_send_all_might_not_block()):
            with pytest.raises(trio.ClosedResourceError):
                await act
        await stream.aclose()
        assert await other.receive_some(1) == b""
        await other.aclose()

    trio.run(main)


def test_a_reset_connection_is_a_broken_one() -> None:
    async def main() -> None:
        stream, other = await pair()
        await stream.send_all(b"never read")
        await other.wait_send_all_might_not_block()
        await trio.lowlevel.wait_readable(other._sock)
        await other.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(bytes(50_000_000))
        await stream.aclose()

    trio.run(main)


def test_other_tasks_run_however_fast_the_data_comes() -> None:
    async def main() -> None:
        stream, other = await pair()
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            buffer = memoryview(bytearray(16 * 1024))
            for _ in range(10 * TURN_BYTES // len(buffer)):
                await other.send_all(buffer)
                received = 0
                while received < len(buffer):
                    received += await stream.receive_into(buffer[received:])
            assert turns >= 10
            nursery.cancel_scope.cancel()
        await stream.aclose()
        await other.aclose()

    trio.run(main)


def test_a_cancelled_call_does_nothing() -> None:
    async def main() -> None:
        stream, other = await pair()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"never")
        assert scope.cancelled_caught
        await stream.send_all(b"later")
        with trio.CancelScope() as scope:
            scope.cancel()
            await other.receive_some(100)
        assert scope.cancelled_caught
        assert await other.receive_some(100) == b"later"
        await stream.aclose()
        await other.aclose()

    trio.run(main)
