"""The event log on disk: one JSON object per line, the current file and one previous file.

Blocking, called from a worker thread. Knows nothing of the ring in memory or of trio.
Invariants: no file grows beyond `bytes_max`; a line torn by a crash is never joined to the next one, and is skipped
when reading; no handle stays open, so that an operator may move the files away at any time, on Windows too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class EventFile:
    """Append-only lines in `path`, rotated to `path` + `.previous` before the file would exceed `bytes_max`."""

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self.path = path
        self.previous_path = path.with_name(path.name + ".previous")
        self._bytes_max = bytes_max

    def append(self, lines: Sequence[str]) -> None:
        """Writes `lines` (without line ends) and returns once they are on the disk. Raises OSError."""
        waiting = [line.encode("utf-8") + b"\n" for line in lines]
        while waiting:
            size_bytes = self.path.stat().st_size if self.path.exists() else 0
            if size_bytes > 0 and size_bytes + 1 + len(waiting[0]) > self._bytes_max:
                os.replace(self.path, self.previous_path)
                size_bytes = 0
            fitting = bytearray()
            count = 0
            for line in waiting:
                if count > 0 and size_bytes + 1 + len(fitting) + len(line) > self._bytes_max:
                    break
                fitting += line
                count += 1
            self._write(bytes(fitting))
            del waiting[:count]

    def read_newest(self, count_max: int) -> list[dict[str, Any]]:
        """The newest `count_max` objects of both files, oldest first; skips lines that are none. Raises OSError."""
        found: list[dict[str, Any]] = []
        for path in (self.path, self.previous_path):
            if len(found) < count_max and path.exists():
                found = self._objects(path, count_max - len(found)) + found
        return found

    def _objects(self, path: Path, count_max: int) -> list[dict[str, Any]]:
        with path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            # A file that someone else made larger must not fill the memory at start.
            file.seek(max(0, size_bytes - self._bytes_max))
            lines = file.read(self._bytes_max).split(b"\n")
        found: list[dict[str, Any]] = []
        for line in reversed(lines):
            if len(found) == count_max:
                break
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                found.append(value)
        found.reverse()
        return found

    def _write(self, data: bytes) -> None:
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    data = b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
