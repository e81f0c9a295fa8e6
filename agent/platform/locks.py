"""The lock that lets one agent at a time use a state directory.

The operating system holds it and drops it when the process dies, however it dies: nothing is ever left to clean up.
The file's content (the owner's process id) is there for the message only and decides nothing. Children that a holder
starts do not inherit the lock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.core.errors import StateError

LOCK_FILE_NAME = "lock"

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    # Windows locks are mandatory: a byte far behind the process id is locked, so that the id stays readable.
    _LOCKED_BYTE = 1 << 20
    _LOCKFILE_FAIL_IMMEDIATELY = 0x1
    _LOCKFILE_EXCLUSIVE_LOCK = 0x2
    _ERROR_LOCK_VIOLATION = 33
    _ERROR_IO_PENDING = 997

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_size_t),
            ("internal_high", ctypes.c_size_t),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", wintypes.HANDLE),
        )

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.LockFileEx.argtypes = [wintypes.HANDLE, *(4 * [wintypes.DWORD]), ctypes.POINTER(_Overlapped)]
    _kernel32.UnlockFileEx.argtypes = [wintypes.HANDLE, *(3 * [wintypes.DWORD]), ctypes.POINTER(_Overlapped)]

    def _try_lock(descriptor: int) -> bool:
        how = _LOCKFILE_EXCLUSIVE_LOCK | _LOCKFILE_FAIL_IMMEDIATELY
        place = _Overlapped(offset=_LOCKED_BYTE)
        if _kernel32.LockFileEx(msvcrt.get_osfhandle(descriptor), how, 0, 1, 0, ctypes.byref(place)):
            return True
        code = ctypes.get_last_error()
        if code in (_ERROR_LOCK_VIOLATION, _ERROR_IO_PENDING):
            return False
        raise ctypes.WinError(code)

    def _unlock(descriptor: int) -> None:
        place = _Overlapped(offset=_LOCKED_BYTE)
        _kernel32.UnlockFileEx(msvcrt.get_osfhandle(descriptor), 0, 1, 0, ctypes.byref(place))

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class DirectoryLock:
    """The exclusive right to use the directory `path`, held from `acquire` to `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._directory = path
        self._file = path / LOCK_FILE_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock without waiting; makes the directory, for its owner only, if it is missing.

        Raises StateError if another agent holds the lock, or if the directory cannot be used.
        """
        if self._descriptor is not None:
            raise AssertionError("this lock is held already")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StateError(
                f"the state directory {self._directory} cannot be used: {error.strerror}. "
                "Make it writable for the account that runs the agent, or set state_directory to another folder."
            ) from error
        try:
            if not _try_lock(descriptor):
                raise StateError(self._taken(descriptor))
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, str(os.getpid()).encode("ascii"))
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise StateError(f"the lock {self._file} cannot be taken: {error.strerror}.") from error
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock up; does nothing if it is not held. The file stays, because removing it would race."""
        if self._descriptor is not None:
            # Said, not left to the closing: a child that is just being started holds the file open a moment longer.
            _unlock(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> DirectoryLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _taken(self, descriptor: int) -> str:
        os.lseek(descriptor, 0, os.SEEK_SET)
        owner = os.read(descriptor, 20).decode("ascii", errors="replace").strip()
        named = f" (pid {owner})" if owner.isdecimal() else ""
        return (
            f"another agent{named} already uses this state directory: {self._directory}. "
            "Stop it, or give this agent its own state_directory."
        )
