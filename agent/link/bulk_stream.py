"""Messages and data over one bulk connection, with a window that a slow network keeps small (PROTOCOL.md, section 10).

Nobody reads in advance: whoever waits, for something to arrive or for credit, reads for all. So a receiver that is slow
keeps the bytes in the kernel and the sender waiting, and two ends that both send cannot block each other for ever:
whoever waits for credit puts what arrives meanwhile aside, at most a window of it, which is all that the other end may
send. Knows nothing of what a message means, nor of how the connection came about.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from agent.core.bulk_frames import Frame, FrameReader, FrameType, read_credit
from agent.core.bulk_window import CREDIT_DELAY_NS, CREDIT_EVERY_BYTES, ReceiveWindow
from agent.core.errors import PeerError
from agent.link.bulk_compression import Compression, Decompression
from agent.link.bulk_sender import NANOSECONDS_PER_SECOND, BulkSender, now_ns
from agent.link.tls import RECORD_BYTES_MAX, RECORDS_PER_KEY_MAX, TlsStream
from agent.link.turns import OneTask

SIGN_OF_LIFE_S = 10.0  # sent after so long without anything else
STALL_S = 60.0  # without a byte from the other end
LAST_FLUSH_S = 1.0
LOOK_S = 0.1  # for what the other end sent while nobody here wanted anything
TELL_EVERY_BYTES = 256 * 1024
ASIDE_FRAMES_MAX = 65_536  # received and not asked for; nobody but the receiver reads on beyond
RECEIVED_PER_KEY_BYTES = RECORDS_PER_KEY_MAX * RECORD_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Payload:
    """A message, still encoded: a frame's msgpack [kind, fields]."""

    payload: bytes


@dataclass(slots=True)
class Data:
    """A piece of data as it was given to `send_data`, 1 to PIECE_BYTES_MAX bytes.

    `view` stays valid until `release`, which gives the memory back for later pieces: call it when the piece is written.
    A piece that is never released is only slower, not wrong.
    """

    view: memoryview
    _frame: Frame | None = None

    def release(self) -> None:
        """Gives the memory back; `view` must not be used afterwards."""
        if self._frame is not None:
            self._frame.release()


@dataclass(frozen=True, slots=True)
class BulkStatistics:
    """What status shows of a bulk connection."""

    wire_bytes_sent: int  # as frames, after compression, without TLS
    wire_bytes_received: int
    data_bytes_sent: int  # of data pieces, before compression
    data_bytes_received: int
    compressing: bool
    bytes_per_second: float  # that the network took lately while there was always something to send; 0.0: not known
    window_bytes: int
    round_trip_ns: int | None  # of what was sent last, with every queue on its way


