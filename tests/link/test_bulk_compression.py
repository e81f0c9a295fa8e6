"""Compression is used where it pays, and a hostile piece costs no more than a piece."""

from __future__ import annotations

import contextlib
import itertools
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.core.bulk_frames import PIECE_BYTES_MAX
from agent.core.errors import PeerError
from agent.link.bulk_compression import (
    FAST_BYTES_PER_SECOND,
    PIECE_BYTES_MIN,
    SKIPPED_MAX,
    SLOW_BYTES_PER_SECOND,
    Compression,
    Decompression,
)

LINES = memoryview(b"a line of a log file\n" * 1000)
NOISE = memoryview(random.Random(1).randbytes(100_000))
SLOW = 1_000_000.0


def test_what_was_shrunk_is_restored() -> None:
    shrunk = Compression().shrunk(LINES, SLOW)
    assert shrunk is not None
    assert len(shrunk) < len(LINES) / 10
    assert Decompression().restored_untrusted(memoryview(shrunk)) == LINES


def test_it_begins_below_one_speed_and_ends_above_another() -> None:
    compression = Compression()
    between = (SLOW_BYTES_PER_SECOND + FAST_BYTES_PER_SECOND) / 2
    for speed, expected in [
        (0.0, False),
        (between, False),
        (SLOW_BYTES_PER_SECOND - 1, True),
        (0.0, True),
        (between, True),
        (FAST_BYTES_PER_SECOND + 1, False),
        (between, False),
    ]:
        assert (compression.shrunk(LINES, speed) is not None) == expected, speed


def test_what_does_not_shrink_is_tried_more_and_more_rarely_and_again_when_it_does() -> None:
    compression = Compression()
    tried = []
    for number in range(1, 600):
        skipping = compression._skip > 0
        assert compression.shrunk(NOISE, SLOW) is None
        if not skipping:
            tried.append(number)
    gaps = [after - before - 1 for before, after in itertools.pairwise(tried)]
    assert gaps[:4] == [1, 2, 4, 8]
    assert max(gaps) == SKIPPED_MAX
    for _ in range(SKIPPED_MAX + 1):
        compression.shrunk(LINES, SLOW)
    assert compression.shrunk(LINES, SLOW) is not None
    compression.shrunk(NOISE, SLOW)
    assert compression._skip == 1


def test_tiny_pieces_go_as_they_are() -> None:
    assert Compression().shrunk(LINES[: PIECE_BYTES_MIN - 1], SLOW) is None


@pytest.mark.parametrize(
    ("compressed", "sentence"),
    [
        (zstandard.ZstdCompressor().compress(bytes(PIECE_BYTES_MAX + 1)), "piece of 1048577 bytes"),
        (zstandard.ZstdCompressor().compress(bytes(1 << 30)), "piece of 1073741824 bytes"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000), "piece of 18446744073709551615"),
        (zstandard.ZstdCompressor().compress(b""), "piece of 0 bytes"),
        (zstandard.ZstdCompressor().compress(b"x" * 1000)[:-1], "cannot be restored"),
        (zstandard.ZstdCompressor().compress(b"x" * 1000) * 2, "cannot be restored"),
        (b"no zstd at all", "cannot be restored"),
        (b"\0", "cannot be restored"),
    ],
    ids=["a byte too long", "a bomb", "of unknown size", "of nothing", "cut", "two", "garbage", "a byte"],
)
def test_a_piece_beyond_the_bounds_is_refused(compressed: bytes, sentence: str) -> None:
    with pytest.raises(PeerError, match=sentence):
        Decompression().restored_untrusted(memoryview(compressed))


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_damage_raises_nothing_but_the_peers_error(data: bytes, at: int, value: int) -> None:
    damaged = bytearray(zstandard.ZstdCompressor().compress(data))
    damaged[at % len(damaged)] = value
    with contextlib.suppress(PeerError):
        assert len(Decompression().restored_untrusted(memoryview(damaged))) <= PIECE_BYTES_MAX
