"""An archive for tests, its clock, and files to bring to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from agent.replica.archive import Archive, Item
from tests.replica.interrupted_disk import CountingDisk

DAY_S = 86_400.0
NOW_S = 1_763_838_645.123  # 2025-11-22T19:10:45.123Z


class Clock:
    """A wall clock in seconds that the test sets."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def keep(archive: Archive, tmp_path: Path, path: str, contents: bytes, reason: str = "overwrite") -> Item:
    """Brings a file of the tree "flows" to the archive."""
    source = tmp_path / "tree" / path
    source.parent.mkdir(parents=True, exist_ok=True)
    source.unlink(missing_ok=True)
    source.write_bytes(contents)
    item, is_new = archive.keep("flows", path, str(source), reason)
    assert is_new
    return item


def archive_at(tmp_path: Path, clock: Clock | None = None, **more: float) -> Archive:
    limits = {"size_max": int(more.get("size_max", 0)), "age_max_s": more.get("age_max_s", 0.0)}
    return Archive(tmp_path / "state" / "archive", **limits, now=clock or Clock(), files=CountingDisk())  # type: ignore[arg-type]  # of a test


class OtherDisk(CountingDisk):
    """The archive lies on another disk than the tree: no second names."""

    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
