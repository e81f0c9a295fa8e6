"""Keeps the node's record in the state directory, and says what a damaged one means.

Knows the file and the record, not the roles. A record that cannot be read is kept beside its place and never taken for
a new node's: the node goes on without a term until the other node tells it one (`Record.damaged`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio

from agent.core.errors import StateError
from agent.core.record import Record, after_damage, decode_record_untrusted, encode_record
from agent.core.vocabulary import Mode
from agent.platform.locks import DirectoryLock
from agent.platform.priority import at_agents_priority
from agent.platform.state_file import SlotFile

RECORD_FILE = "record"
EVENTS_FILE = "events.jsonl"  # where it is, an agent ran: a missing record is then a lost one


class RecordStore:
    """The record file of one state directory; `load` before anything else."""

    def __init__(self, state_directory: Path) -> None:
        self._path = state_directory / RECORD_FILE
        self._file = SlotFile(self._path)
        self._one_writer = trio.CapacityLimiter(1)

    def load(self, mode: Mode, announce: Callable[[str], None]) -> Record:
        """Returns the record to start with, written back so that a later store costs one flush; blocks on the disk.

        `announce` is told a sentence when something was lost. Raises StateError when a newer version wrote the file,
        or it cannot be read or written.
        """
        lane = 0 if mode is Mode.BACKUP else 1
        reading = self._file.read()
        if reading.newer_version:
            raise StateError(
                f"the state file {self._path} was written by a newer pair-agent; "
                "install that version again, or a newer one"
            )
        if reading.empty and not any(self._path.parent.glob(f"{EVENTS_FILE}*")):
            record = Record(mode=mode.value, term_lane=lane)
            self._file.write(encode_record(record))
            return record
        if reading.payload is None:
            what = (
                "is missing, though this node ran before" if reading.empty else "is damaged, and a copy of it is kept"
            )
            announce(
                f"the state file {self._path} {what}; this node becomes active only after "
                "the other node told it the last term, or with `pair-agent run --force-activate`"
            )
            record = after_damage(None, mode.value, lane)
            self._file.recreate(encode_record(record))
            return record
        record = decode_record_untrusted(reading.payload)
        if reading.damaged_slots:
            announce(f"the newest entry of the state file {self._path} may be lost; terms were skipped to be safe")
            record = after_damage(record, mode.value, lane)
        self._file.write(encode_record(record))
        return record

    async def store(self, record: Record) -> None:
        """Returns when `record` is on the disk. Raises StateError if it cannot be brought there."""
        write = at_agents_priority(self._file.write)
        await trio.to_thread.run_sync(write, encode_record(record), limiter=self._one_writer)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def forget_pair(state_directory: Path) -> bool:
    """Lets a node whose agent is stopped join another pair; returns whether it belonged to one. Its terms stay.

    Raises StateError when the agent runs, or the record cannot be read or written.
    """
    path = state_directory / RECORD_FILE
    if not path.exists():
        return False
    with DirectoryLock(state_directory):
        file = SlotFile(path)
        payload = file.read().payload
        if payload is None:
            raise StateError(f"the state file {path} cannot be read; start the agent once, which keeps a copy of it")
        record = decode_record_untrusted(payload)
        file.write(encode_record(replace(record, pair_id=b"", peer_name="", hold=False)))
        file.close()
    return record.paired
