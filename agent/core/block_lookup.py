"""Answers which block of the old file has this digest, and which anchors this check; compact for long files.

Knows nothing of the new file. Invariant: beside the signature, at most some 16 bytes per block and 100 per anchor are
held, and nothing before the first question.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping

from agent.core.block_anchors import Anchor
from agent.core.block_signature import STRONG_BYTES, Signature

BLOCKS_MAX = 1 << 18  # of a file whose blocks are found by digest; a longer file's are found through anchors only
SAME_CHECK_MAX = 4  # anchors with one check that are told of

_NONE = 0xFFFFFFFF


class BlockLookup:
    """The signature's blocks by their digests, and its anchors by their checks."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._strongs: array[int] | None = None  # sorted
        self._numbers: array[int] = array("I")  # of the blocks, in the order of `_strongs`
        self._last_group: dict[int, int] | None = None  # by check
        self._group_before: array[int] = array("I")  # the group before this one with the same check, or _NONE

    def block_with(self, strong: bytes) -> int | None:
        """Return the number of the first full block with this digest (STRONG_BYTES)."""
        if self._strongs is None:
            self._strongs = self._sort_blocks()
        value = int.from_bytes(strong, "big")
        place = bisect_left(self._strongs, value)
        return self._numbers[place] if place < len(self._strongs) and self._strongs[place] == value else None

    def anchors_with(self, check: int) -> Iterator[Anchor]:
        """Yield anchors with this check, the last of the file first, SAME_CHECK_MAX at most."""
        group = self.checks.get(check, _NONE)
        for _ in range(SAME_CHECK_MAX):
            if group == _NONE:
                return
            anchor = self._signature.anchor_of(group)
            assert anchor is not None
            yield anchor
            group = self._group_before[group]

    @property
    def checks(self) -> Mapping[int, int]:
        """The checks that any anchor has, each with the last group that has it."""
        if self._last_group is None:
            self._last_group = self._chain_groups()
        return self._last_group

    @property
    def finds_blocks(self) -> bool:
        """False if there is no full block to be found by its digest."""
        return 0 < self._signature.full_blocks <= BLOCKS_MAX

    def _sort_blocks(self) -> array[int]:
        count = self._signature.full_blocks if self.finds_blocks else 0
        strongs = self._signature.strongs
        values = array(
            "Q",
            (
                int.from_bytes(strongs[at : at + STRONG_BYTES], "big")
                for at in range(0, count * STRONG_BYTES, STRONG_BYTES)
            ),
        )
        self._numbers = array("I", sorted(range(count), key=values.__getitem__))
        return array("Q", (values[number] for number in self._numbers))

    def _chain_groups(self) -> dict[int, int]:
        last: dict[int, int] = {}
        for group, check in enumerate(self._signature.checks()):
            self._group_before.append(_NONE if check is None else last.get(check, _NONE))
            if check is not None:
                last[check] = group
        return last
