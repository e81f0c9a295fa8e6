"""Frames come out as they went in, however the bytes are chunked, and a wrong length costs no memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import PeerError
from agent.core.frames import FRAME_BYTES_MAX, LENGTH_BYTES, FrameDecoder, encode_frame

Chunking = Callable[[bytes], list[bytes]]
CHUNKINGS: dict[str, Chunking] = {
    "whole": lambda data: [data],
    "byte by byte": lambda data: [data[i : i + 1] for i in range(len(data))],
    "in sevens": lambda data: [data[i : i + 7] for i in range(0, len(data), 7)],
}
in_every_chunking = pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS)
BAD_LENGTHS = [0, FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1]


def decoded(chunks: list[bytes]) -> tuple[list[bytes], str, bool]:
    """Returns the payloads, the error that ended them (empty: none), and whether a frame is unfinished."""
    decoder = FrameDecoder()
    payloads: list[bytes] = []
    try:
        for chunk in chunks:
            for payload in decoder.feed_untrusted(chunk):
                payloads.append(payload)
    except PeerError as error:
        return payloads, str(error), bool(decoder._buffer)
    return payloads, "", bool(decoder._buffer)


@in_every_chunking
def test_frames_come_out_as_they_went_in(chunks: Chunking) -> None:
    sent = [b"x", b"second", b"\0" * 300]
    assert decoded(chunks(b"".join(map(encode_frame, sent)))) == (sent, "", False)


@in_every_chunking
def test_trailing_bytes_wait_for_the_rest_of_their_frame(chunks: Chunking) -> None:
    for trailing in range(1, LENGTH_BYTES + 3):
        data = encode_frame(b"first") + encode_frame(b"two")[:trailing]
        assert decoded(chunks(data)) == ([b"first"], "", True)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(1, 50), max_size=40))
def test_any_chunking_gives_the_same_frames_n11(sent: list[bytes], sizes: list[int]) -> None:
    data = b"".join(map(encode_frame, sent))
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    assert decoded([*chunks, data]) == (sent, "", False)


@in_every_chunking
@pytest.mark.parametrize("length", BAD_LENGTHS)
def test_a_wrong_length_is_refused_as_soon_as_it_is_read_and_after_what_came_before_it_s5(
    chunks: Chunking, length: int
) -> None:
    data = encode_frame(b"before") + length.to_bytes(LENGTH_BYTES, "big")
    for trailing in (b"", b"\xff" * 100):
        payloads, sentence, _ = decoded(chunks(data + trailing))
        assert payloads == [b"before"]
        assert str(length) in sentence
        assert str(FRAME_BYTES_MAX) in sentence


def test_the_longest_frame_passes() -> None:
    payload = b"x" * FRAME_BYTES_MAX
    assert decoded([encode_frame(payload)]) == ([payload], "", False)


@pytest.mark.parametrize("payload", [b"", b"x" * (FRAME_BYTES_MAX + 1)])
def test_a_frame_that_the_other_end_would_refuse_is_not_sent(payload: bytes) -> None:
    with pytest.raises(AssertionError):
        encode_frame(payload)


@given(st.binary(max_size=300))
def test_garbage_raises_only_the_error_of_the_peer(data: bytes) -> None:
    decoded([data])


def test_memory_stays_bounded_whatever_is_fed() -> None:
    frame = encode_frame(b"x" * FRAME_BYTES_MAX)
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        for _ in range(50):
            for start in range(0, len(frame), 5000):
                for _ in decoder.feed_untrusted(frame[start : start + 5000]):
                    pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * FRAME_BYTES_MAX
