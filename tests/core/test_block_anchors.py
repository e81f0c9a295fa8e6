"""Anchors lie where they can be found again, and looking for them ends whatever the contents are."""

from __future__ import annotations

import random

import pytest

from agent.core.block_anchors import ANCHOR_BYTES, MARKERS_MAX, OFFSETS, AnchorChooser, Marker, check_of

BLOCK = 4096
GROUP = 2 * BLOCK


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def nucleotides() -> bytes:
    return bytes(random.Random(1).choices(b"ACGT", k=1 << 17))


def places(chooser: AnchorChooser, data: bytes, group: int = GROUP) -> list[int | None]:
    return [chooser.choose(data, start, min(start + group, len(data))) for start in range(0, len(data), group)]


@pytest.mark.parametrize(
    "data", [noise(1 << 18), noise(1 << 17).hex().encode(), nucleotides()], ids=["noise", "hex", "few symbols"]
)
def test_every_anchor_begins_with_a_marker_and_lies_within_a_block(data: bytes) -> None:
    chooser = AnchorChooser(BLOCK)
    chosen = places(chooser, data)
    assert sum(place is None for place in chosen) <= 1
    for place in chosen:
        if place is not None:
            assert any(marker.pattern().match(data, place) for marker in chooser.markers)
            assert place % BLOCK + ANCHOR_BYTES <= BLOCK


def test_an_anchor_that_would_reach_beyond_its_block_is_none() -> None:
    only_at_the_end = bytes(BLOCK - ANCHOR_BYTES + 1) + noise(ANCHOR_BYTES - 1)
    assert places(AnchorChooser(BLOCK), only_at_the_end * 8) == [None] * 4


def test_a_marker_is_not_used_where_it_is_too_common() -> None:
    chooser = AnchorChooser(BLOCK)
    places(chooser, noise(GROUP))
    (marker,) = chooser.markers
    common = b"".join(marker.start + noise(7, seed) for seed in range(GROUP // 8))
    place = chooser.choose(common, 0, GROUP)
    assert place is not None
    assert not common.startswith(marker.start, place)


def test_in_a_long_block_an_anchor_lies_where_its_offset_can_be_told() -> None:
    block = 4 * OFFSETS
    late = bytes(OFFSETS) + noise(block - OFFSETS)
    chooser = AnchorChooser(block)
    assert places(chooser, late, block) == [None]
    (place,) = places(chooser, noise(block), block)
    assert place is not None
    assert place < OFFSETS


def test_an_anchor_is_unlike_all_before_it_where_that_is_possible() -> None:
    repeated = noise(GROUP)
    chooser = AnchorChooser(BLOCK)
    data = repeated * 5
    checks = [check_of(data, place) for place in places(chooser, data) if place is not None]
    assert len(set(checks)) == 5


def test_where_all_is_alike_an_anchor_repeats() -> None:
    line = b"all the lines of this file are as this one is, for it is a file with nothing new to say at all\n"
    chooser = AnchorChooser(BLOCK)
    chosen = places(chooser, (line * 2000)[: 16 * GROUP])
    assert None not in chosen
    assert len(chooser.markers) == 1


@pytest.mark.parametrize("data", [bytes(1 << 16), b"\xff" * (1 << 16), b"ab" * (1 << 15)], ids=["0", "255", "ab"])
def test_where_no_marker_fits_there_is_no_anchor(data: bytes) -> None:
    chooser = AnchorChooser(BLOCK)
    assert set(places(chooser, data)) == {None}
    assert chooser.markers == []


def test_another_kind_of_contents_gets_another_marker() -> None:
    capitals, digits = (bytes(random.Random(1).choices(values, k=1 << 16)) for values in (range(65, 91), range(48, 58)))
    chooser = AnchorChooser(BLOCK)
    assert None not in places(chooser, capitals)
    assert None not in places(chooser, digits)
    assert len(chooser.markers) == 2


def test_markers_are_bounded_however_mixed_the_contents() -> None:
    chooser = AnchorChooser(BLOCK)
    for first in range(0, 250, 5):
        places(chooser, bytes(random.Random(first).choices(range(first, first + 5), k=GROUP)))
    assert len(chooser.markers) <= MARKERS_MAX


def test_a_marker_finds_its_value_before_its_followers_only() -> None:
    data = bytes(value for follower in range(256) for value in (7, follower))
    assert len(Marker(b"\7", Marker.ANY).pattern().findall(data)) == 256 + 1
    for follower in range(4):
        found = [spot.start() for spot in Marker(b"\7", follower).pattern().finditer(data)]
        assert all(data[at + 1] & 3 == follower for at in found)
        assert len(found) >= 64
