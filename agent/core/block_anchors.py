"""Anchors: the places in a file by which a group of its blocks is found again at any offset of a newer version.

Rsync compares a rolling checksum at every byte of the new file. Here a place is looked at only where a *marker* stands:
some bytes, with or without a condition on the byte after them, that are rare but not too rare in the old file. So the
search runs at the speed of C. An *anchor* is one such place per group of GROUP_BLOCKS blocks, known by the CRC-32 of
the ANCHOR_BYTES that stand there. A group in which no marker fits (zeros, say) has none.

Knows nothing of digests, files and the wire. Invariants: an anchor lies wholly within a full block and begins within
the first OFFSETS bytes of it; choosing costs a bounded time per group, whatever the contents.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

ANCHOR_BYTES = 64
GROUP_BLOCKS = 2
OFFSETS = 1 << 15
MARKERS_MAX = 8
MARKER_SPACING_MIN = 64  # bytes per marker, on the average, in the stretch where an anchor lies

_STRETCH_BYTES = 8192  # looked at in one go
_PLACES_MAX = 64  # tried per group
_CHOICES_MAX = 64  # attempts to choose one more marker, per file
_SPACING_USUAL = 256
_THINNED_BLOCK_BYTES_MIN = 8192  # in smaller blocks a spacing four times as wide would leave too many without a marker


@dataclass(frozen=True, slots=True)
class Marker:
    """Where an anchor may begin: at these `start` bytes, before one whose two lowest bits are `follower`."""

    ANY: ClassVar[int] = 4  # as `follower`: before any byte
    START_BYTES_MAX: ClassVar[int] = 4

    start: bytes
    follower: int

    def pattern(self) -> re.Pattern[bytes]:
        """Return what finds it."""
        if self.follower == self.ANY:
            return re.compile(re.escape(self.start))
        return re.compile(re.escape(self.start) + b"[" + re.escape(bytes(range(self.follower, 256, 4))) + b"]")


@dataclass(frozen=True, slots=True)
class Anchor:
    """The place `offset` bytes into the full block number `block`; `check` is its CRC-32."""

    check: int
    block: int
    offset: int


def check_of(data: bytes, place: int) -> int:
    """Return the CRC-32 of what stands at `place`."""
    return zlib.crc32(data[place : place + ANCHOR_BYTES])


class AnchorChooser:
    """Chooses the anchors of one file, group by group, and the markers on the way."""

    def __init__(self, block_bytes: int) -> None:
        self.markers: list[Marker] = []
        self._block = block_bytes
        self._patterns: list[re.Pattern[bytes]] = []
        self._choices_left = _CHOICES_MAX
        self._checks: set[int] = set()  # of the anchors so far

    def choose(self, data: bytes, start: int, end: int) -> int | None:
        """Return the place for the group whose full blocks reach from `start` to `end`; None if nothing fits.

        It is unlike all before it where such a place was found.
        """
        repeated: int | None = None
        places_left = _PLACES_MAX
        for place in self._places(data, start, end):
            if self._is_fresh(data, place):
                return place
            repeated = place
            places_left -= 1
            if not places_left:
                break
        if repeated is None and self._choose_marker(data, start, end):
            for place in self._places(data, start, end):
                self._is_fresh(data, place)
                return place
        return repeated

    def _places(self, data: bytes, group: int, end: int) -> Iterator[int]:
        """Yield where an anchor may lie in the group."""
        for start in range(group, end, _STRETCH_BYTES):
            stretch_end = min(start + _STRETCH_BYTES, end)
            spots_max = (stretch_end - start) // MARKER_SPACING_MIN
            for pattern in self._patterns:
                spots = [spot.start() for spot in islice(pattern.finditer(data, start, stretch_end), spots_max + 1)]
                if len(spots) <= spots_max:
                    for place in spots:
                        offset = (place - group) % self._block
                        if offset < OFFSETS and offset + ANCHOR_BYTES <= self._block:
                            yield place

    def _is_fresh(self, data: bytes, place: int) -> bool:
        check = check_of(data, place)
        if check in self._checks:
            return False
        self._checks.add(check)
        return True

    def _choose_marker(self, data: bytes, start: int, end: int) -> bool:
        """Add the marker that fits best to the first stretch of the group that is not one value all over."""
        for stretch in range(start, end, _STRETCH_BYTES):
            length = min(_STRETCH_BYTES, end - stretch)
            if data.count(data[stretch], stretch, stretch + length) < length:
                break
        else:
            return False
        if not self._choices_left or len(self.markers) == MARKERS_MAX:
            return False
        self._choices_left -= 1
        marker = _fitting(data[stretch : stretch + length], self._block >= _THINNED_BLOCK_BYTES_MIN)
        if marker is None or marker in self.markers:
            return False
        self.markers.append(marker)
        self._patterns.append(marker.pattern())
        return True


def _fitting(data: bytes, thinned: bool) -> Marker | None:
    """Return the marker that stands about every _SPACING_USUAL bytes in `data`, or with `thinned` a fourth of that."""
    best = max(len(data) // _SPACING_USUAL, 1)

    def misfit(count: int) -> float:
        return max(count, best) / min(count, best)

    counts = {bytes([value]): count for value in range(256) if (count := data.count(value))}
    start = min(counts, key=lambda each: misfit(counts[each]))
    while counts[start] > 2 * best and len(start) < Marker.START_BYTES_MAX:
        length = len(start) + 1
        spots = re.finditer(re.escape(start), data)
        counts = Counter(
            longer for spot in spots if len(longer := data[spot.start() : spot.start() + length]) == length
        )
        start = min(counts, key=lambda each: misfit(counts[each]))
    if counts[start] * MARKER_SPACING_MIN > len(data) * 3 // 4:
        return None
    if thinned and counts[start] > best // 2:
        markers = [Marker(start, follower) for follower in range(Marker.ANY + 1)]
        found = {marker: len(marker.pattern().findall(data)) for marker in markers}
        return min((each for each in markers if found[each]), key=lambda each: abs(found[each] - counts[start] / 4))
    return Marker(start, Marker.ANY)
