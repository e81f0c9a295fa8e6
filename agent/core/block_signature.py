"""The signature of a file that a node already has: what the other node must know to find its blocks in a newer version.

The file is cut into blocks of equal size (the last one may be shorter), and each is known by a *strong* digest, as in
rsync (Tridgell, "Efficient Algorithms for Sorting and Synchronization", 1999, chapter 3). Instead of rsync's rolling
checksum per block there is an anchor per group of blocks (`block_anchors`).

Knows nothing of files: contents come as chunks, the digest function is passed in. Invariants: a signature
holds at most BLOCKS_MAX blocks; what is read from the wire is as consistent as what is made here.
Wire format: PROTOCOL.md, "Signature".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from agent.core.block_anchors import (
    ANCHOR_BYTES,
    GROUP_BLOCKS,
    MARKERS_MAX,
    OFFSETS,
    Anchor,
    AnchorChooser,
    Marker,
    check_of,
)
from agent.core.errors import PeerError

STRONG_BYTES = 7
BLOCKS_MAX = 1 << 22
BLOCK_EXPONENT_MIN, BLOCK_EXPONENT_USUAL_MAX, BLOCK_EXPONENT_MAX = 10, 17, 20
SIZE_MAX = BLOCKS_MAX << BLOCK_EXPONENT_MAX  # 4 TiB; of a longer file only so much has a signature
PIECE_BYTES_MAX = 1 << 18  # of one piece of a signature on the wire

_MARKER = struct.Struct(f">BB{Marker.START_BYTES_MAX}s")  # follower, number of start bytes, start bytes
_HEAD = struct.Struct(
    f">BBQB{MARKERS_MAX * _MARKER.size}s"
)  # version, block exponent, size, number of markers, markers
_ANCHOR = struct.Struct(">IH")  # check; block within the group * OFFSETS + offset
_VERSION = 1
_NO_PLACE = GROUP_BLOCKS * OFFSETS - 1  # no anchor begins at the last offset: ANCHOR_BYTES would not fit
_NO_ANCHOR = _ANCHOR.pack(0, _NO_PLACE)

Strong: TypeAlias = Callable[[memoryview], bytes]  # a block -> its digest, of which the first STRONG_BYTES are used


def block_bytes(size: int) -> int:
    """Return the block size for a file of `size` bytes: the power of two next to its square root, 1 to 128 KiB, and
    more only where the file would have more than a million blocks."""
    exponent = min(max(size.bit_length() // 2, BLOCK_EXPONENT_MIN), BLOCK_EXPONENT_USUAL_MAX)
    while size >> exponent > BLOCKS_MAX // 4 and exponent < BLOCK_EXPONENT_MAX:
        exponent += 1
    return 1 << exponent


def signature_bytes(size: int, block: int) -> int:
    """Return the length on the wire of the signature of `size` bytes in blocks of `block` bytes."""
    blocks = -(-size // block)
    return _HEAD.size + -(-blocks // GROUP_BLOCKS) * _ANCHOR.size + blocks * STRONG_BYTES


SIGNATURE_BYTES_MAX = signature_bytes(SIZE_MAX, 1 << BLOCK_EXPONENT_MAX)


@dataclass(frozen=True, slots=True)
class Signature:
    """The blocks of one file of `size` bytes; `anchors` and `strongs` are packed as on the wire."""

    size: int
    block_bytes: int
    markers: tuple[Marker, ...] = ()
    anchors: bytes = b""
    strongs: bytes = b""

    @classmethod
    def of(cls, chunks: Iterable[bytes | memoryview], size: int, strong: Strong) -> Signature:
        """Return the signature of the file whose contents `chunks` are, cut anywhere (1 MiB is a good length).

        `size` is what the file is expected to hold and decides on the block size only. Of more than SIZE_MAX bytes, the
        first SIZE_MAX are taken.
        """
        builder = _Builder(block_bytes(size), strong)
        rest = SIZE_MAX
        for chunk in chunks:
            builder.feed(bytes(chunk[:rest]))
            rest -= min(len(chunk), rest)
            if not rest:
                break
        return builder.finish()

    @classmethod
    def nothing(cls) -> Signature:
        """Return the signature of an empty file, against which only zeros are found."""
        return cls(0, 1 << 14)

    @property
    def full_blocks(self) -> int:
        """The number of blocks without the last, shorter one."""
        return self.size // self.block_bytes

    @property
    def wire_bytes(self) -> int:
        """The length on the wire."""
        return _HEAD.size + len(self.anchors) + len(self.strongs)

    def strong_of(self, block: int) -> bytes:
        """Return the first STRONG_BYTES of the digest of a block, by its number."""
        return self.strongs[block * STRONG_BYTES : (block + 1) * STRONG_BYTES]

    def anchor_of(self, group: int) -> Anchor | None:
        """Return the anchor of a group of blocks, by its number."""
        check, place = _ANCHOR.unpack_from(self.anchors, group * _ANCHOR.size)
        if place == _NO_PLACE:
            return None
        block, offset = divmod(place, OFFSETS)
        return Anchor(check, group * GROUP_BLOCKS + block, offset)

    def checks(self) -> Iterator[int | None]:
        """Yield the check of each group's anchor, None where there is none."""
        for check, place in _ANCHOR.iter_unpack(self.anchors):
            yield None if place == _NO_PLACE else check

    def to_wire(self) -> Iterator[bytes]:
        """Yield the signature in pieces of at most PIECE_BYTES_MAX bytes, `wire_bytes` in all."""
        exponent = self.block_bytes.bit_length() - 1
        markers = b"".join(_MARKER.pack(each.follower, len(each.start), each.start) for each in self.markers)
        yield _HEAD.pack(_VERSION, exponent, self.size, len(self.markers), markers)
        for packed in (self.anchors, self.strongs):
            for start in range(0, len(packed), PIECE_BYTES_MAX):
                yield packed[start : start + PIECE_BYTES_MAX]


