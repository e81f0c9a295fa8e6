"""Pieces are compressed only where the network is slow and it pays; a hostile piece costs no more than any."""

from __future__ import annotations

import contextlib
import random
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.core.bulk_frames import PIECE_BYTES_MAX
from agent.core.errors import PeerError
from agent.link.bulk_compression import (
    FAST_BYTES_PER_SECOND,
    PAYS_BELOW,
    PIECE_BYTES_MIN,
    SKIPPED_MAX,
    SLOW_BYTES_PER_SECOND,
    Compression,
    Decompression,
)

TEXT = memoryview(b"2026-01-01 12:00:00 pump opened, pressure 4.2 bar\n" * 2000)
NOISE = memoryview(random.Random(1).randbytes(100_000))
SLOW = 1_000_000.0


def test_what_shrinks_is_compressed_on_a_slow_network_and_restored() -> None:
    shrunk = Compression().shrunk(TEXT, SLOW)
    assert shrunk is not None
    assert len(shrunk) < PAYS_BELOW * len(TEXT)
    assert Decompression().restored_untrusted(memoryview(shrunk)) == TEXT


def test_nothing_is_compressed_while_the_network_is_fast_or_not_known() -> None:
    compression = Compression()
    for bytes_per_second in (0.0, FAST_BYTES_PER_SECOND + 1.0, float(SLOW_BYTES_PER_SECOND)):
        assert compression.shrunk(TEXT, bytes_per_second) is None
        assert not compression.active


def test_between_slow_and_fast_it_stays_as_it_was() -> None:
    between = (SLOW_BYTES_PER_SECOND + FAST_BYTES_PER_SECOND) / 2
    compression = Compression()
    assert compression.shrunk(TEXT, between) is None
    assert compression.shrunk(TEXT, SLOW) is not None
    assert compression.shrunk(TEXT, between) is not None
    assert compression.shrunk(TEXT, FAST_BYTES_PER_SECOND + 1.0) is None
    assert compression.shrunk(TEXT, between) is None


def test_pieces_that_do_not_shrink_are_tried_less_and_less_often_and_then_now_and_again() -> None:
    compression = Compression()
    tries: list[int] = []

    class Trying:
        def compress(self, data: memoryview) -> bytes:
            tries.append(number)
            return bytes(data)

    compression._compressor = Trying()  # type: ignore[assignment]  # counts instead
    for number in range(4 * SKIPPED_MAX):  # noqa: B007  # read in Trying
        assert compression.shrunk(NOISE, SLOW) is None
    pauses = [after - before - 1 for before, after in pairwise(tries)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64]


def test_where_it_pays_again_every_piece_is_compressed() -> None:
    compression = Compression()
    for _ in range(20):
        compression.shrunk(NOISE, SLOW)
    answers = [compression.shrunk(TEXT, SLOW) for _ in range(SKIPPED_MAX + 10)]
    assert None not in answers[SKIPPED_MAX:]


def test_small_pieces_go_as_they_are() -> None:
    assert Compression().shrunk(memoryview(bytes(PIECE_BYTES_MIN - 1)), SLOW) is None


def test_the_longest_piece_is_restored_and_a_longer_one_is_refused() -> None:
    longest = zstandard.compress(bytes(PIECE_BYTES_MAX))
    assert Decompression().restored_untrusted(memoryview(longest)) == bytes(PIECE_BYTES_MAX)
    with pytest.raises(PeerError, match="are allowed"):
        Decompression().restored_untrusted(memoryview(zstandard.compress(bytes(PIECE_BYTES_MAX + 1))))


def test_a_piece_that_does_not_say_its_size_is_refused() -> None:
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(PeerError):
        Decompression().restored_untrusted(memoryview(unsaid))


@pytest.mark.parametrize(
    "piece",
    [b"", b"\0", zstandard.compress(b"x" * 1000)[:-1], zstandard.compress(b"x" * 1000) + b"x", zstandard.compress(b"")],
    ids=["nothing", "no frame", "cut off", "trailing byte", "of nothing"],
)
def test_a_damaged_piece_is_the_peers_fault(piece: bytes) -> None:
    with pytest.raises(PeerError):
        Decompression().restored_untrusted(memoryview(piece))


def test_a_piece_that_lies_about_its_size_is_refused() -> None:
    honest = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(300)))
    assert zstandard.get_frame_parameters(honest).content_size == 300
    at = honest.index((300 - 256).to_bytes(2, "little"))
    honest[at : at + 2] = (10_000).to_bytes(2, "little")
    with pytest.raises(PeerError):
        Decompression().restored_untrusted(memoryview(honest))


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_peers_error(garbage: bytes) -> None:
    with contextlib.suppress(PeerError):
        Decompression().restored_untrusted(memoryview(b"\x28\xb5\x2f\xfd" + garbage))
