"""A bulk connection in memory: two ends in the shape of BulkStream, and ways to break it or to alter what it carries.

What is sent leaves with the next `flush`, or when much waits, as in a real stream; so a forgotten flush shows. A piece
of data is worth nothing after its `release`, as its memory would be used for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from agent.link.bulk_stream import BulkStatistics, Payload

IN_FLIGHT = 16  # messages that one end may be ahead of the other
WAITING_BYTES = 64 * 1024  # leave without a flush

Spoil = Callable[["MemoryStream", Any], Any]


class MemoryData:
    """A piece of data, as `agent.link.bulk_stream.Data`."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._memory = bytearray(data)
        self.view = memoryview(self._memory).toreadonly()

    def release(self) -> None:
        self._memory[:] = b"\xee" * len(self._memory)


class MemoryStream:
    """One end."""

    def __init__(
        self, connection: Connection, out: trio.MemorySendChannel[Any], arriving: trio.MemoryReceiveChannel[Any]
    ) -> None:
        self._connection = connection
        self._out, self._arriving = out, arriving
        self._waiting: list[Any] = []
        self._waiting_bytes = 0
        self._sending = trio.Lock()
        self.renewal_due = False
        self.sent_bytes = 0
        self.flush_takes_s = 0.0
        self.statistics = BulkStatistics(0, 0, 0, 0, False, 0.0, 0, None)

    async def run(self) -> None:
        await trio.sleep_forever()

    async def send_payload(self, payload: bytes) -> None:
        await self._append(Payload(payload), len(payload))

    async def send_data(self, data: bytes | memoryview) -> None:
        await self._append(MemoryData(data), len(data))

    async def _append(self, item: Any, size: int) -> None:
        self.sent_bytes += size
        self._waiting_bytes += size
        self._waiting.append(item)
        if self._waiting_bytes >= WAITING_BYTES:
            await self.flush()

    async def flush(self) -> None:
        try:
            async with self._sending:
                waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
                for item in waiting:
                    await self._out.send(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise trio.BrokenResourceError("the connection broke") from None
        await trio.sleep(self.flush_takes_s)

    async def receive(self) -> Any:
        try:
            item = await self._arriving.receive()
        except trio.EndOfChannel:
            return None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise trio.BrokenResourceError("the connection broke") from None
        return self._connection.arrived(self, item)

    async def aclose(self) -> None:
        self._out.close()

    def break_off(self) -> None:
        self._out.close()
        self._arriving.close()


class Connection:
    """Both ends. `cut_after`: breaks when so many messages and pieces have arrived, whatever is on its way; `spoil` may
    return something else than what is about to arrive at an end."""

    def __init__(self, cut_after: int | None = None, spoil: Spoil | None = None) -> None:
        one = trio.open_memory_channel[Any](IN_FLIGHT)
        other = trio.open_memory_channel[Any](IN_FLIGHT)
        self.ends = MemoryStream(self, one[0], other[1]), MemoryStream(self, other[0], one[1])
        self.arrived_count = 0
        self.broken = False
        self.cut_after = cut_after
        self._spoil = spoil

    def arrived(self, end: MemoryStream, item: Any) -> Any:
        """Counts what an end is about to take."""
        self.arrived_count += 1
        if self._spoil is not None:
            item = self._spoil(end, item)
        if self.cut_after is not None and self.arrived_count >= self.cut_after:
            self.break_off()
        return item

    def break_off(self) -> None:
        """Cuts the connection: what is on its way is lost."""
        self.broken = True
        for end in self.ends:
            end.break_off()
