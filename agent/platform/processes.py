"""Tells whether a process id still means the process that it meant when it was written down.

Ids are used again; an identity is not: it holds the moment at which the process started, and on Linux the boot as well.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
    _SYNCHRONIZE = 0x100000
    _WAIT_TIMEOUT = 0x102  # the process has not ended

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
    _kernel32.OpenProcess.restype = wintypes.HANDLE
    _kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
    _kernel32.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
    _kernel32.WaitForSingleObject.restype = wintypes.DWORD
    _kernel32.GetProcessTimes.argtypes = [wintypes.HANDLE, *(4 * [ctypes.POINTER(wintypes.FILETIME)])]

    def process_identity(pid: int) -> str | None:
        """Returns what tells the living process `pid` from all that had or will have this id; None if none lives."""
        access = _PROCESS_QUERY_LIMITED_INFORMATION | _SYNCHRONIZE
        handle = _kernel32.OpenProcess(access, False, pid) if pid > 0 else None
        if not handle:
            return None
        try:
            # A process that ended keeps its id as long as anyone holds a handle of it.
            if _kernel32.WaitForSingleObject(handle, 0) != _WAIT_TIMEOUT:
                return None
            created, exited, kernel, user = (wintypes.FILETIME() for _ in range(4))
            if not _kernel32.GetProcessTimes(handle, created, exited, kernel, user):
                return None
            return f"{created.dwHighDateTime << 32 | created.dwLowDateTime}"
        finally:
            _kernel32.CloseHandle(handle)

else:
    from pathlib import Path

    # Fields behind the command's name in /proc/PID/stat, proc(5): state is the first, starttime the 20th.
    _STATE = 0
    _START_TIME = 19

    def process_identity(pid: int) -> str | None:
        """Returns what tells the living process `pid` from all that had or will have this id; None if none lives."""
        if pid <= 0:
            return None
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        except OSError:
            return None
        # The name stands in parentheses and may hold anything, even parentheses and spaces.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[_STATE] in (b"Z", b"X"):
            return None
        return f"{boot}:{fields[_START_TIME].decode('ascii')}"


def is_same_process(pid: int, identity: str) -> bool:
    """Tells whether the process that had `identity` still lives under `pid`."""
    return process_identity(pid) == identity
