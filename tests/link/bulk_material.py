"""Bulk connections in memory, over networks of any speed, for the tests of the bulk connection."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from agent.core.bulk_frames import PIECE_BYTES_MAX
from agent.link.bulk_stream import BulkStream, Data, Payload
from agent.link.tls import client_stream, server_stream
from agent.link.tls_context import ALPN_BULK
from tests.link.tls_material import good_pair, handshakes


class SlowStream(trio.abc.Stream):
    """A stream whose bytes leave at so many a second after waiting in a queue without end, as in a router."""

    def __init__(self, stream: trio.abc.Stream, nursery: trio.Nursery, bytes_per_second: float) -> None:
        self._stream = stream
        self.bytes_per_second = bytes_per_second
        self.queued_bytes = 0
        self.queued_bytes_max = 0
        self._put, self._get = trio.open_memory_channel[bytes](100_000)
        nursery.start_soon(self._deliver)

    async def _deliver(self) -> None:
        async for data in self._get:
            for start in range(0, len(data), 1448):
                segment = data[start : start + 1448]
                await trio.sleep(len(segment) / self.bytes_per_second)
                await self._stream.send_all(segment)
                self.queued_bytes -= len(segment)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.queued_bytes += len(data)
        self.queued_bytes_max = max(self.queued_bytes_max, self.queued_bytes)
        self._put.send_nowait(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def bulk_pair(
    near: trio.abc.Stream | None = None, far: trio.abc.Stream | None = None, *, running: bool = True
) -> AsyncIterator[tuple[BulkStream, BulkStream]]:
    """Both ends of a bulk connection that is ready, `run` beside them; closed in the end."""
    if near is None or far is None:
        near, far = trio.testing.memory_stream_pair()
    client_identity, server_identity = good_pair()
    ends = client_stream(near, client_identity, ALPN_BULK), server_stream(far, server_identity, ALPN_BULK)
    await handshakes(*ends)
    client, server = BulkStream(ends[0]), BulkStream(ends[1])
    async with trio.open_nursery() as nursery:
        if running:
            nursery.start_soon(client.run)
            nursery.start_soon(server.run)
        yield client, server
        nursery.start_soon(client.aclose)
        nursery.start_soon(server.aclose)


async def received(stream: BulkStream) -> list[bytes]:
    """Receives until the other end closes; data pieces begin with "d:", messages with "m:"."""
    found = []
    while (item := await stream.receive()) is not None:
        found.append(shown(item))
    return found


def shown(item: Payload | Data | None) -> bytes:
    """Returns what came, released."""
    if isinstance(item, Payload):
        return b"m:" + item.payload
    assert item is not None
    data = b"d:" + bytes(item.view)
    item.release()
    return data


async def send(stream: BulkStream, said: list[bytes]) -> None:
    for each in said:
        if each.startswith(b"m:"):
            await stream.send_payload(each[2:])
        else:
            await stream.send_data(memoryview(each)[2:])
    await stream.flush()


async def pump_window(client: BulkStream, server: BulkStream, count: int = 60) -> None:
    """Sends until the window of `client` is open."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, client, [b"d:" + random.Random(0).randbytes(PIECE_BYTES_MAX)] * count)
        for _ in range(count):
            shown(await server.receive())
