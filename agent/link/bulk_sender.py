"""The sending half of a bulk connection: gathers small frames, cuts large ones where the window is small.

Two locks: one keeps pieces whole and in order, the other is held while bytes go out, always for whole frames or parts,
so that credit never waits for a window. Knows nothing of receiving: it is told of credit, and `wait_for_credit` is how
it waits.

Invariant: after a send that was interrupted between the parts of a frame nothing but credit is sent any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from agent.core.bulk_frames import HEAD_BYTES, FrameType, credit_frame, frame_head
from agent.core.bulk_rate import RateLimit
from agent.core.bulk_window import SendWindow
from agent.link.tls import RECORD_BYTES_MAX, TlsStream

GATHERED_BYTES_MAX = 128 * 1024  # of small frames, before they leave by themselves
COPIED_BYTES_MAX = 32 * 1024  # bodies up to this are gathered, larger ones sent from where they are
BLOCKED_NS = 1_000_000  # a write that takes longer had to wait for the network
NANOSECONDS_PER_SECOND = 1_000_000_000


def now_ns() -> int:
    """Returns the time of the event loop; only differences mean something."""
    return int(trio.current_time() * NANOSECONDS_PER_SECOND)


class BulkSender:
    """Sends frames over `tls`."""

    def __init__(self, tls: TlsStream, wait_for_credit: Callable[[], Awaitable[None]]) -> None:
        self._tls = tls
        self._wait_for_credit = wait_for_credit
        self._gathered = bytearray()  # whole frames
        self._in_order = _Turn()
        self._on_wire = _Turn()
        self._cut_off = False
        self._limit: RateLimit | None = None
        self.window = SendWindow(now_ns())
        self.last_sent_ns = now_ns()

    @property
    def writing(self) -> bool:
        """Whether bytes are on their way to the operating system now."""
        return self._on_wire.taken

    def limit_rate(self, bytes_per_second: int | None) -> None:
        """From now on; None: no limit."""
        self._limit = None if bytes_per_second is None else RateLimit(bytes_per_second, now_ns())

    def gather(self, frame_type: FrameType, body: bytes | memoryview) -> bool:
        """Gathers one frame if that needs no waiting; else returns False, and `send` is the way."""
        gathered = self._gathered
        frame_bytes = HEAD_BYTES + len(body)
        if (
            self._in_order.taken
            or self._cut_off
            or len(body) > COPIED_BYTES_MAX
            or len(gathered) + frame_bytes > min(GATHERED_BYTES_MAX, self._part_bytes)
        ):
            return False
        gathered += frame_head(frame_type, len(body))
        gathered += body
        return True

    async def send(self, frame_type: FrameType, body: memoryview) -> None:
        """Sends or gathers one frame."""
        async with self._in_order:
            self._check()
            frame_bytes = HEAD_BYTES + len(body)
            if frame_bytes > self._part_bytes:
                await self._send_gathered()
                await self._send_cut(frame_type, body)
            elif len(body) > COPIED_BYTES_MAX:
                await self._send_whole(frame_type, body)
            else:
                if len(self._gathered) + frame_bytes > self._part_bytes:
                    await self._send_gathered()
                self._gathered += frame_head(frame_type, len(body))
                self._gathered += body
                if len(self._gathered) >= GATHERED_BYTES_MAX:
                    await self._send_gathered()

    async def flush(self) -> None:
        """Sends what was gathered."""
        async with self._in_order:
            self._check()
            await self._send_gathered()

    async def send_credit(self, credit: Callable[[], tuple[int, int]]) -> None:
        """Sends `credit()`, the total and for how many nanoseconds it is true, asked for when its turn has come."""
        async with self._on_wire:
            total, held_ns = credit()
            await self._tls.send_all(credit_frame(total, held_ns // 1000))
            self.last_sent_ns = now_ns()

    @property
    def _part_bytes(self) -> int:
        part_bytes = self.window.part_bytes
        return part_bytes if self._limit is None else min(part_bytes, self._limit.part_bytes)

    async def _send_gathered(self) -> None:
        if self._gathered:
            await self._await_room(len(self._gathered))
            await self._write(self._gathered)
            self._gathered.clear()

    async def _send_whole(self, frame_type: FrameType, body: memoryview) -> None:
        """Sends what was gathered and one frame; the first write ends with a full TLS record."""
        await self._await_room(len(self._gathered) + HEAD_BYTES + len(body))
        gathered_bytes = len(self._gathered)
        self._gathered += frame_head(frame_type, len(body))
        copied_bytes = -len(self._gathered) % RECORD_BYTES_MAX
        self._gathered += body[:copied_bytes]
        try:
            await self._write(self._gathered, body[copied_bytes:])
        except BaseException:
            del self._gathered[gathered_bytes:]
            raise
        self._gathered.clear()

    async def _send_cut(self, frame_type: FrameType, body: memoryview) -> None:
        begin, end, lead = 0, len(body), bytes([frame_type])
        while begin < end:
            part_bytes = min(len(lead) + end - begin, self._part_bytes - HEAD_BYTES)
            upto = begin + part_bytes - len(lead)
            await self._await_room(HEAD_BYTES + part_bytes)
            head = frame_head(FrameType.LAST_PART if upto == end else FrameType.PART, part_bytes)
            await self._write(b"".join((head, lead, body[begin:upto])))
            begin, lead = upto, b""
            self._cut_off = begin < end

    async def _await_room(self, count: int) -> None:
        window = self.window
        while window.under_way_bytes and window.room_bytes < min(count, window.window_bytes):
            window.blocked()
            await self._wait_for_credit()
        if self._limit is not None and (wait_ns := self._limit.wait_ns(count, now_ns())):
            await trio.sleep(wait_ns / NANOSECONDS_PER_SECOND)

    async def _write(self, *pieces: bytes | bytearray | memoryview) -> None:
        async with self._on_wire:
            began_ns = now_ns()
            self.window.sent(sum(len(piece) for piece in pieces), began_ns)
            await self._tls.send_together(*pieces)
            self.last_sent_ns = now_ns()
            if self.last_sent_ns - began_ns > BLOCKED_NS:
                self.window.blocked()

    def _check(self) -> None:
        if self._cut_off:
            raise trio.BrokenResourceError("an earlier send on this bulk connection was interrupted")


class _Turn:
    """A fair lock; taking a free one is no checkpoint and cheap, because small pieces come by the hundred thousand."""

    def __init__(self) -> None:
        self.taken = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        if self.taken:
            await self._waiting.park()
        else:
            self.taken = True

    async def __aexit__(self, *_: object) -> None:
        if self._waiting:
            self._waiting.unpark()  # whose turn it is now
        else:
            self.taken = False
