"""What the ops make is the new file, whatever was done to the old one, and little of it travels."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.block_match import COPY_BYTES_MAX, LITERAL_BYTES_MAX, Copy, Literal, Matcher, Op, Zeros
from agent.core.block_signature import STRONG_BYTES, Signature, block_bytes

KIBIBYTE = 1024
OLD_BYTES = 256 * KIBIBYTE
BLOCK = block_bytes(OLD_BYTES)


def digest(block: memoryview) -> bytes:
    return blake2b(block, digest_size=STRONG_BYTES).digest()


class CountingDigest:
    """The digest function, and how many bytes went through it."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, block: memoryview) -> bytes:
        self.bytes += len(block)
        return digest(block)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def lines(count: int, seed: int = 1) -> list[bytes]:
    generator = random.Random(seed)
    words = ["pump", "valve", "pressure", "temperature", "opened", "closed", "timeout", "retry"]
    return [
        f"2026-01-01 {number // 3600:02}:{number // 60 % 60:02}:{number % 60:02} "
        f"{generator.choice(words)} {generator.choice(words)} {generator.random():.4f}\n".encode()
        for number in range(count)
    ]


def signature_of(old: bytes) -> Signature:
    return Signature.of([old], len(old), digest)


def ops_of(old: bytes, new: bytes, feed_bytes: int = 1 << 20) -> list[Op]:
    matcher = Matcher(signature_of(old), digest)
    ops = [op for at in range(0, len(new), feed_bytes) for op in matcher.feed(new[at : at + feed_bytes])]
    return ops + matcher.finish()


def made_by(ops: list[Op], old: bytes) -> bytes:
    made = bytearray()
    for op in ops:
        match op:
            case Copy(offset, length):
                assert 0 < length <= COPY_BYTES_MAX
                assert 0 <= offset <= len(old) - length
                made += old[offset : offset + length]
            case Literal(data):
                assert 0 < len(data) <= LITERAL_BYTES_MAX
                made += data
            case Zeros(length):
                assert length > 0
                made += bytes(length)
    return bytes(made)


def literal_bytes(ops: list[Op]) -> int:
    return sum(len(op.data) for op in ops if isinstance(op, Literal))


def literal_bytes_of(old: bytes, new: bytes) -> int:
    """Returns how much of `new` travels, after a look at whether it is made whole."""
    ops = ops_of(old, new)
    assert made_by(ops, old) == new
    return literal_bytes(ops)


edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "move", "zero", "repeat"]),
        st.floats(0, 1),
        st.integers(1, 5 * KIBIBYTE),
    ),
    max_size=6,
)


def edited(old: bytes, script: list[tuple[str, float, int]]) -> bytes:
    new = old
    for number, (kind, where, length) in enumerate(script):
        at = int(where * len(new))
        after = new[at + length :]
        match kind:
            case "insert":
                new = new[:at] + noise(length, number) + new[at:]
            case "delete":
                new = new[:at] + after
            case "replace":
                new = new[:at] + noise(min(length, len(new) - at), number) + after
            case "move":
                new = after + new[at : at + length] + new[:at]
            case "zero":
                new = new[:at] + bytes(length) + after
            case "repeat":
                new = new[: at + length] + new[at:]
    return new


@given(st.integers(0, 50_000), st.integers(0, 3), edits, st.sampled_from([100, 777, 4096, 1 << 20]))
def test_the_ops_make_the_new_file_whatever_was_done_to_the_old_one(
    size: int, seed: int, script: list[tuple[str, float, int]], feed_bytes: int
) -> None:
    old = noise(size, seed)
    new = edited(old, script)
    assert made_by(ops_of(old, new, feed_bytes), old) == new


@given(
    st.lists(st.sampled_from([b"\0" * 700, b"a" * 500, b"ab" * 300, b"same line\n" * 40, b"\0\1", b"x"]), max_size=40),
    st.lists(st.sampled_from([b"\0" * 700, b"a" * 500, b"ab" * 300, b"same line\n" * 40, b"\0\1", b"y"]), max_size=40),
)
def test_the_ops_make_the_new_file_where_everything_looks_alike(old: list[bytes], new: list[bytes]) -> None:
    assert made_by(ops_of(b"".join(old), b"".join(new)), b"".join(old)) == b"".join(new)


def test_nothing_travels_of_an_unchanged_file_and_its_copies_are_one() -> None:
    old = noise(OLD_BYTES + 77)
    assert ops_of(old, old) == [Copy(0, OLD_BYTES + 77)]


def test_copies_are_bounded() -> None:
    old = noise(COPY_BYTES_MAX + (1 << 20))
    assert [op.length for op in ops_of(old, old) if isinstance(op, Copy)] == [COPY_BYTES_MAX, 1 << 20]


