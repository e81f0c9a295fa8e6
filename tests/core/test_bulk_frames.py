"""Bulk frames arrive whole however they are cut, in memory that is used again, and nothing beyond its bound is read."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.bulk_frames import (
    FRAME_BYTES_MAX,
    HEAD_BYTES,
    MESSAGE_BYTES_MAX,
    PIECE_BYTES_MAX,
    SPARE_BUFFERS_MAX,
    Frame,
    FrameReader,
    FrameType,
    credit_frame,
    frame_head,
    read_credit,
)
from agent.core.errors import PeerError

Said = list[tuple[FrameType, bytes]]


def frame(frame_type: FrameType, body: bytes) -> bytes:
    return frame_head(frame_type, len(body)) + body


def parts(frame_type: FrameType, body: bytes, part_bytes: int) -> bytes:
    whole = bytes([frame_type]) + body
    cut = [whole[start : start + part_bytes] for start in range(0, len(whole), part_bytes)]
    return b"".join(frame(FrameType.PART, each) for each in cut[:-1]) + frame(FrameType.LAST_PART, cut[-1])


def feed(reader: FrameReader, data: bytes, chunk_bytes: int) -> Iterable[Frame]:
    """Puts `data` into the reader, at most so much at a time, and yields the frames as they become whole."""
    rest = memoryview(data)
    while rest:
        room = reader.writable()
        count = min(len(room), len(rest), chunk_bytes)
        room[:count], rest = rest[:count], rest[count:]
        reader.wrote(count)
        while (found := reader.next_frame()) is not None:
            yield found


def said(data: bytes, chunk_bytes: int = 1 << 30, *, releasing: bool = True) -> Said:
    reader = FrameReader()
    found = []
    for each in feed(reader, data, chunk_bytes):
        found.append((each.type, bytes(each.body)))
        if releasing:
            each.release()
    return found


SAID: Said = [
    (FrameType.MESSAGE, b"m"),
    (FrameType.DATA, b"data" * 5),
    (FrameType.COMPRESSED, b"c" * 300),
    (FrameType.MESSAGE, b"last"),
]


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 7, 64, 10_000])
def test_frames_are_the_same_however_the_stream_is_cut(chunk_bytes: int) -> None:
    data = b"".join(frame(*each) for each in SAID)
    assert said(data, chunk_bytes) == SAID


@pytest.mark.parametrize("part_bytes", [1, 2, 10, 1_000])
@pytest.mark.parametrize("chunk_bytes", [1, 13, 10_000])
def test_a_frame_in_parts_is_the_frame_and_credit_may_come_between_them(part_bytes: int, chunk_bytes: int) -> None:
    cut = parts(FrameType.DATA, b"0123456789" * 10, part_bytes)
    first_end = HEAD_BYTES + min(part_bytes, 101)
    data = cut[:first_end] + credit_frame(7, 8) + cut[first_end:] + frame(FrameType.MESSAGE, b"m")
    found = said(data, chunk_bytes)
    assert [each for each in found if each[0] is not FrameType.CREDIT] == [
        (FrameType.DATA, b"0123456789" * 10),
        (FrameType.MESSAGE, b"m"),
    ]
    assert len(found) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(20_000, 3_000_000))
def test_any_sequence_arrives_whether_memory_is_given_back_or_not(seed: int, chunk_bytes: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.choice((1, 5, 100, 4096, 70_000, PIECE_BYTES_MAX)) for _ in range(chance.randint(1, 12))]
    expected = [(FrameType.DATA, chance.randbytes(size)) for size in sizes]
    data = b"".join(frame(*each) for each in expected)
    reader = FrameReader()
    held: list[tuple[int, Frame]] = []
    count = 0
    for count, each in enumerate(feed(reader, data, chunk_bytes), start=1):
        held.append((count - 1, each))
        if chance.random() < 0.7:
            number, gone = held.pop(chance.randrange(len(held)))
            assert bytes(gone.body) == expected[number][1], "nobody wrote over what was still held"
            gone.release()
    assert count == len(expected)
    for number, kept in held:
        assert bytes(kept.body) == expected[number][1]


def test_memory_given_back_is_used_again_and_what_is_kept_is_bounded() -> None:
    reader = FrameReader()
    data = frame(FrameType.DATA, bytes(PIECE_BYTES_MAX))
    seen = set()
    for _ in range(50):
        for each in feed(reader, data, 256 * 1024):
            assert each.buffer is not None
            seen.add(id(each.buffer))
            each.release()
    assert len(seen) <= 2
    held = [each for _ in range(20) for each in feed(reader, data, 256 * 1024)]
    for each in held:
        each.release()
    assert len(reader._spare) <= SPARE_BUFFERS_MAX


def test_releasing_twice_gives_back_once() -> None:
    reader = FrameReader()
    first, second = feed(reader, frame(FrameType.DATA, b"one") + frame(FrameType.DATA, b"two"), 100)
    first.release()
    first.release()
    assert second.buffer is not None
    for each in feed(reader, frame(FrameType.DATA, bytes(PIECE_BYTES_MAX)) * 5, 1 << 20):
        each.release()
    assert bytes(second.body) == b"two"


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"\0\0\0\0\0", "MESSAGE frame of -1 bytes"),
        (b"\0\0\0\1\0", "MESSAGE frame of 0 bytes"),
        (b"\0\0\0\1\1", "DATA frame of 0 bytes"),
        (b"\xff\xff\xff\xff\0", "MESSAGE frame of 4294967294 bytes"),
        ((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"\0", "MESSAGE frame of"),
        ((PIECE_BYTES_MAX + 2).to_bytes(4, "big") + b"\1", "DATA frame of"),
        (b"\0\0\0\x0c\3", "CREDIT frame of 11 bytes"),
        (b"\0\0\0\2\6", "type 6"),
        (b"\0\0\0\2\xff", "type 255"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 100])
def test_a_wrong_head_is_refused_at_once_after_the_frames_before_it(
    head: bytes, sentence: str, chunk_bytes: int
) -> None:
    reader = FrameReader()
    found: list[bytes] = []
    with pytest.raises(PeerError, match=sentence):
        found.extend(bytes(each.body) for each in feed(reader, frame(FrameType.MESSAGE, b"before") + head, chunk_bytes))
    assert found == [b"before"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (frame(FrameType.PART, b"\1a") + frame(FrameType.DATA, b"x"), "between the parts"),
        (frame(FrameType.LAST_PART, b"\1"), "parts that make no frame"),
        (frame(FrameType.LAST_PART, b"\3" + bytes(12)), "parts that make no frame"),
        (frame(FrameType.LAST_PART, b"\4ab"), "parts that make no frame"),
        (frame(FrameType.PART, b"\1" + bytes(PIECE_BYTES_MAX)) + frame(FrameType.LAST_PART, b"x"), "make no frame"),
        (frame(FrameType.PART, bytes(FRAME_BYTES_MAX - 1)) + frame(FrameType.PART, b"xx"), "make more than"),
    ],
)
def test_parts_that_make_no_frame_are_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(PeerError, match=sentence):
        said(data)


def test_the_largest_frames_pass_whole_and_in_parts() -> None:
    message, piece = bytes(MESSAGE_BYTES_MAX), bytes(PIECE_BYTES_MAX)
    expected = [(FrameType.MESSAGE, message), (FrameType.DATA, piece)]
    assert said(b"".join(frame(*each) for each in expected), 300_000) == expected
    assert said(b"".join(parts(*each, 100_000) for each in expected), 300_000) == expected


@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_raises_nothing_but_the_peers_error(data: bytes, chunk_bytes: int) -> None:
    with contextlib.suppress(PeerError):
        said(data, chunk_bytes)


def test_credit_does_not_count_and_everything_else_counts_as_soon_as_its_head_is_there() -> None:
    data = (
        frame(FrameType.MESSAGE, b"abc")
        + credit_frame(1, 2)
        + frame(FrameType.PART, b"\1ab")
        + frame(FrameType.LAST_PART, b"c")
    )
    expected = [0, 0, 0, 0, 5, 6, 7, 8] + [8] * 17 + [8, 8, 8, 8, 13, 14, 15, 16] + [16, 16, 16, 16, 21, 22]
    reader = FrameReader()
    counted = []
    for at in range(len(data)):
        list(feed(reader, data[at : at + 1], 1))
        counted.append(reader.counted_bytes)
    assert counted == expected
    assert not reader.unfinished
    list(feed(reader, b"\0", 1))
    assert reader.unfinished


def test_credit_says_its_numbers_and_is_bounded() -> None:
    assert read_credit(memoryview(credit_frame(2**63, 5))[HEAD_BYTES:]) == (2**63, 5)
    assert read_credit(memoryview(credit_frame(0, 10**12))[HEAD_BYTES:]) == (0, 2**32 - 1)
