"""Finds the blocks of an old file, known by its signature, in the bytes of a new one.

    new file    ....copied....|  literal, not sent yet  |   next block   |  not looked at yet
                              ^ settled                 ^ at             ^ end of the buffer

*Alignment*: the block that is expected at `at`, because its forerunner was found just before. While that holds, each
byte is hashed once and nothing else is done. Where it fails, the alignment is kept for one more block (bytes changed
in place); after that anchors (`block_anchors`) are looked for in what is not settled, at any offset. A block found
through its anchor is verified by its strong digest, then extended backwards and forwards.

Knows nothing of files, connections and hash functions. Invariants: the ops that were returned cover the new file
without gap, in order; nothing is copied that was not found by a strong digest; each byte is hashed a bounded number of
times whatever it is (`_CREDIT`); of the new file at most the lookback, one block and what was fed last is held.
The digests are short, and whoever writes both files can forge them: the receiver verifies the whole file.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from agent.core.block_anchors import ANCHOR_BYTES, GROUP_BLOCKS, MARKER_SPACING_MIN
from agent.core.block_lookup import BlockLookup
from agent.core.block_signature import STRONG_BYTES, Signature, Strong

COPY_BYTES_MAX = 1 << 24  # of one Copy, so that the receiver has something to do early
LITERAL_BYTES_MAX = 1 << 18
ZEROS_BYTES_MAX = 1 << 30

_LOOKBACK_BYTES_MIN = 1 << 18  # of unsettled bytes, in which blocks before a found one are still recognised
_BATCH_BYTES = 1 << 18  # collected before anything is looked at, so that small feeds stay cheap
_CREDIT = 1  # blocks hashed in vain per block searched
_CREDIT_BLOCKS_MAX = 32


@dataclass(frozen=True, slots=True)
class Copy:
    """`length` bytes of the old file from `offset` on (1 to COPY_BYTES_MAX)."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes of the new file (1 to LITERAL_BYTES_MAX); a view into what was fed, which it keeps alive."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class Zeros:
    """`length` bytes of zeros (1 to ZEROS_BYTES_MAX), to be left as a hole where that is possible."""

    length: int


Op: TypeAlias = Copy | Literal | Zeros


