"""Blocks and anchors of the old file are found, each by what is known of it."""

from __future__ import annotations

import random
from hashlib import blake2b

import pytest

from agent.core import block_lookup
from agent.core.block_lookup import SAME_CHECK_MAX, BlockLookup
from agent.core.block_signature import Signature

BLOCK = 1024


def digest(block: memoryview) -> bytes:
    return blake2b(block, digest_size=7).digest()


def noise(length: int) -> bytes:
    return random.Random(1).randbytes(length)


def signature_of(contents: bytes) -> Signature:
    return Signature.of([contents], len(contents), digest)


def test_every_full_block_is_found_by_its_digest_and_the_last_shorter_one_is_not() -> None:
    signature = signature_of(noise(50 * BLOCK + 5))
    lookup = BlockLookup(signature)
    assert [lookup.block_with(signature.strong_of(number)) for number in range(50)] == list(range(50))
    assert lookup.block_with(signature.strong_of(50)) is None


@pytest.mark.parametrize("strong", [bytes(7), b"\xff" * 7])
def test_an_unknown_digest_is_not_found(strong: bytes) -> None:
    assert BlockLookup(signature_of(noise(50 * BLOCK))).block_with(strong) is None
    assert BlockLookup(Signature.nothing()).block_with(strong) is None


def test_of_equal_blocks_the_first_is_found() -> None:
    signature = signature_of(noise(BLOCK) * 5)
    assert BlockLookup(signature).block_with(signature.strong_of(4)) == 0


def test_the_blocks_of_a_very_long_file_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = signature_of(noise(50 * BLOCK))
    assert BlockLookup(signature).finds_blocks
    monkeypatch.setattr(block_lookup, "BLOCKS_MAX", 49)
    assert not BlockLookup(signature).finds_blocks
    assert BlockLookup(signature).block_with(signature.strong_of(0)) is None
    assert not BlockLookup(Signature.nothing()).finds_blocks


def test_every_anchor_is_found_by_its_check() -> None:
    signature = signature_of(noise(50 * BLOCK))
    lookup = BlockLookup(signature)
    for group, check in enumerate(signature.checks()):
        if check is not None:
            assert list(lookup.anchors_with(check)) == [signature.anchor_of(group)]
    assert list(lookup.anchors_with(12345)) == []


def test_of_anchors_with_one_check_a_few_are_found() -> None:
    line = b"all the lines of this file are as this one is, for it is a file with nothing new to say at all\n"
    signature = signature_of((line * 1000)[: 60 * BLOCK])
    checks = [check for check in signature.checks() if check is not None]
    assert len(checks) > len(set(checks))
    lookup = BlockLookup(signature)
    most = max(set(checks), key=checks.count)
    found = list(lookup.anchors_with(most))
    assert len(found) == SAME_CHECK_MAX
    assert {anchor.check for anchor in found} == {most}
    assert len({anchor.block for anchor in found}) == SAME_CHECK_MAX
