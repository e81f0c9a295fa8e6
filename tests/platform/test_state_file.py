"""The slot file: an acknowledged value survives a torn write, and damage is never taken for a new file (D8 to D10)."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import pytest

from agent.core.errors import StateError
from agent.platform import state_file
from agent.platform.state_file import PAYLOAD_BYTES_MAX, SLOT_BYTES, SlotFile, reading_of_untrusted

FILE_BYTES = 2 * SLOT_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "term"


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Thousands of cases: the disk is not asked, except where a test says so."""
    monkeypatch.setattr(state_file, "flush_data", lambda descriptor: None)


def written(path: Path, *payloads: bytes) -> bytes:
    """Returns the content of a file after these writes."""
    slots = SlotFile(path)
    for payload in payloads:
        slots.write(payload)
    slots.close()
    return path.read_bytes()


def test_a_missing_file_is_new(path: Path) -> None:
    reading = SlotFile(path).read()
    assert reading == state_file.SlotReading(None, 0, 0, empty=True, newer_version=False)
    assert not path.exists()


def test_the_last_value_written_is_read(path: Path) -> None:
    slots = SlotFile(path)
    last = 0
    for number in range(20):
        payload = bytes([number]) * (number * 200)
        sequence = slots.write(payload)
        assert sequence > last
        last = sequence
        reading = SlotFile(path).read()
        assert (reading.payload, reading.sequence, reading.damaged_slots) == (payload, sequence, 0)
        assert not reading.empty
    slots.close()
    assert path.stat().st_size == FILE_BYTES


def test_writing_goes_on_after_a_restart(path: Path) -> None:
    for number in range(5):
        slots = SlotFile(path)
        slots.read()
        slots.write(b"%d" % number)
        slots.close()
    assert SlotFile(path).read().payload == b"4"


def test_a_write_torn_at_any_byte_leaves_the_value_before_or_the_new_one(path: Path) -> None:
    for count in (1, 2):  # once into each slot
        path.unlink(missing_ok=True)
        payloads = [b"value %d " % number * 30 for number in range(count + 1)]
        before = written(path, *payloads[:-1])
        after = written(path, payloads[-1])
        place = 0 if before[SLOT_BYTES:] == after[SLOT_BYTES:] else SLOT_BYTES
        for boundary in range(place, place + SLOT_BYTES + 1):
            reading = reading_of_untrusted(after[:boundary] + before[boundary:])
            assert reading.payload in payloads[-2:]
            assert reading.damaged_slots <= 1
        assert reading.payload == payloads[-1]


def test_a_write_whose_sectors_arrive_in_any_order_leaves_the_value_before_or_the_new_one(path: Path) -> None:
    sector = 512
    before = written(path, b"old" * 1000, b"new" * 1000)
    after = written(path, b"newest" * 600)
    sectors = [at for at in range(0, FILE_BYTES, sector) if before[at : at + sector] != after[at : at + sector]]
    for chosen in range(2 ** len(sectors)):
        image = bytearray(before)
        for bit, at in enumerate(sectors):
            if chosen >> bit & 1:
                image[at : at + sector] = after[at : at + sector]
        assert reading_of_untrusted(bytes(image)).payload in (b"new" * 1000, b"newest" * 600)


def test_a_flipped_bit_is_noticed_wherever_it_is(path: Path) -> None:
    content = written(path, b"first", b"second")
    for at in range(FILE_BYTES):
        image = bytearray(content)
        image[at] ^= 1 << at % 8
        reading = reading_of_untrusted(bytes(image))
        assert reading.damaged_slots == 1
        assert not reading.newer_version
        assert reading.payload in (b"first", b"second")


def test_a_truncated_file_gives_a_whole_slot_or_is_damaged(path: Path) -> None:
    content = written(path, b"first", b"second")
    for size in range(FILE_BYTES):
        reading = reading_of_untrusted(content[:size])
        assert not reading.empty
        assert reading.damaged_slots == (1 if size >= SLOT_BYTES else 2)
        assert (reading.payload is None) == (size < SLOT_BYTES)