class SignatureReader:
    """Reads one signature from the wire, in pieces cut anywhere; never keeps more than the announced bytes.

    Raises PeerError at once for a `length_untrusted` above SIGNATURE_BYTES_MAX or too short for any signature.
    """

    def __init__(self, length_untrusted: int) -> None:
        if not _HEAD.size <= length_untrusted <= SIGNATURE_BYTES_MAX:
            raise PeerError(
                f"the other node announced a signature of {length_untrusted} bytes; "
                f"{_HEAD.size} to {SIGNATURE_BYTES_MAX} are allowed"
            )
        self._length = length_untrusted
        self._received = bytearray()

    def feed_untrusted(self, data: bytes | memoryview) -> Signature | None:
        """Take received bytes; return the signature once it is complete, None before.

        Raises PeerError for an unknown version, a block size or a number of blocks out of bounds, a length other than
        the announced one, a marker that is none, and an anchor that does not lie within a full block.
        """
        if len(self._received) + len(data) > self._length:
            raise PeerError(f"the other node sent more than the {self._length} bytes of its signature")
        self._received += data
        return _signature_untrusted(bytes(self._received)) if len(self._received) == self._length else None


def _signature_untrusted(received: bytes) -> Signature:
    version, exponent, size, marker_count, markers = _HEAD.unpack_from(received)
    if version != _VERSION:
        raise PeerError(f"the other node sent a signature of version {version}; {_VERSION} is known here")
    if not BLOCK_EXPONENT_MIN <= exponent <= BLOCK_EXPONENT_MAX or size > BLOCKS_MAX << exponent:
        raise PeerError(f"the other node sent a signature of {size} bytes in blocks of 2^{exponent}")
    if signature_bytes(size, 1 << exponent) != len(received):
        raise PeerError(f"the other node sent a signature of {size} bytes with {len(received)} bytes on the wire")
    if marker_count > MARKERS_MAX:
        raise PeerError(f"the other node sent a signature with {marker_count} markers; {MARKERS_MAX} are allowed")
    strongs_start = len(received) - -(-size >> exponent) * STRONG_BYTES
    signature = Signature(
        size,
        1 << exponent,
        tuple(_marker_untrusted(markers[at * _MARKER.size :]) for at in range(marker_count)),
        received[_HEAD.size : strongs_start],
        received[strongs_start:],
    )
    for group in range(len(signature.anchors) // _ANCHOR.size):
        anchor = signature.anchor_of(group)
        if anchor is None:
            continue
        if anchor.block >= signature.full_blocks or anchor.offset + ANCHOR_BYTES > signature.block_bytes:
            raise PeerError("the other node sent a signature with an anchor outside of the file's full blocks")
    return signature


def _marker_untrusted(packed: bytes) -> Marker:
    follower, length, start = _MARKER.unpack_from(packed)
    if follower > Marker.ANY or not 0 < length <= Marker.START_BYTES_MAX:
        raise PeerError("the other node sent a signature with a marker that is none")
    return Marker(start[:length], follower)


class _Builder:
    """Turns the contents of a file into its signature; holds less than one group of blocks and what was just fed."""

    def __init__(self, block: int, strong: Strong) -> None:
        self._block = block
        self._group = block * GROUP_BLOCKS
        self._strong = strong
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._size = 0
        self._chooser = AnchorChooser(block)
        self._anchors = bytearray()
        self._strongs = bytearray()

    def feed(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= self._group:
            data = b"".join(self._pending)
            whole = len(data) - len(data) % self._group
            self._add(data, whole)
            self._pending_bytes = len(data) - whole
            self._pending = [data[whole:]] if self._pending_bytes else []  # a chunk that stands alone is not copied

    def finish(self) -> Signature:
        data = b"".join(self._pending)
        self._add(data, len(data))
        markers = tuple(self._chooser.markers)
        return Signature(self._size, self._block, markers, bytes(self._anchors), bytes(self._strongs))

    def _add(self, data: bytes, end: int) -> None:
        view = memoryview(data)
        for start in range(0, end, self._block):
            self._strongs += self._strong(view[start : min(start + self._block, end)])[:STRONG_BYTES]
        for start in range(0, end, self._group):
            length = min(self._group, end - start)
            place = self._chooser.choose(data, start, start + length - length % self._block)
            if place is None:
                self._anchors += _NO_ANCHOR
            else:
                block, offset = divmod(place - start, self._block)
                self._anchors += _ANCHOR.pack(check_of(data, place), block * OFFSETS + offset)
