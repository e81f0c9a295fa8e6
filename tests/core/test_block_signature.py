"""A signature says the same however the file or the wire is cut, and nothing beyond its bounds is believed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import block_signature
from agent.core.block_anchors import GROUP_BLOCKS, MARKERS_MAX, Anchor, Marker
from agent.core.block_signature import (
    PIECE_BYTES_MAX,
    SIGNATURE_BYTES_MAX,
    STRONG_BYTES,
    Signature,
    SignatureReader,
    block_bytes,
    signature_bytes,
)
from agent.core.errors import PeerError

Chunking = Callable[[bytes], list[bytes]]
CHUNKINGS: dict[str, Chunking] = {
    "whole": lambda data: [data],
    "byte by byte": lambda data: [data[i : i + 1] for i in range(len(data))],
    "in sevens": lambda data: [data[i : i + 7] for i in range(0, len(data), 7)],
}
in_every_chunking = pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS)
HEAD_BYTES = 59  # PROTOCOL.md


def digest(block: memoryview) -> bytes:
    return blake2b(block, digest_size=32).digest()


def noise(length: int) -> bytes:
    return random.Random(1).randbytes(length)


def signature_of(contents: bytes) -> Signature:
    return Signature.of([contents], len(contents), digest)


def wire_of(contents: bytes) -> bytes:
    return b"".join(signature_of(contents).to_wire())


def read(wire: bytes) -> Signature | None:
    return SignatureReader(len(wire)).feed_untrusted(wire)


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (0, 1 << 10),
        (100_000, 1 << 10),
        (1 << 20, 1 << 10),
        (1 << 24, 1 << 12),
        (1 << 29, 1 << 15),
        (1 << 30, 1 << 15),
        (1 << 31, 1 << 16),
        (10 * 10**9, 1 << 17),
        (1 << 37, 1 << 17),
        (1 << 40, 1 << 20),
        (1 << 60, 1 << 20),
    ],
)
def test_blocks_grow_with_the_square_root_of_the_file(size: int, block: int) -> None:
    assert block_bytes(size) == block


def test_the_signature_of_a_gibibyte_is_smaller_than_what_rsync_sends_besides_data() -> None:
    assert signature_bytes(1 << 30, block_bytes(1 << 30)) < 32_768 * (7 + 4)  # checksums there, block numbers back


@in_every_chunking
@pytest.mark.parametrize("size", [0, 1, 1024, 5000, 8192 + 3])
def test_a_signature_does_not_depend_on_how_the_file_is_cut(chunks: Chunking, size: int) -> None:
    contents = noise(size)
    assert Signature.of(chunks(contents), size, digest) == signature_of(contents)
    assert signature_of(contents).size == size


@pytest.mark.parametrize("expected", [0, 10, 10**7])
def test_a_file_of_another_size_than_expected_has_a_signature_of_what_it_holds(expected: int) -> None:
    signature = Signature.of([noise(100_000)], expected, digest)
    assert signature.size == 100_000
    assert read(b"".join(signature.to_wire())) == signature


def test_every_block_is_known_by_its_digest() -> None:
    contents = noise(5 * 1024 + 7)
    signature = signature_of(contents)
    blocks = [contents[at : at + 1024] for at in range(0, len(contents), 1024)]
    assert [signature.strong_of(number) for number in range(6)] == [
        digest(memoryview(block))[:STRONG_BYTES] for block in blocks
    ]
    assert signature.full_blocks == 5


@in_every_chunking
@pytest.mark.parametrize("size", [0, 1, 1024, 5000, 8192 + 3, 100_000])
def test_a_signature_arrives_as_it_was_sent(chunks: Chunking, size: int) -> None:
    sent = signature_of(noise(size))
    wire = b"".join(sent.to_wire())
    reader = SignatureReader(len(wire))
    answers = [reader.feed_untrusted(chunk) for chunk in chunks(wire)]
    assert answers == [None] * (len(answers) - 1) + [sent]
    assert len(wire) == sent.wire_bytes == signature_bytes(size, sent.block_bytes)


def test_a_signature_travels_in_bounded_pieces() -> None:
    signature = Signature(1 << 30, 1 << 10, (), bytes(6 << 19), bytes(7 << 20))
    pieces = list(signature.to_wire())
    assert max(map(len, pieces)) == PIECE_BYTES_MAX
    assert sum(map(len, pieces)) == signature.wire_bytes


def test_a_file_too_long_for_a_signature_has_one_of_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_signature, "SIZE_MAX", 4096)
    contents = noise(10_000)
    chunks = iter([contents[:3000], contents[3000:9000], contents[9000:]])
    assert Signature.of(chunks, 10_000, digest) == signature_of(contents[:4096])
    assert next(chunks) == contents[9000:], "more was read than is used"


@pytest.mark.parametrize("length", [-1, 0, HEAD_BYTES - 1, SIGNATURE_BYTES_MAX + 1, 2**63])
def test_an_announced_length_out_of_bounds_is_refused_before_a_byte_is_kept(length: int) -> None:
    with pytest.raises(PeerError, match="are allowed"):
        SignatureReader(length)


def test_bytes_beyond_the_announced_length_are_refused() -> None:
    wire = wire_of(noise(5000))
    reader = SignatureReader(len(wire))
    with pytest.raises(PeerError, match="more than"):
        reader.feed_untrusted(wire + b"x")
    reader.feed_untrusted(wire)
    with pytest.raises(PeerError, match="more than"):
        reader.feed_untrusted(b"x")


def head(version: int = 1, exponent: int = 10, size: int = 0, count: int = 0, markers: bytes = b"") -> bytes:
    return struct.pack(">BBQB48s", version, exponent, size, count, markers)


@pytest.mark.parametrize(
    ("wire", "sentence"),
    [
        (head(version=2), "version 2"),
        (head(exponent=9), "2\\^9"),
        (head(exponent=21), "2\\^21"),
        (head(exponent=255), "2\\^255"),
        (head(size=2**64 - 1), "in blocks of"),
        (head(size=1), "on the wire"),
        (head() + b"x", "on the wire"),
        (head(count=MARKERS_MAX + 1), "9 markers"),
        (head(count=1, markers=b"\5\1a"), "marker that is none"),
        (head(count=1, markers=b"\4\0"), "marker that is none"),
        (head(count=2, markers=b"\4\1a\0\0\0\4\5aaaa"), "marker that is none"),
        (head(size=1024) + struct.pack(">IH", 0, 1024 - 63) + bytes(7), "anchor"),
        (head(size=1024) + struct.pack(">IH", 0, 1 << 15) + bytes(7), "anchor"),
        (head(size=2047) + struct.pack(">IH", 0, 1 << 15) + bytes(14), "anchor"),
    ],
)
def test_a_signature_that_contradicts_itself_is_refused(wire: bytes, sentence: str) -> None:
    with pytest.raises(PeerError, match=sentence):
        read(wire)


def test_the_wire_format_is_the_documented_one() -> None:
    strong, check = bytes(range(7)), 0xDEADBEEF
    wire = (
        head(size=1024 + 5, count=2, markers=b"\4\1a\0\0\0\1\3bcd\0") + struct.pack(">IH", check, 960) + strong + strong
    )
    signature = read(wire)
    assert signature is not None
    assert signature.markers == (Marker(b"a", Marker.ANY), Marker(b"bcd", 1))
    assert signature.anchor_of(0) == Anchor(check, 0, 960)
    assert list(signature.checks()) == [check]
    assert signature.strong_of(1) == strong
    assert b"".join(signature.to_wire()) == wire


@given(st.binary(max_size=200))
def test_garbage_raises_only_the_peers_error(garbage: bytes) -> None:
    for wire in (garbage, head(size=1500) + garbage):
        try:
            read(wire)
        except PeerError:
            continue


def test_nearly_every_group_of_noise_has_an_anchor_and_zeros_have_none() -> None:
    signature_of_noise = signature_of(noise(1 << 20))
    groups = (1 << 20) // (block_bytes(1 << 20) * GROUP_BLOCKS)
    anchored = [group for group in range(groups) if signature_of_noise.anchor_of(group) is not None]
    assert len(anchored) > groups * 0.95
    assert list(signature_of(bytes(1 << 20)).checks()) == [None] * groups
