"""One file while its contents are gathered: hashed as they come, sparse where they are zeros, flushed early.

Knows a path and a descriptor, not the folder's rules. What is copied from another file is hashed as it arrived here, so
that a change of the other during the copy cannot slip through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Final

import blake3

from agent.core.errors import PairAgentError
from agent.replica.file_system import NEW_FILE_MODE, FileSystem, settable_time
from agent.replica.file_tree import FILE_MODE_BITS

READ_BYTES: Final = 1024 * 1024
HOLE_BYTES_MIN: Final = 64 * 1024  # smaller ones would only scatter the file
WRITE_BACK_BYTES: Final = 8 * 1024 * 1024  # so much is written before the disk is asked to take it
KERNEL_COPY_BYTES_MIN: Final = 64 * 1024
_ZEROS: Final = bytes(READ_BYTES)
_NO_KERNEL_COPY: Final = {0, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY}


class ContentsDiffer(PairAgentError):  # noqa: N818 - what was found, said as it is
    """What was staged is not what was asked for: damaged on the way, or what it was copied from has changed."""


class StagedFile:
    """One file being staged; as a context manager it is thrown away unless `finish` or `leave` was reached.

    Every call blocks and may raise OSError; then only `abandon` is left to call.
    """

    __slots__ = (
        *("name", "size", "_files", "_path", "_descriptor", "_hasher", "_brought", "_sparse", "_hole_at_end"),
        *("_source", "_source_path", "_kernel_copies"),
    )

    def __init__(self, files: FileSystem, name: str, path: str, descriptor: int, size_hint: int = 0) -> None:
        """Takes the `descriptor` of the file at `path` over, which stands at 0."""
        self.name = name  # in the staging folder
        self.size = 0  # bytes so far
        self._files = files
        self._path = path
        self._descriptor = descriptor  # -1: closed
        self._hasher = blake3.blake3()
        self._brought = 0  # up to here the disk was asked to take it
        self._sparse = False
        self._hole_at_end = False
        self._source = -1
        self._source_path = ""
        self._kernel_copies = sys.platform == "linux"

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def write(self, data: bytes | memoryview) -> None:
        """Appends `data`."""
        self._hasher.update(data)
        self._append(data)

    def write_zeros(self, count: int) -> None:
        """Appends `count` zero bytes, as a hole where they are many."""
        rest = count
        while rest > 0:
            piece = min(rest, READ_BYTES)
            self._hasher.update(_ZEROS if piece == READ_BYTES else memoryview(_ZEROS)[:piece])
            rest -= piece
        if count < HOLE_BYTES_MIN:
            self._append(memoryview(_ZEROS)[:count])
            return
        if not self._sparse:
            self._files.set_sparse(self._descriptor)
            self._sparse = True
        self.size += count
        os.lseek(self._descriptor, self.size, os.SEEK_SET)
        self._hole_at_end = True

    def copy_from(self, path: str | Path, offset: int, length: int) -> None:
        """Appends a part of another file; raises ContentsDiffer if that file has become shorter."""
        self._open_source(str(path))
        while length > 0:
            piece = min(length, READ_BYTES)
            copied = 0
            if piece >= KERNEL_COPY_BYTES_MIN and self._kernel_copies:
                copied = self._copy_in_kernel(offset, piece)
            if not copied:
                data = _read_at(self._source, piece, offset)
                copied = len(data)
                self.write(data)
            if not copied:
                raise ContentsDiffer(f"{path} has become shorter while it was copied")
            offset += copied
            length -= copied

    def _copy_in_kernel(self, offset: int, count: int) -> int:
        """Returns how many bytes the kernel copied; 0 if it cannot."""
        try:
            copied = self._files.copy_range(self._source, self._descriptor, count, offset, self.size)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            self._kernel_copies = False
            return 0
        if copied:
            arrived = _read_at(self._descriptor, copied, self.size)
            if len(arrived) != copied:
                raise ContentsDiffer(f"{self._path} was changed while it was written")
            self._hasher.update(arrived)
            self._hole_at_end = False
            self._grown(copied)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
        return copied

    def finish(self, digest_expected: bytes, *, mtime_ns: int | None = None, mode: int | None = None) -> str:
        """Closes the file and returns its name, once its contents have the digest expected.

        Raises ContentsDiffer, with the file thrown away, if they have another. Time and permission bits are checked
        again by whoever puts the file in place; given here, they are a call less there.
        """
        if self._hasher.digest() != digest_expected:
            self.abandon()
            raise ContentsDiffer("the contents that arrived have another digest than those that were asked for")
        self._end_hole()
        if sys.platform != "win32":
            if mode is not None and mode != NEW_FILE_MODE:
                self._files.set_mode(self._descriptor, mode & FILE_MODE_BITS)
            if mtime_ns is not None:
                self._files.set_times(self._descriptor, settable_time(mtime_ns))
        self._close()
        if mtime_ns is not None and sys.platform == "win32":
            self._files.set_times(self._path, settable_time(mtime_ns))
        return self.name

    def leave(self) -> str:
        """Closes the file unfinished and returns its name, so that `Staging.resume` can go on with it."""
        self._end_hole()
        self._close()
        return self.name

    def abandon(self) -> None:
        """Closes the file and throws it away; does nothing after `finish`, `leave` or `abandon`."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._files.remove(self._path)

    def read_again(self) -> None:
        """Takes what the file holds already for written."""
        while data := os.read(self._descriptor, READ_BYTES):
            self._hasher.update(data)
            self.size += len(data)
        self._brought = self.size

    def _append(self, data: bytes | memoryview) -> None:
        self._files.write(self._descriptor, data)
        self._hole_at_end = False
        self._grown(len(data))

    def _grown(self, count: int) -> None:
        self.size += count
        if self.size - self._brought >= WRITE_BACK_BYTES:
            self._files.write_back(self._descriptor, self._brought, self.size - self._brought)
            self._brought = self.size

    def _end_hole(self) -> None:
        if self._hole_at_end:
            self._files.truncate(self._descriptor, self.size)
            self._hole_at_end = False

    def _open_source(self, path: str) -> None:
        if path == self._source_path:
            return
        self._close_source()
        self._source = os.open(path, _READ)
        self._source_path = path

    def _close_source(self) -> None:
        if self._source >= 0:
            os.close(self._source)
        self._source, self._source_path = -1, ""

    def _close(self) -> None:
        self._close_source()
        descriptor, self._descriptor = self._descriptor, -1
        self._files.close(descriptor)


if sys.platform == "win32":
    _READ = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT

    def _read_at(descriptor: int, count: int, offset: int) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)

else:
    _READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW

    def _read_at(descriptor: int, count: int, offset: int) -> bytes:
        return os.pread(descriptor, count, offset)