class BulkStream:
    """One verified connection; `agent.link.bulk` makes it and binds it to the link.

    `run` must run in a nursery for as long as the stream is used. Any number of tasks may send, one may receive.
    Sending and receiving wait only when there is nothing to do without waiting: no checkpoint otherwise.

    Every method raises PeerError if the other end broke the protocol; trio.BrokenResourceError if the connection broke,
    was cut off or stalled; trio.ClosedResourceError after `aclose`. A cancelled send may leave the sending half broken.
    """

    def __init__(self, tls: TlsStream) -> None:
        """`tls` has shaken hands."""
        self._tls = tls
        self._sender = BulkSender(tls, self._wait_for_credit)
        self._reader = FrameReader()
        self._receive_window = ReceiveWindow(now_ns())
        self._aside: deque[Frame] = deque()
        self._aside_bytes = 0
        self._untold_bytes = 0  # asked for since credit was considered
        self._receiving = OneTask("receiving from")
        self._reading = False
        self._read_ended = trio.Event()
        self._ended = False
        self._failure: Callable[[], Exception] | None = None
        self._over = trio.Event()
        self._resting = trio.Event()
        self._saying = trio.Lock()
        self._owes = trio.Event()
        self._owes_much = trio.Event()
        self._compression = Compression()
        self._decompression = Decompression()
        self._data_bytes_sent = 0
        self._data_bytes_received = 0

    async def run(self) -> None:
        """Gives credit, sends signs of life and ends a connection that stalls; returns when the stream is closed or
        broke, and raises nothing. Cancelled, it finishes what it is sending, for LAST_FLUSH_S at most.
        """
        keeping = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, keeping)
            try:
                await self._over.wait()
            finally:
                keeping.deadline = trio.current_time() + LAST_FLUSH_S
                self._resting.set()

    async def _keep(self, keeping: trio.CancelScope) -> None:
        """Does what `run` is for, in a scope of its own, so that nobody cuts a credit in half."""
        with keeping:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give_credit)
                nursery.start_soon(self._watch)
                await self._resting.wait()
                async with self._saying:
                    nursery.cancel_scope.cancel()

    async def send_payload(self, payload: bytes) -> None:
        """Appends a message (1 to MESSAGE_BYTES_MAX bytes); it leaves with the next `flush`, or when enough waits."""
        await self._send(FrameType.MESSAGE, memoryview(payload))

    async def send_data(self, data: bytes | bytearray | memoryview) -> None:
        """Appends one piece of data (1 to PIECE_BYTES_MAX bytes); small pieces leave as messages do. Waits while the
        window is full. `data` may be changed when this returns.
        """
        view = memoryview(data).cast("B")
        self._data_bytes_sent += len(view)
        if shrunk := self._compression.shrunk(view, self._sender.window.bytes_per_second):
            await self._send(FrameType.COMPRESSED, memoryview(shrunk))
        else:
            await self._send(FrameType.DATA, view)

    async def flush(self) -> None:
        """Hands everything that was appended to the operating system; waits while the window is full."""
        self._check()
        try:
            await self._sender.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._check()
            raise

    async def receive(self) -> Payload | Data | None:
        """Returns the next message or piece of data, in the order of sending; None: the other end closed in order.

        A cancelled receive loses nothing.
        """
        with self._receiving:
            while not self._aside:
                self._check()
                if self._ended:
                    return None
                await self._read_or_wait()
            frame = self._aside.popleft()
            self._aside_bytes -= frame.wire_bytes
            self._untold_bytes += frame.wire_bytes
            if not self._aside or self._untold_bytes > TELL_EVERY_BYTES:
                self._note_taken()
        try:
            return self._opened(frame)
        except PeerError as error:
            self._fail(error)
            raise

    def limit_rate(self, bytes_per_second: int | None) -> None:
        """Sends no faster than this from now on (at least 1); None: as fast as it goes."""
        self._sender.limit_rate(bytes_per_second)

    @property
    def tls(self) -> TlsStream:
        """The encrypted stream underneath: for who the peer is, not for sending or receiving."""
        return self._tls

    @property
    def renewal_due(self) -> bool:
        """True once this connection's keys are nearly used up in either direction (RFC 8446, 5.5): finish what is
        begun and open another. There are 100 GB left then; after that sending raises trio.BrokenResourceError.
        """
        return self._tls.renewal_due or self._reader.received_bytes >= RECEIVED_PER_KEY_BYTES

    @property
    def statistics(self) -> BulkStatistics:
        """Figures for status."""
        window = self._sender.window
        return BulkStatistics(
            wire_bytes_sent=window.sent_bytes,
            wire_bytes_received=self._reader.received_bytes,
            data_bytes_sent=self._data_bytes_sent,
            data_bytes_received=self._data_bytes_received,
            compressing=self._compression.active,
            bytes_per_second=window.bytes_per_second,
            window_bytes=window.window_bytes,
            round_trip_ns=window.delay_ns,
        )

    async def aclose(self) -> None:
        """Sends what was appended, if it leaves within LAST_FLUSH_S, says close_notify and closes the socket."""
        if self._failure is None and not self._over.is_set():
            expected = PeerError, trio.BrokenResourceError, trio.ClosedResourceError
            with trio.move_on_after(LAST_FLUSH_S), contextlib.suppress(*expected):
                await self._sender.flush()
        if self._failure is None:
            self._failure = lambda: trio.ClosedResourceError("this bulk connection was closed here")
        self._over.set()
        self._wake()
        await self._tls.aclose()

    async def _send(self, frame_type: FrameType, body: memoryview) -> None:
        self._check()
        if self._sender.gather(frame_type, body):
            return
        try:
            await self._sender.send(frame_type, body)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._check()  # raises what is behind it, if that is known
            raise

    def _opened(self, frame: Frame) -> Payload | Data:
        if frame.type is FrameType.DATA:
            self._data_bytes_received += len(frame.body)
            return Data(frame.body, frame)
        if frame.type is FrameType.COMPRESSED:
            restored = self._decompression.restored_untrusted(frame.body)
            frame.release()
            self._data_bytes_received += len(restored)
            return Data(memoryview(restored))
        payload = Payload(bytes(frame.body))
        frame.release()
        return payload

    async def _wait_for_credit(self) -> None:
        """Returns when there may be more credit than before."""
        self._check()
        if self._ended:
            raise trio.BrokenResourceError("the other node closed this bulk connection")
        await self._read_or_wait()
        self._check()

    async def _read_or_wait(self) -> None:
        """Reads once, or waits until another task has."""
        if self._reading or (len(self._aside) > ASIDE_FRAMES_MAX):
            await self._read_ended.wait()
            return
        self._reading = True
        try:
            count = await self._tls.receive_into(self._reader.writable())
            self._take(count)
        except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._fail(error)  # raised when everything before it was received
        finally:
            self._reading = False
            self._wake()

    def _take(self, count: int) -> None:
        """Takes that `count` bytes were read into the reader; 0: the other end closed."""
        now = now_ns()
        if not count:
            if self._reader.unfinished:
                raise PeerError("the other node closed the bulk connection in the middle of a frame")
            self._ended = True
            return
        self._reader.wrote(count)
        while (frame := self._reader.next_frame()) is not None:
            if frame.type is FrameType.CREDIT:
                total, held_us = read_credit(frame.body)
                frame.release()
                self._sender.window.credited_untrusted(total, held_us * 1000, now)
            else:
                self._aside.append(frame)
                self._aside_bytes += frame.wire_bytes
        self._receive_window.received_untrusted(self._reader.counted_bytes, self._aside_bytes, now)
        self._note_owed()

    def _note_taken(self) -> None:
        self._untold_bytes = 0
        if not self._reading:
            self._wake()  # who did not read because too much lay aside
        self._receive_window.taken(self._aside_bytes)
        self._note_owed()

    def _note_owed(self) -> None:
        owed_bytes = self._receive_window.owed_bytes
        if owed_bytes:
            self._owes.set()
            if owed_bytes >= CREDIT_EVERY_BYTES:
                self._owes_much.set()

    async def _give_credit(self) -> None:
        """Gives credit soon after something was taken."""
        while True:
            await self._owes.wait()
            with trio.move_on_after(CREDIT_DELAY_NS / NANOSECONDS_PER_SECOND):
                await self._owes_much.wait()
            self._owes, self._owes_much = trio.Event(), trio.Event()
            if self._receive_window.owed_bytes:
                await self._say_credit()

    async def _say_credit(self) -> None:
        try:
            async with self._saying:
                await self._sender.send_credit(lambda: self._receive_window.credit(now_ns()))
        except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # what the other end sent last, and why, may still be unread: whoever reads or sends finds out

    async def _watch(self) -> None:
        """Shows the other end that this one lives, and sees whether it does."""
        while True:
            await trio.sleep(SIGN_OF_LIFE_S / 2)
            now = now_ns()
            if now - self._sender.last_sent_ns >= SIGN_OF_LIFE_S * NANOSECONDS_PER_SECOND and not self._sender.writing:
                await self._say_credit()
            silent_s = (now - self._receive_window.last_received_ns) / NANOSECONDS_PER_SECOND
            if silent_s < SIGN_OF_LIFE_S or len(self._aside) > ASIDE_FRAMES_MAX:
                continue
            if not self._reading:
                with trio.move_on_after(LOOK_S):
                    await self._read_or_wait()
                silent_s = (now_ns() - self._receive_window.last_received_ns) / NANOSECONDS_PER_SECOND
            if silent_s > STALL_S:
                self._failure = _repeated(
                    trio.BrokenResourceError(f"nothing came from the other node for {silent_s:.0f} s")
                )
                await trio.aclose_forcefully(self._tls.transport)
                self._over.set()
                self._wake()

    def _fail(self, error: Exception) -> None:
        """Notes why this stream is of no use any more; the first reason counts."""
        if self._failure is None:
            self._failure = _repeated(error)
        self._over.set()
        self._wake()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure()

    def _wake(self) -> None:
        """Lets those who waited for another task's reading look again."""
        ended, self._read_ended = self._read_ended, trio.Event()
        ended.set()


def _repeated(error: Exception) -> Callable[[], Exception]:
    """Returns what makes the same error anew, because every caller gets its own."""
    sentence = str(error)
    if isinstance(error, PeerError):
        code = error.code
        return lambda: PeerError(sentence, code=code)
    if isinstance(error, trio.ClosedResourceError):
        return lambda: trio.ClosedResourceError(sentence)
    return lambda: trio.BrokenResourceError(sentence)
