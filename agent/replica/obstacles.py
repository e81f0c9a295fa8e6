"""What would keep a step from being carried out: asked before a round changes anything.

For a config tree, which changes as one or not at all. What passes here may still be locked a moment later; `applying`
reports it then. Changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator

from agent.replica.file_tree import TreeRoot
from agent.replica.standing import Standing, is_folder
from agent.replica.steps import Blocked, Step, StepKind

_CHANGES_PLACE = frozenset({StepKind.REMOVE, StepKind.MAKE_FOLDER, StepKind.PUT_FILE, StepKind.MAKE_LINK})


def obstacles(root: TreeRoot, steps: Iterable[Step]) -> Iterator[Blocked]:
    """Yields the steps that would be blocked now: a locked file, a place that may not be written to. Raises OSError."""
    standing = Standing(root)
    writable: dict[str, bool] = {}
    for step in steps:
        if step.kind not in _CHANGES_PLACE:
            continue
        folder = _folder_above(standing, step.place)
        if folder not in writable:
            writable[folder] = _may_write(folder)
        status = standing.status(step.place)
        if not writable[folder]:
            yield Blocked(step.path, "this account may not write to its folder")
        elif status is not None and not is_folder(status):
            lock = lock_on(standing.path(step.place), status)
            if lock:
                yield Blocked(step.path, lock)


def _folder_above(standing: Standing, place: str) -> str:
    """Returns the path of the nearest folder above that stands."""
    folder = os.path.dirname(standing.path(place))
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


if sys.platform == "win32":
    import ctypes

    _DELETE = 0x10000
    _SHARE_ALL = 0x7
    _OPEN_EXISTING = 3
    _OPEN_REPARSE_POINT = 0x00200000
    _ERROR_SHARING_VIOLATION = 32
    _INVALID_HANDLE = ctypes.c_void_p(-1).value
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateFileW.restype = ctypes.c_void_p
    _kernel32.CreateFileW.argtypes = [
        *(ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
        *(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    ]
    _kernel32.CloseHandle.argtypes = [ctypes.c_void_p]

    def _may_write(folder: str) -> bool:
        """True: what an access list really grants shows only in the attempt."""
        return bool(folder)

    def lock_on(path: str, status: os.stat_result) -> str:
        """Returns why the file cannot be replaced or removed, "" if it can."""
        handle = _kernel32.CreateFileW(path, _DELETE, _SHARE_ALL, None, _OPEN_EXISTING, _OPEN_REPARSE_POINT, None)
        if handle != _INVALID_HANDLE:
            _kernel32.CloseHandle(handle)
        elif ctypes.get_last_error() == _ERROR_SHARING_VIOLATION:
            return "another program has it open and does not share it"
        elif status.st_mode & stat.S_IWRITE:  # a read-only file is made writable first
            return "this account may not remove it"
        return ""

else:
    import fcntl

    _GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS, linux/fs.h
    _IMMUTABLE = 0x10
    _APPEND_ONLY = 0x20

    def _may_write(folder: str) -> bool:
        return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)

    def lock_on(path: str, status: os.stat_result) -> str:
        """Returns why the file cannot be replaced or removed, "" if it can."""
        if not stat.S_ISREG(status.st_mode):
            return ""
        with contextlib.suppress(OSError):  # not readable, or a file system without such flags
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                flags = int.from_bytes(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
            finally:
                os.close(descriptor)
            if flags & (_IMMUTABLE | _APPEND_ONLY):
                return "it is protected against every change (chattr)"
        return ""
