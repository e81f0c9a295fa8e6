"""Makes bytes survive a loss of power: the calls that this takes, and where Windows and Linux differ in them.

Everything here blocks for as long as the disk takes: callers on the event loop hand it to a thread. A failed flush is
never repeated: after it the kernel may hold the pages for clean, and a second call would report a success that is none.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

REPLACE_ATTEMPTS = 10
REPLACE_PAUSE_SECONDS = 0.02  # doubled after each attempt, up to REPLACE_PAUSE_SECONDS_MAX
REPLACE_PAUSE_SECONDS_MAX = 0.5

if sys.platform == "win32":

    def flush_data(descriptor: int) -> None:
        """Returns when the file's bytes are on the disk (FlushFileBuffers); raises OSError."""
        os.fsync(descriptor)

    def sync_directory(path: Path) -> None:
        """Does nothing: Windows journals names with the file and flushes no directory."""

    def replace(source: Path, target: Path) -> None:
        """Puts `source` in the place of `target`, waiting a bounded time for whoever has it open; raises OSError.

        Virus scanners, indexers and backups open files for a moment and without sharing; that is no failure yet.
        """
        pause = REPLACE_PAUSE_SECONDS
        for _ in range(REPLACE_ATTEMPTS - 1):
            try:
                os.replace(source, target)
                return
            except PermissionError:
                time.sleep(pause)
                pause = min(2 * pause, REPLACE_PAUSE_SECONDS_MAX)
        os.replace(source, target)

else:

    def flush_data(descriptor: int) -> None:
        """Returns when the file's bytes are on the disk (fdatasync); raises OSError."""
        os.fdatasync(descriptor)

    def sync_directory(path: Path) -> None:
        """Returns when the names in the directory `path` are on the disk; raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(source: Path, target: Path) -> None:
        """Puts `source` in the place of `target`, atomically; raises OSError."""
        os.replace(source, target)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data` where the descriptor stands; a short write goes on until the system says why."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
