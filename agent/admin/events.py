"""The event log: what happened on this node, in order, numbered, for the operator and for monitoring.

Knows nothing of what events mean. Belongs to the event loop's thread; only the writer's worker thread touches the disk.
Invariants: `append` never waits for the disk; memory holds the newest `EVENTS_KEPT` events and no more; numbers grow by
one with each event and go on after a restart; what the disk cannot take is said in `trouble` and stays in memory.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from agent.admin.codes import EventCode
from agent.admin.event_file import EventFile
from agent.admin.printable import printable
from agent.platform.priority import at_agents_priority

EVENTS_KEPT = 1000
FLUSH_TIMEOUT_S = 2.0
WRITE_DELAY_S = 0.05  # so that what belongs to one change is one write, and none competes with a takeover

FieldValue = str | int | float | bool | None

_log = logging.getLogger("agent.events")


@dataclass(frozen=True)
class Event:
    """One line of the log; `time` is UTC, ISO 8601 with milliseconds; `code` stays text, newer versions know more."""

    sequence: int
    time: str
    code: str
    sentence: str
    fields: Mapping[str, FieldValue]

    def as_json(self) -> dict[str, Any]:
        """The event as the API and the file give it."""
        return {
            "sequence": self.sequence,
            "time": self.time,
            "code": self.code,
            "sentence": self.sentence,
            "fields": dict(self.fields),
        }


class EventLog:
    """Newest events in memory, all of them in `path` and one previous file, each of at most `bytes_max`.

    Reads the files when made (blocking), so make it before the event loop has anything urgent to do.
    """

    def __init__(
        self,
        path: Path,
        *,
        bytes_max: int = 4 * 1024 * 1024,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.trouble: str | None = None
        self._wall_clock = wall_clock
        self._file = EventFile(path, bytes_max=bytes_max)
        self._kept: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._unwritten: deque[str] = deque(maxlen=EVENTS_KEPT)
        self._appended = trio.Event()
        self._writer_wanted = trio.Event()
        self._one_writer = trio.CapacityLimiter(1)
        try:
            stored = self._file.read_newest(EVENTS_KEPT)
        except OSError as error:
            stored = []
            self._report_trouble(f"The event log {path} cannot be read: {error.strerror or error}.")
        for line in stored:
            event = _event_untrusted(line)
            if event is not None and event.sequence > self.last_sequence:
                self._kept.append(event)

    @property
    def last_sequence(self) -> int:
        """The number of the newest event, 0 if there never was one."""
        return self._kept[-1].sequence if self._kept else 0

    def append(self, code: EventCode, sentence: str, **fields: FieldValue) -> Event:
        """Adds an event and logs it as one line; returns at once, the disk follows in `run`."""
        event = Event(
            sequence=self.last_sequence + 1,
            time=self._wall_clock().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            code=code.value,
            sentence=printable(sentence),
            fields={name: printable(value) if isinstance(value, str) else value for name, value in fields.items()},
        )
        self._kept.append(event)
        if len(self._unwritten) == EVENTS_KEPT:
            self._report_trouble(f"The disk does not take the event log {self._file.path}; its oldest lines are lost.")
        self._unwritten.append(json.dumps(event.as_json(), separators=(",", ":")))
        self._writer_wanted.set()
        appended, self._appended = self._appended, trio.Event()
        appended.set()
        _log.log(logging.WARNING if code.warning else logging.INFO, "%s: %s", code.value, event.sentence)
        return event

    def since(self, after: int, limit: int) -> list[Event]:
        """The first `limit` events in memory with a number above `after`, oldest first."""
        return [event for event in self._kept if event.sequence > after][:limit]

    def newest(self, limit: int) -> list[Event]:
        """The newest `limit` events, oldest first."""
        return list(self._kept)[-limit:] if limit > 0 else []

    async def wait_for_more(self, after: int) -> None:
        """Returns as soon as there is an event with a number above `after`."""
        while self.last_sequence <= after:
            await self._appended.wait()

    async def run(self) -> None:
        """Writes events to the disk until cancelled; then writes what is left, for at most `FLUSH_TIMEOUT_S`."""
        try:
            while True:
                await self._writer_wanted.wait()
                await trio.sleep(WRITE_DELAY_S)
                self._writer_wanted = trio.Event()
                await self._write()
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT_S, shield=True):
                await self._write()

    async def _write(self) -> None:
        # A write that the disk holds is left to its thread, and the limiter keeps the next one behind it.
        drain = at_agents_priority(self._drain)
        trouble = await trio.to_thread.run_sync(drain, abandon_on_cancel=True, limiter=self._one_writer)
        if trouble is None:
            self.trouble = None
        else:
            self._report_trouble(trouble)

    def _drain(self) -> str | None:
        lines: list[str] = []
        while self._unwritten:
            lines.append(self._unwritten.popleft())
        if not lines:
            return self.trouble
        try:
            self._file.append(lines)
        except OSError as error:
            # Not tried again: after a failed fsync the system may report success for data that is gone.
            return f"{len(lines)} events could not be written to {self._file.path}: {error.strerror or error}."
        return None

    def _report_trouble(self, sentence: str) -> None:
        if self.trouble is None:
            _log.warning("%s They stay visible in `pair-agent events` until the agent stops.", sentence)
        self.trouble = sentence


def _event_untrusted(line: Mapping[str, Any]) -> Event | None:
    """An event from a line of the file, or None if the line is none."""
    sequence, time, code, sentence = (line.get(key) for key in ("sequence", "time", "code", "sentence"))
    fields = line.get("fields")
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not isinstance(fields, dict):
        return None
    if not (isinstance(time, str) and isinstance(code, str) and isinstance(sentence, str)):
        return None
    return Event(sequence, printable(time), printable(code), printable(sentence), fields)
