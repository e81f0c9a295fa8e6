"""Frames of a bulk connection: a length, a type and a body (PROTOCOL.md, section 10).

`FrameReader` owns the memory into which received bytes go, so that a piece of data is cut out of it and never copied.
Knows nothing of what a body means, nor of compression. Invariants: a frame beyond its bound is refused as soon as its
head is there; what a peer said does not depend on how its bytes were chunked; of memory that nobody holds any more at
most SPARE_BUFFERS_MAX buffers are kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from agent.core.errors import PeerError

LENGTH_BYTES = 4
HEAD_BYTES = LENGTH_BYTES + 1  # and the type
PIECE_BYTES_MAX = 1024 * 1024  # of data, uncompressed
FRAME_BYTES_MAX = PIECE_BYTES_MAX + 64 * 1024  # what the length counts: the type and the body
MESSAGE_BYTES_MAX = FRAME_BYTES_MAX - 1
CREDIT_BYTES = 12
HELD_US_MAX = 2**32 - 1

ROOM_MIN_BYTES = 128 * 1024  # offered to a read, wherever in a buffer a frame begins
BUFFER_BYTES = LENGTH_BYTES + FRAME_BYTES_MAX + PIECE_BYTES_MAX
SPARE_BUFFERS_MAX = 4

_HEAD = struct.Struct(">IB")
_CREDIT = struct.Struct(">QI")


class FrameType(IntEnum):
    """What a body is."""

    MESSAGE = 0
    DATA = 1
    COMPRESSED = 2  # data, as one zstd frame
    CREDIT = 3
    PART = 4  # of a frame that is cut because the window is small: its type and body, from the beginning
    LAST_PART = 5


_BODY_BYTES = {
    FrameType.MESSAGE: (1, MESSAGE_BYTES_MAX),
    FrameType.DATA: (1, PIECE_BYTES_MAX),
    FrameType.COMPRESSED: (1, FRAME_BYTES_MAX - 1),
    FrameType.CREDIT: (CREDIT_BYTES, CREDIT_BYTES),
    FrameType.PART: (1, FRAME_BYTES_MAX - 1),
    FrameType.LAST_PART: (1, FRAME_BYTES_MAX - 1),
}
_BOUNDS = [_BODY_BYTES[each] for each in FrameType]
_WHOLE = (FrameType.MESSAGE, FrameType.DATA, FrameType.COMPRESSED)


class FrameBuffer:
    """Memory that frames are received in, and how many of them are still in use."""

    __slots__ = ("_spare", "data", "holders", "view")

    def __init__(self, spare: list[FrameBuffer]) -> None:
        self.data = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.data)
        self.holders = 0
        self._spare = spare

    def let_go(self) -> None:
        """Says that one holder is done; with the last one the memory is free for other frames."""
        self.holders -= 1
        if not self.holders and len(self._spare) < SPARE_BUFFERS_MAX:
            self._spare.append(self)


@dataclass(slots=True)
class Frame:
    """One frame; `body` stays as it is until `release`."""

    type: FrameType
    body: memoryview
    wire_bytes: int  # with its head, or with those of its parts
    buffer: FrameBuffer | None = None

    def release(self) -> None:
        """Lets go of the memory; `body` must not be used afterwards."""
        if self.buffer is not None:
            buffer, self.buffer = self.buffer, None
            buffer.let_go()


def frame_head(frame_type: FrameType, body_bytes: int) -> bytes:
    """Returns what goes in front of a body of `body_bytes`."""
    least, most = _BOUNDS[frame_type]
    assert least <= body_bytes <= most, f"a {frame_type.name} frame of {body_bytes} bytes was about to be sent"
    return _HEAD.pack(body_bytes + 1, frame_type)


def credit_frame(total: int, held_us: int) -> bytes:
    """Returns a whole credit frame; see `agent.core.bulk_window`."""
    return frame_head(FrameType.CREDIT, CREDIT_BYTES) + _CREDIT.pack(total, min(held_us, HELD_US_MAX))


def read_credit(body: memoryview) -> tuple[int, int]:
    """Returns total and held_us of the body of a credit frame."""
    total, held_us = _CREDIT.unpack(body)
    return total, held_us


class FrameReader:
    """Cuts what is received into frames, without copying: `writable`, `wrote`, then `next_frame` until None."""

    def __init__(self) -> None:
        self._spare: list[FrameBuffer] = []
        self._buffer = self._take_buffer()
        self._start = 0  # of the frame that is not cut yet
        self._end = 0  # of what was received
        self._parts = bytearray()
        self._parts_wire_bytes = 0
        self._credits_bytes = 0
        self.received_bytes = 0

    @property
    def unfinished(self) -> bool:
        """Whether a part of a frame was received. Right only after `next_frame` returned None."""
        return self._end > self._start or bool(self._parts)

    @property
    def counted_bytes(self) -> int:
        """Bytes received so far that count for the window: all but credit frames; part of a frame counts with its head.

        Right only after `next_frame` returned None.
        """
        unfinished = self._end - self._start
        if 0 < unfinished < HEAD_BYTES or (
            unfinished and self._buffer.data[self._start + LENGTH_BYTES] == FrameType.CREDIT
        ):
            return self.received_bytes - self._credits_bytes - unfinished
        return self.received_bytes - self._credits_bytes

    def writable(self) -> memoryview:
        """Returns where the next bytes received are to be put; at least one fits."""
        return self._buffer.view[self._end :]

    def wrote(self, count: int) -> None:
        """Says how many bytes were put there."""
        self._end += count
        self.received_bytes += count

    def next_frame(self) -> Frame | None:
        """Returns the next whole frame, None if it needs more bytes. Raises PeerError for what is no frame."""
        while True:
            buffer, start = self._buffer, self._start
            have = self._end - start
            if have < HEAD_BYTES:
                if not have or BUFFER_BYTES - start < ROOM_MIN_BYTES:
                    self._move()
                return None
            length, number = _HEAD.unpack_from(buffer.data, start)
            body_bytes = length - 1
            if number >= len(_BOUNDS):
                raise PeerError(f"the other node sent a bulk frame of type {number}, which is not known here")
            least, most = _BOUNDS[number]
            if not least <= body_bytes <= most:
                raise PeerError(
                    f"the other node sent a {FrameType(number).name} frame of {body_bytes} bytes; "
                    f"{least} to {most} are allowed"
                )
            if have < LENGTH_BYTES + length:
                if start + LENGTH_BYTES + length > BUFFER_BYTES:
                    self._move()
                return None
            self._start = start + LENGTH_BYTES + length
            body = buffer.view[start + HEAD_BYTES : self._start]
            if number <= FrameType.COMPRESSED:
                if self._parts:
                    raise PeerError("the other node sent a whole frame between the parts of another one")
                buffer.holders += 1
                return Frame(_WHOLE[number], body, LENGTH_BYTES + length, buffer)
            if number == FrameType.CREDIT:
                self._credits_bytes += LENGTH_BYTES + length
                buffer.holders += 1
                return Frame(FrameType.CREDIT, body, LENGTH_BYTES + length, buffer)
            if frame := self._joined(body, last=number == FrameType.LAST_PART):
                return frame

    def _joined(self, part: memoryview, *, last: bool) -> Frame | None:
        if len(self._parts) + len(part) > FRAME_BYTES_MAX:
            raise PeerError(f"the other node sent parts of a frame that make more than {FRAME_BYTES_MAX} bytes")
        self._parts += part
        self._parts_wire_bytes += HEAD_BYTES + len(part)
        if not last:
            return None
        whole, wire_bytes = memoryview(self._parts), self._parts_wire_bytes
        self._parts, self._parts_wire_bytes = bytearray(), 0
        number, body_bytes = whole[0], len(whole) - 1
        if number > FrameType.COMPRESSED or not _BOUNDS[number][0] <= body_bytes <= _BOUNDS[number][1]:
            raise PeerError(f"the other node sent parts that make no frame: type {number}, {body_bytes} bytes")
        return Frame(_WHOLE[number], whole[1:], wire_bytes)

    def _move(self) -> None:
        """Makes room for the next frame, of which there is a part or nothing yet."""
        rest = self._buffer.view[self._start : self._end]
        if self._buffer.holders == 1:
            self._buffer.view[: len(rest)] = rest
        elif rest or BUFFER_BYTES - self._start < ROOM_MIN_BYTES:
            taken = self._take_buffer()
            taken.view[: len(rest)] = rest
            self._buffer.let_go()
            self._buffer = taken
        else:
            return
        self._start, self._end = 0, len(rest)

    def _take_buffer(self) -> FrameBuffer:
        buffer = self._spare.pop() if self._spare else FrameBuffer(self._spare)
        buffer.holders = 1  # this reader
        return buffer
