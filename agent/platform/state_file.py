"""A small durable value that is written often: two slots in one file, written in turn.

A write touches one slot only, the older one, with one write and one flush and without a rename or any new space on the
disk: power may fail at any byte of it, and the other slot still holds the value before. What a payload means is not
known here.

    offset  bytes  in each slot of 4096
         0      8  magic, b"PAIRSLOT"
         8      2  format version, big endian like all numbers here
        10      2  length of the payload, at most 4000
        12      4  zero
        16      8  sequence: grows by one at each write; the higher valid one is the value
        24   4040  payload, then zeros
      4064     32  SHA-256 over the 4064 bytes before it

Every version of the format keeps magic, version and checksum where they are: so a file of a newer version is told from
a damaged one. A file that is there but holds no valid slot is damaged and never taken for a new one. After a failed
write or flush nothing more is written through the same object, because what the kernel remembers may not be what the
disk holds; the first write after each opening writes the current value once more for the same reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.core.errors import StateError
from agent.platform.durability import flush_data
from agent.platform.permissions import replace_file

SLOT_BYTES: Final = 4096
PAYLOAD_BYTES_MAX: Final = 4000
FORMAT_VERSION: Final = 1

_MAGIC: Final = b"PAIRSLOT"
_HEADER: Final = struct.Struct(">8sHHIQ")
_CHECKSUM_BYTES: Final = hashlib.sha256().digest_size
_SLOTS: Final = 2


@dataclass(frozen=True)
class SlotReading:
    """What a slot file holds."""

    payload: bytes | None  # the newest valid value; None if there is none to trust
    sequence: int  # of that value; 0 if there is none
    damaged_slots: int  # 0 to 2; with 1 a write was torn, and `payload` is the value before it
    empty: bool  # the file does not exist: nothing was ever written
    newer_version: bool  # a newer release wrote it; `payload` is None then


@dataclass(frozen=True)
class _Slot:
    version: int
    sequence: int
    payload: bytes


def reading_of_untrusted(content: bytes) -> SlotReading:
    """Returns what a file with this `content` holds, whatever the content is."""
    slots = [_decode_untrusted(content[at : at + SLOT_BYTES]) for at in (0, SLOT_BYTES)]
    valid = [slot for slot in slots if slot is not None]
    damaged = _SLOTS - len(valid)
    if any(slot.version > FORMAT_VERSION for slot in valid):
        return SlotReading(payload=None, sequence=0, damaged_slots=damaged, empty=False, newer_version=True)
    if not valid:
        return SlotReading(payload=None, sequence=0, damaged_slots=damaged, empty=False, newer_version=False)
    newest = max(valid, key=lambda slot: slot.sequence)
    return SlotReading(newest.payload, newest.sequence, damaged, empty=False, newer_version=False)


class SlotFile:
    """The slot file at `path`, for one writer at a time; every call blocks for as long as the disk takes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._newest: tuple[int, bytes] | None = None  # sequence and payload, known once read or written
        self._written_here = False
        self._failed = False

    def read(self) -> SlotReading:
        """Reads both slots from the file; raises StateError if it cannot be read."""
        self.close()
        try:
            with self._path.open("rb") as file:
                content = file.read(_SLOTS * SLOT_BYTES)
        except FileNotFoundError:
            return SlotReading(payload=None, sequence=0, damaged_slots=0, empty=True, newer_version=False)
        except OSError as error:
            raise StateError(f"the state file {self._path} cannot be read: {error.strerror}.") from error
        reading = reading_of_untrusted(content)
        if reading.payload is not None:
            self._newest = (reading.sequence, reading.payload)
        return reading

    def write(self, payload: bytes) -> int:
        """Makes `payload` (at most 4000 bytes) the value and returns its sequence once it is on the disk.

        A missing file is created. Raises StateError if the write fails, which leaves the value before it or this one;
        if the file is damaged or of a newer version, which is left as it is (see `recreate`); and always after a
        failure, until the agent is started again.
        """
        self._require_usable(payload)
        if self._newest is None and self._descriptor is None:
            reading = self.read()
            if reading.empty:
                return self._create(payload)
            if reading.payload is None:
                what = "was written by a newer release" if reading.newer_version else "is damaged"
                raise StateError(f"the state file {self._path} {what} and was not overwritten.")
        assert self._newest is not None
        sequence, current = self._newest
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, _OPEN_FLAGS)
            if not self._written_here:
                # Whether the value read has reached the disk is not known; it must have before the other slot changes.
                _write_slot(self._descriptor, sequence, current)
                self._written_here = True
            _write_slot(self._descriptor, sequence + 1, payload)
        except OSError as error:
            raise self._failure(error) from error
        self._newest = (sequence + 1, payload)
        return sequence + 1

    def recreate(self, payload: bytes) -> int:
        """Starts a damaged or newer file afresh with `payload`; the old one is kept beside it as "NAME.damaged-N".

        For callers that know a value to go on from, never to go on from nothing. Raises StateError.
        """
        self._require_usable(payload)
        self.close()
        # Copied, not renamed: at no moment may the file be missing, because then it would count as new after a crash.
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            replace_file(self._free_name(), file.read(_SLOTS * SLOT_BYTES), private=True)
        return self._create(payload)

    def close(self) -> None:
        """Closes the file; the next write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._newest, self._written_here = None, None, False

    def _create(self, payload: bytes) -> int:
        # Renamed into place when whole: a crash in between leaves no file, and not an empty one that looks damaged.
        # Both slots get the value, so that from the beginning one may be damaged.
        last = _SLOTS
        images = {_place(sequence): _encode(sequence, payload) for sequence in range(1, last + 1)}
        try:
            replace_file(self._path, b"".join(images[place] for place in sorted(images)), private=True)
        except StateError:
            self._failed = True
            raise
        self._newest = (last, payload)
        self._written_here = True
        return last

    def _require_usable(self, payload: bytes) -> None:
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise AssertionError(f"a slot holds {PAYLOAD_BYTES_MAX} bytes, not {len(payload)}")
        if self._failed:
            raise StateError(
                f"the state file {self._path} is not written any more, because a write failed before. "
                "Mend the disk, then start the agent again."
            )

    def _failure(self, error: OSError) -> StateError:
        self._failed = True
        self.close()
        return StateError(f"the state file {self._path} cannot be written: {error.strerror}.")

    def _free_name(self) -> Path:
        number = 1
        while (candidate := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        return candidate


def _place(sequence: int) -> int:
    """Returns the offset of the slot that a sequence goes to."""
    return (sequence % _SLOTS) * SLOT_BYTES


def _encode(sequence: int, payload: bytes) -> bytes:
    header = _HEADER.pack(_MAGIC, FORMAT_VERSION, len(payload), 0, sequence)
    body = (header + payload).ljust(SLOT_BYTES - _CHECKSUM_BYTES, b"\0")
    return body + hashlib.sha256(body).digest()


def _decode_untrusted(image: bytes) -> _Slot | None:
    """Returns the slot in `image`, or None if it is damaged; of a newer version only the version is meaningful."""
    if len(image) != SLOT_BYTES:
        return None
    body, checksum = image[:-_CHECKSUM_BYTES], image[-_CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    magic, version, length, _, sequence = _HEADER.unpack_from(body)
    if magic != _MAGIC or version < FORMAT_VERSION:
        return None
    if version > FORMAT_VERSION:
        return _Slot(version, 0, b"")
    if length > PAYLOAD_BYTES_MAX or sequence == 0:
        return None
    return _Slot(version, sequence, body[_HEADER.size : _HEADER.size + length])


if sys.platform == "win32":
    _OPEN_FLAGS = os.O_RDWR | os.O_BINARY | os.O_NOINHERIT

    def _write_slot(descriptor: int, sequence: int, payload: bytes) -> None:
        image = _encode(sequence, payload)
        os.lseek(descriptor, _place(sequence), os.SEEK_SET)
        if os.write(descriptor, image) != len(image):
            raise OSError(0, "the disk took only a part of it")
        flush_data(descriptor)

else:
    _OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC

    def _write_slot(descriptor: int, sequence: int, payload: bytes) -> None:
        image = _encode(sequence, payload)
        if os.pwrite(descriptor, image, _place(sequence)) != len(image):
            raise OSError(0, "the disk took only a part of it")
        flush_data(descriptor)
