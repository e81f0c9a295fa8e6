"""Reads the contents of files in a state that they really had, never half of one and half of the next.

A reading counts if the file was the same before and after it: same inode, size, time of change and of its attributes.
Three things that this alone would miss are taken care of:

* A file system counts time in ticks (Linux 1 to 10 ms, Windows 16 ms, FAT 2 s): two writes within one tick leave the
  same times. So a file is read only when the tick of its last change is over; whoever writes later leaves another time.
* Windows may write times late, and so may writes through a mapping on any system. So what was changed in the last
  seconds, and on Windows everything, is read twice and compared; a big file only if somebody has it open for writing.
* Between looking at a path and opening it, something else may be put there. So the open file is asked, not the path.

A file that never rests is the caller's matter: it gets `Changed` each time.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from blake3 import blake3

from agent.platform.writers import has_writers
from agent.replica.file_tree import Fingerprint, TreeRoot, fingerprint_of, system_path
from agent.replica.open_folder import OPEN_FLAGS, open_within

CHUNK_BYTES: Final = 1 << 20
YOUNG_NS: Final = 2_000_000_000  # a file changed less than this ago is read twice
BIG_BYTES_MIN: Final = 1 << 24  # of a file whose second reading is worth to be avoided
_TICK_NS: Final = 20_000_000  # longer than a tick of Linux' and Windows' file times
_COARSE_TICK_NS: Final = 2_000_000_000  # FAT counts by 2 s, other old file systems by 1 s
_SECOND_NS: Final = 1_000_000_000


class Changed(Exception):  # noqa: N818  expected, and no error of anyone
    """The file is not, or did not stay, what it was: nothing that was read of it counts."""


class StableReading:
    """One reading of a file: iterate to its end to get all chunks; if that ends without an exception, they count.

    Chunks are bytes of at most CHUNK_BYTES. `fingerprint` is known at once, `digest` (BLAKE3, 32 bytes) at the end.
    Close it, or use it with `with`. May be iterated once more, from the beginning.
    """

    def __init__(
        self, path: str | Path, expected: Fingerprint | None = None, *, within: TreeRoot | None = None
    ) -> None:
        """Opens the file at `path`, which is absolute; or, `within` a tree, the name on disk.

        Within a tree no link below its root is followed, so nothing from outside of the tree is ever read.
        `expected`: it must still be that. Raises Changed and OSError, as does the iteration, also as its very last act.
        """
        self.digest = b""
        self._descriptor = (
            os.open(system_path(str(path)), OPEN_FLAGS) if within is None else open_within(within, str(path))
        )
        try:
            self.fingerprint = self._look()
            if expected is not None and self.fingerprint != expected:
                raise Changed("the file was changed since it was last looked at")
            now_ns = time.time_ns()
            _wait_for_the_end_of_its_tick(self.fingerprint, now_ns)
            age_ns = now_ns - max(self.fingerprint.mtime_ns, self.fingerprint.ctime_ns)
            self._twice = sys.platform == "win32" or age_ns < YOUNG_NS
            if self._twice and self.fingerprint.size >= BIG_BYTES_MIN:
                # Whoever maps it from here on changes its time with the first write: only older mappings would not.
                self._twice = has_writers(self._descriptor)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> StableReading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        hasher = blake3()
        if self.fingerprint.size < BIG_BYTES_MIN:
            for chunk in self._chunks():
                hasher.update(chunk)
                yield chunk
        else:
            yield from self._hashed_beside(hasher)
        digest = hasher.digest()
        if self._twice:
            again = blake3()
            for chunk in self._chunks():
                again.update(chunk)
            if again.digest() != digest:
                raise Changed("the file was written to while it was being read")
        if self._look() != self.fingerprint:
            raise Changed("the file was written to while it was being read")
        self.digest = digest

    def _hashed_beside(self, hasher: blake3) -> Iterator[bytes]:
        """Yields the chunks while a thread hashes them, so that whoever takes them can hash them too."""
        hashing: Future[object] | None = None
        with ThreadPoolExecutor(1, "hash") as pool:
            for chunk in self._chunks():
                if hashing is not None:
                    hashing.result()
                hashing = pool.submit(hasher.update, chunk)
                yield chunk

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _chunks(self) -> Iterator[bytes]:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        left = self.fingerprint.size
        while left:
            chunk = os.read(self._descriptor, min(left, CHUNK_BYTES))
            if not chunk:
                raise Changed("the file became shorter while it was being read")
            left -= len(chunk)
            yield chunk

    def _look(self) -> Fingerprint:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Changed("it is no file any more")
        return fingerprint_of(status)


def read_stable(
    path: str | Path, expected: Fingerprint | None = None, *, within: TreeRoot | None = None
) -> StableReading:
    """Opens a file for one reading, as StableReading does."""
    return StableReading(path, expected, within=within)


def digest_of(
    path: str | Path, expected: Fingerprint | None = None, *, within: TreeRoot | None = None
) -> tuple[bytes, Fingerprint]:
    """Returns the BLAKE3 of a file and the fingerprint under which it was read; arguments as of StableReading.

    Raises Changed and OSError.
    """
    with StableReading(path, expected, within=within) as reading:
        for _ in reading:
            pass
        return reading.digest, reading.fingerprint


def _wait_for_the_end_of_its_tick(fingerprint: Fingerprint, now_ns: int) -> None:
    changed_ns = fingerprint.ctime_ns or fingerprint.mtime_ns
    tick_ns = _COARSE_TICK_NS if changed_ns % _SECOND_NS == 0 else _TICK_NS
    # A time in the future was set by hand or by a clock that has been put back: no tick of ours.
    if 0 <= now_ns - changed_ns < tick_ns:
        time.sleep((tick_ns - (now_ns - changed_ns)) / _SECOND_NS)