class Matcher:
    """Turns the new file, fed from its start to its end, into ops on the old one.

    matcher = Matcher(signature, strong)
    for chunk in chunks:                # 1 MiB each is a good length
        send(matcher.feed(chunk))
    send(matcher.finish())
    """

    def __init__(self, signature: Signature, strong: Strong) -> None:
        """`strong`: the digest function with which the signature was made."""
        self._signature = signature
        self._strong = strong
        self._block = signature.block_bytes
        self._lookback = max(_LOOKBACK_BYTES_MIN, 2 * GROUP_BLOCKS * self._block)
        self._zero_block = bytes(self._block)
        self._markers = [marker.pattern() for marker in signature.markers]
        self._lookup = BlockLookup(signature)
        self._fed: list[bytes] = []
        self._fed_bytes = 0
        self._buffer = b""
        self._view = memoryview(b"")
        self._settled = 0  # ops exist for what is before
        self._searched = 0  # anchors were looked for in what is before
        self._at = 0
        self._expected = 0  # number of the old file's block that the alignment promises at `_at`
        self._misses = 0  # blocks since the alignment held
        self._credit = _CREDIT_BLOCKS_MAX * self._block
        self._ops: list[Op] = []

    def feed(self, data: bytes | memoryview) -> list[Op]:
        """Take the next bytes of the new file; return the ops that are certain by now."""
        self._fed.append(bytes(data))
        self._fed_bytes += len(data)
        if self._fed_bytes < _BATCH_BYTES:
            return []
        self._take_fed()
        self._advance()
        held = [self._ops.pop()] if self._ops and not isinstance(self._ops[-1], Literal) else []  # it may yet grow
        ops, self._ops = self._ops, held
        return ops

    def finish(self) -> list[Op]:
        """Return the last ops; the new file has ended."""
        self._take_fed()
        self._advance()
        while self._search(len(self._buffer)):
            self._advance()
        self._settle_tail()
        ops, self._ops = self._ops, []
        return ops

    def _take_fed(self) -> None:
        rest = self._view[self._settled :]
        self._buffer = b"".join([rest, *self._fed]) if rest or len(self._fed) != 1 else self._fed[0]
        self._view = memoryview(self._buffer)
        self._fed, self._fed_bytes = [], 0
        self._searched -= self._settled
        self._at -= self._settled
        self._settled = 0

    def _advance(self) -> None:
        """Look at one block after the other, as long as a whole one is in the buffer."""
        end = len(self._buffer)
        while end - self._at >= self._block:
            at = self._at
            if self._misses > 1 and self._searched < at and self._search(at):
                continue
            if self._buffer.startswith(self._zero_block, at):
                self._settle_literal(at)
                self._add(Zeros(self._block))
                self._expected += 1
                self._settled = self._searched = self._at = at + self._block
                continue
            found = self._block_at(at)
            if found is not None:
                self._settle_copy(at, found, found + 1)
                continue
            if self._short_block_at(at):
                continue
            self._misses += 1
            self._expected += 1
            self._at = at + self._block
            if self._at - self._settled >= self._lookback + _BATCH_BYTES:
                self._settle_literal(self._at - self._lookback)

    def _block_at(self, at: int) -> int | None:
        """Return the number of the old file's full block that stands at `at`, with the expected one preferred."""
        expected = self._expected if self._expected < self._signature.full_blocks else None
        if expected is None and not self._lookup.finds_blocks:
            return None
        digest = self._digest(at, self._block)
        if expected is not None and digest == self._signature.strong_of(expected):
            return expected
        return self._lookup.block_with(digest)

    def _short_block_at(self, at: int) -> bool:
        """Copy the old file's last, shorter block if it is expected at `at` and stands there."""
        count = self._signature.full_blocks
        length = self._signature.size % self._block
        if self._expected != count or not length or len(self._buffer) - at < length:
            return False
        if self._digest(at, length) != self._signature.strong_of(count):
            return False
        self._settle_literal(at)
        self._add(Copy(count * self._block, length))
        self._settled = self._searched = self._at = at + length
        self._expected = count + 1
        self._misses = 0
        return True

    def _search(self, end: int) -> bool:
        """Look for anchors from `_searched` to `end`; True if a block was found and the alignment follows it."""
        start, self._searched = self._searched, end
        checks = self._lookup.checks
        self._credit = min(self._credit + _CREDIT * (end - start), _CREDIT_BLOCKS_MAX * self._block)
        spots_max = max((end - start) // (MARKER_SPACING_MIN // 2), 4)
        buffer = self._buffer
        crc32 = zlib.crc32
        for marker in self._markers:
            for spot in islice(marker.finditer(buffer, start, end), spots_max):
                at = spot.start()
                check = crc32(buffer[at : at + ANCHOR_BYTES])
                if check not in checks:
                    continue
                for anchor in self._lookup.anchors_with(check):
                    if self._credit < self._block:
                        return False
                    block_at = at - anchor.offset
                    # Where the anchor's own block is damaged, on either side of it, a neighbour may still be whole.
                    for step in (0, 1, -1):
                        if self._verify(block_at + step * self._block, anchor.block + step):
                            return True
        return False

    def _verify(self, at: int, number: int) -> bool:
        """Settle up to the end of the old file's block `number` if that stands at `at`, unsettled."""
        block = self._block
        if at < self._settled or at + block > len(self._buffer) or not 0 <= number < self._signature.full_blocks:
            return False
        if self._digest(at, block) != self._signature.strong_of(number):
            self._credit -= block
            return False
        first_at, first = at, number
        while first and first_at - block >= self._settled:
            if self._digest(first_at - block, block) != self._signature.strong_of(first - 1):
                break
            first_at, first = first_at - block, first - 1
        self._settle_copy(first_at, first, number + 1)
        return True

    def _settle_copy(self, at: int, first: int, end: int) -> None:
        """Settle the old file's blocks from number `first` to before `end`, which stand at `at`."""
        self._settle_literal(at)
        for number in range(first, end):
            self._add(Copy(number * self._block, self._block))
        self._settled = self._searched = self._at = at + (end - first) * self._block
        self._expected = end
        self._misses = 0

    def _settle_literal(self, end: int) -> None:
        for start in range(self._settled, end, LITERAL_BYTES_MAX):
            self._ops.append(Literal(self._view[start : min(start + LITERAL_BYTES_MAX, end)]))
        self._settled = end

    def _settle_tail(self) -> None:
        """Settle what is left at the end of the new file, which may be the old file's last, shorter block."""
        end = len(self._buffer)
        length = self._signature.size % self._block
        if self._at < end and self._short_block_at(self._at) and self._settled == end:
            return
        if length and end - self._settled >= length:
            last = self._signature.full_blocks
            if self._digest(end - length, length) == self._signature.strong_of(last):
                self._settle_literal(end - length)
                self._add(Copy(last * self._block, length))
                return
        if end > self._at and self._zero_block.startswith(self._buffer[self._at :]):
            self._settle_literal(self._at)
            self._add(Zeros(end - self._at))
            return
        self._settle_literal(end)

    def _add(self, op: Copy | Zeros) -> None:
        """Append the op, joined with the one before it where that goes on."""
        last = self._ops[-1] if self._ops else None
        if isinstance(op, Copy) and isinstance(last, Copy):
            if last.offset + last.length == op.offset and last.length + op.length <= COPY_BYTES_MAX:
                self._ops[-1] = Copy(last.offset, last.length + op.length)
                return
        elif isinstance(op, Zeros) and isinstance(last, Zeros) and last.length + op.length <= ZEROS_BYTES_MAX:
            self._ops[-1] = Zeros(last.length + op.length)
            return
        self._ops.append(op)

    def _digest(self, at: int, length: int) -> bytes:
        return self._strong(self._view[at : at + length])[:STRONG_BYTES]
