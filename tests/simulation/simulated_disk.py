"""A disk that keeps the last record whose write was completed, and tears the one that power was lost in.

Mirrors `agent.platform.state_file` and `agent.node.record_store`: two slots written in turn, and the first write after
each start writes the present value once more, into its own slot.
"""

from __future__ import annotations

from random import Random

from agent.core.record import Record, after_damage, decode_record_untrusted, encode_record

Slot = tuple[int, bytes] | None  # sequence and payload; None: damaged


class SimulatedDisk:
    """The record file of one node."""

    def __init__(self, mode: str, lane: int) -> None:
        self._mode, self._lane = mode, lane
        payload = encode_record(Record(mode=mode, term_lane=lane))
        self._slots: dict[int, Slot] = {0: (2, payload), 1: (1, payload)}
        self._writing: list[tuple[int, bytes]] = []
        self._rewrites = True  # the next write is the first one after a start

    @property
    def _newest(self) -> tuple[int, bytes] | None:
        return max((slot for slot in self._slots.values() if slot is not None), default=None)

    @property
    def durable(self) -> Record | None:
        """The newest record that is whole, or None."""
        newest = self._newest
        return None if newest is None else decode_record_untrusted(newest[1])

    def load(self) -> Record:
        """Returns the record to start with; `begin` must be called with it next."""
        newest, damaged = self._newest, None in self._slots.values()
        self._rewrites = True
        if newest is None:
            record = after_damage(None, self._mode, self._lane)
            self._slots = {0: (2, encode_record(record)), 1: (1, encode_record(record))}
            self._rewrites = False
            return record
        record = decode_record_untrusted(newest[1])
        return after_damage(record, self._mode, self._lane) if damaged else record

    def begin(self, record: Record) -> None:
        """Begins to write."""
        newest = self._newest
        assert newest is not None
        again = [newest] if self._rewrites else []
        self._rewrites = False
        self._writing = [*again, (newest[0] + 1, encode_record(record))]

    def complete(self) -> None:
        """Everything that was being written is on the disk."""
        for sequence, payload in self._writing:
            self._slots[sequence % 2] = (sequence, payload)
        self._writing = []

    def lose_power(self, random: Random) -> bool:
        """Tears what is being written, or not yet, or no more; returns whether something is torn."""
        for sequence, payload in self._writing:
            fate = random.random()
            if fate < 0.3:
                break
            if fate < 0.6:
                self._slots[sequence % 2] = None
                self._writing = []
                return True
            self._slots[sequence % 2] = (sequence, payload)
        self._writing = []
        return False