@pytest.mark.parametrize("content", [b"", b"\0" * FILE_BYTES, b"garbage", b"\xff" * 100_000, os.urandom(FILE_BYTES)])
def test_a_file_without_a_valid_slot_is_damaged_and_not_new(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert SlotFile(path).read() == state_file.SlotReading(None, 0, 2, empty=False, newer_version=False)


def test_a_damaged_file_is_not_overwritten_by_a_write(path: Path) -> None:
    path.write_bytes(b"garbage")
    with pytest.raises(StateError, match="damaged"):
        SlotFile(path).write(b"term 1")
    assert path.read_bytes() == b"garbage"


def test_a_damaged_file_started_afresh_is_kept_beside_the_new_one(path: Path) -> None:
    for number, damage in enumerate([b"garbage", b""], start=1):
        path.write_bytes(damage)
        slots = SlotFile(path)
        slots.read()
        slots.recreate(b"term 42")
        slots.write(b"term 44")
        slots.close()
        assert SlotFile(path).read().payload == b"term 44"
        assert path.with_name(f"term.damaged-{number}").read_bytes() == damage


def test_the_file_is_never_missing_while_it_is_started_afresh(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"garbage")
    real = state_file.replace_file

    def checked(target: Path, data: bytes, private: bool) -> None:
        assert path.exists()
        real(target, data, private)

    monkeypatch.setattr(state_file, "replace_file", checked)
    SlotFile(path).recreate(b"term 42")


def newer(content: bytes, version: int) -> bytes:
    """Returns a slot as a release to come might write it: another version, the checksum in its place."""
    body = content[:8] + struct.pack(">H", version) + b"something else entirely".ljust(SLOT_BYTES - 42, b"!")
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("place", [0, SLOT_BYTES])
def test_a_file_of_a_newer_release_is_told_from_a_damaged_one_and_left_alone(path: Path, place: int) -> None:
    content = written(path, b"first", b"second")
    path.write_bytes(content[:place] + newer(content, 2) + content[place + SLOT_BYTES :])
    reading = SlotFile(path).read()
    assert reading.newer_version
    assert reading.payload is None
    with pytest.raises(StateError, match="newer release"):
        SlotFile(path).write(b"third")


def test_one_damaged_slot_is_mended_by_the_next_write(path: Path) -> None:
    content = written(path, b"first", b"second")
    for place in (0, SLOT_BYTES):
        path.write_bytes(content[:place] + b"\0" * SLOT_BYTES + content[place + SLOT_BYTES :])
        slots = SlotFile(path)
        assert slots.read().damaged_slots == 1
        slots.write(b"third")
        slots.close()
        reading = SlotFile(path).read()
        assert (reading.payload, reading.damaged_slots) == (b"third", 0)


def test_a_crash_while_the_file_is_created_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_power(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.platform.permissions.replace", lose_power)
    with pytest.raises(KeyboardInterrupt):
        SlotFile(path).write(b"first")
    assert SlotFile(path).read().empty


def test_after_a_failed_flush_nothing_more_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fsync reports success for pages that never reached the disk: it must not be tried."""
    slots = SlotFile(path)
    slots.write(b"first")
    flushes: list[int] = []

    def fail(descriptor: int) -> None:
        flushes.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(state_file, "flush_data", fail)
    with pytest.raises(StateError, match="Input/output error"):
        slots.write(b"second")
    monkeypatch.setattr(state_file, "flush_data", flushes.append)
    with pytest.raises(StateError, match="start the agent again"):
        slots.write(b"third")
    assert len(flushes) == 1


def test_the_value_read_is_flushed_before_the_other_slot_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have come from a write whose flush failed, and exist in the kernel's memory only."""
    content = written(path, b"first", b"second")
    seen_at_flush: list[bytes] = []
    monkeypatch.setattr(state_file, "flush_data", lambda descriptor: seen_at_flush.append(path.read_bytes()))
    slots = SlotFile(path)
    slots.write(b"third")
    slots.write(b"fourth")
    slots.close()
    assert seen_at_flush[0] == content
    assert len(seen_at_flush) == 3


def test_a_write_is_one_write_and_one_flush(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = SlotFile(path)
    slots.write(b"first")
    flushes: list[int] = []
    monkeypatch.setattr(state_file, "flush_data", flushes.append)
    monkeypatch.setattr(state_file, "replace_file", None)
    slots.write(b"second")
    slots.close()
    assert len(flushes) == 1


def test_a_file_that_cannot_be_read_is_a_sentence(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StateError, match="term cannot be read"):
        SlotFile(path).read()


def test_the_largest_value_fits_and_a_larger_one_is_our_bug(path: Path) -> None:
    content = written(path, b"x" * PAYLOAD_BYTES_MAX)
    assert SlotFile(path).read().payload == b"x" * PAYLOAD_BYTES_MAX
    with pytest.raises(AssertionError):
        SlotFile(path).write(b"x" * (PAYLOAD_BYTES_MAX + 1))
    assert path.read_bytes() == content