@pytest.mark.parametrize("block", [0, 1, 100, OLD_BYTES // BLOCK - 1])
def test_a_block_changed_in_place_is_all_that_travels(block: int) -> None:
    old = noise(OLD_BYTES)
    new = old[: block * BLOCK] + noise(BLOCK, 2) + old[(block + 1) * BLOCK :]
    assert literal_bytes_of(old, new) == BLOCK


def test_one_percent_of_blocks_changed_in_place_is_all_that_travels() -> None:
    old = noise(8 << 20)
    block = block_bytes(len(old))
    new = bytearray(old)
    changed = random.Random(3).sample(range(len(old) // block), len(old) // block // 100)
    for number in changed:
        new[number * block : (number + 1) * block] = noise(block, number)
    assert literal_bytes_of(old, bytes(new)) == len(changed) * block


def test_a_long_stretch_changed_in_place_is_all_that_travels() -> None:
    old = noise(8 << 20)
    new = old[: 2 << 20] + noise(3 << 20, 2) + old[5 << 20 :]
    assert literal_bytes_of(old, new) == 3 << 20


@pytest.mark.parametrize("tail", [0, 1, 77, BLOCK - 1])
def test_of_an_appended_file_only_what_was_appended_travels(tail: int) -> None:
    old = noise(OLD_BYTES + tail)
    assert literal_bytes_of(old, old + noise(10_000, 2)) == 10_000


@pytest.mark.parametrize("left", [1, BLOCK, 100 * BLOCK, 100 * BLOCK + 5])
def test_of_a_truncated_file_at_most_the_cut_block_travels(left: int) -> None:
    old = noise(OLD_BYTES)
    assert literal_bytes_of(old, old[:left]) == left % BLOCK


@pytest.mark.parametrize("size", [2 * BLOCK, 3 * BLOCK + 77, OLD_BYTES, OLD_BYTES + 77])
def test_one_byte_inserted_at_the_start_is_all_that_travels(size: int) -> None:
    old = noise(size)
    assert literal_bytes_of(old, b"x" + old) == 1


@pytest.mark.parametrize("length", [1, 77, 3 * BLOCK, 100_000])
def test_at_an_insertion_at_most_the_block_around_it_travels_along(length: int) -> None:
    old = noise(OLD_BYTES + 77)
    at = OLD_BYTES // 3
    assert literal_bytes_of(old, old[:at] + noise(length, 2) + old[at:]) <= length + BLOCK


@pytest.mark.parametrize("length", [1, 77, 3 * BLOCK, 200_000])
def test_at_a_deletion_at_most_the_blocks_at_its_ends_travel(length: int) -> None:
    old = noise(OLD_BYTES + 77)
    at = OLD_BYTES // 9
    assert literal_bytes_of(old, old[:at] + old[at + length :]) <= 2 * BLOCK


def test_at_a_hundred_insertions_at_most_the_blocks_around_them_travel() -> None:
    old = noise(4 << 20)
    places = sorted(random.Random(5).sample(range(len(old)), 100))
    pieces = [old[start:end] + b"new" for start, end in zip([0, *places], [*places, len(old)], strict=True)]
    assert literal_bytes_of(old, b"".join(pieces)) < 130 * block_bytes(len(old))


def test_between_insertions_a_few_blocks_apart_what_is_whole_is_found() -> None:
    old = noise(4 << 20)
    block = block_bytes(len(old))
    count = len(old) // (3 * block)
    places = sorted(random.Random(5).sample(range(len(old)), count))
    pieces = [old[start:end] + b"new" for start, end in zip([0, *places], [*places, len(old)], strict=True)]
    whole_blocks = sum(max(0, end // block - -(-start // block)) for start, end in pairwise(places))
    assert literal_bytes_of(old, b"".join(pieces)) < len(old) - 0.98 * whole_blocks * block


def test_a_log_that_lost_its_first_lines_and_got_new_ones_is_found_again() -> None:
    old = lines(40_000)
    new = [*old[15_000:], *lines(100, seed=2)]
    grown = len(b"".join(lines(100, seed=2)))
    assert literal_bytes_of(b"".join(old), b"".join(new)) <= grown + 2 * block_bytes(len(b"".join(old)))


def test_of_a_log_with_edited_lines_the_blocks_around_them_travel() -> None:
    old = lines(40_000)
    new = list(old)
    places = random.Random(5).sample(range(len(old)), 40)
    for place in places:
        new[place] = b"edited\n"
    assert literal_bytes_of(b"".join(old), b"".join(new)) < 2 * len(places) * block_bytes(len(b"".join(old)))


def test_moved_blocks_do_not_travel() -> None:
    old = noise(OLD_BYTES)
    blocks = [old[at : at + BLOCK] for at in range(0, len(old), BLOCK)]
    random.Random(1).shuffle(blocks)
    assert literal_bytes_of(old, b"".join(blocks)) == 0


def test_a_stretch_moved_to_an_odd_place_hardly_travels() -> None:
    old = noise(OLD_BYTES)
    assert literal_bytes_of(old, old[100_001:200_003] + old[:100_001] + old[200_003:]) <= 4 * BLOCK


def test_the_last_shorter_block_is_found_where_everything_was_shifted() -> None:
    old = noise(OLD_BYTES + 500)
    new = b"x" * 10 + old[:-600] + noise(50, 2) + old[-500:]
    assert literal_bytes_of(old, new) <= 10 + 2 * BLOCK
    assert isinstance(ops_of(old, new)[-1], Copy)


def test_zeros_never_travel_even_if_the_old_file_has_none() -> None:
    old = noise(OLD_BYTES)
    assert ops_of(old, bytes(10 << 20)) == [Zeros(10 << 20)]
    assert ops_of(b"", bytes(10_000_001)) == [Zeros(10_000_001)]


def test_a_hole_amid_shifted_data_does_not_end_the_search() -> None:
    old = noise(100 * KIBIBYTE) + bytes(100 * KIBIBYTE) + noise(100 * KIBIBYTE, 2)
    new = old[: 50 * KIBIBYTE] + b"odd" + old[50 * KIBIBYTE :]
    assert literal_bytes_of(old, new) < 6 * block_bytes(len(old))


def test_against_nothing_everything_but_zeros_travels() -> None:
    new = noise(100_000) + bytes(100_000)
    matcher = Matcher(Signature.nothing(), digest)
    ops = matcher.feed(new) + matcher.finish()
    assert made_by(ops, b"") == new
    assert literal_bytes(ops) < 100_000 + (1 << 14)


@pytest.mark.parametrize("old", [b"", noise(10), noise(OLD_BYTES)], ids=["nothing", "ten bytes", "blocks"])
def test_an_empty_new_file_needs_no_ops(old: bytes) -> None:
    assert ops_of(old, b"") == []


def hashed_per_byte(old: bytes, new: bytes) -> float:
    counting = CountingDigest()
    matcher = Matcher(signature_of(old), counting)
    ops = [op for at in range(0, len(new), 1 << 20) for op in matcher.feed(new[at : at + (1 << 20)])]
    assert made_by(ops + matcher.finish(), old) == new
    return counting.bytes / len(new)


def test_where_blocks_match_each_byte_is_hashed_once() -> None:
    old = noise(1 << 20)
    assert hashed_per_byte(old, old) == 1
    new = old[:20_480] + noise(BLOCK, 2) + old[20_480 + BLOCK :]
    assert hashed_per_byte(old, new) == 1


def nearly_alike(seed: int) -> bytes:
    return b"".join(b"the same thing again " * 5 + b"%09d\n" % (seed * 10**6 + number) for number in range(10_000))


def dotted(seed: int) -> bytes:
    """Zeros with an odd byte here and there: every anchor can be taken for many others."""
    data = bytearray(b"ab" * 500_000)
    generator = random.Random(seed)
    for _ in range(2_000):
        data[generator.randrange(len(data))] = 7
    return bytes(data)


@pytest.mark.parametrize(
    "contents",
    [nearly_alike, dotted, lambda seed: noise(1 << 20, seed), lambda seed: b"".join(lines(20_000, seed))],
    ids=["nearly alike lines", "nearly alike everywhere", "noise", "log"],
)
def test_a_byte_is_hashed_a_bounded_number_of_times_whatever_the_contents(contents: Callable[[int], bytes]) -> None:
    old, new = contents(1), contents(2)
    assert hashed_per_byte(old, new) < 5
    shuffled = [new[at : at + 700] + old[at + 5 : at + 1900] for at in range(0, len(old), 1900)]
    assert hashed_per_byte(old, b"".join(shuffled)) < 8


def test_of_a_long_new_file_only_a_few_mebibytes_are_held() -> None:
    old = noise(1 << 20)
    chunks = [noise(1 << 20, seed) for seed in range(4)]
    matcher = Matcher(signature_of(old), digest)
    tracemalloc.start()
    try:
        for number in range(40):
            matcher.feed(chunks[number % 4])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_ops_come_while_the_new_file_is_still_fed() -> None:
    old = noise(4 << 20)
    matcher = Matcher(signature_of(old), digest)
    early = [op for at in range(0, len(old), 1 << 20) for op in matcher.feed(noise(1 << 20, at + 9))]
    assert literal_bytes(early) > 2 << 20
