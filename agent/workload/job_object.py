"""A Windows job object: a group of processes that nothing in it can leave, and that dies with its last handle.

What a process in the job starts is in the job as well; leaving is not permitted, because the job does not allow
breakaway. The handle is not inherited: when the process that made the job ends, however it ends, the kernel kills all.
https://learn.microsoft.com/windows/win32/procthread/job-objects
"""

from __future__ import annotations

import ctypes
import sys

if sys.platform != "win32":
    raise ImportError("there are no job objects here")

from ctypes import wintypes

_KILL_ON_JOB_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
_BASIC_ACCOUNTING_INFORMATION = 1  # JOBOBJECTINFOCLASS
_EXTENDED_LIMIT_INFORMATION = 9
_EXIT_CODE = 1
# PROCESS_TERMINATE | PROCESS_SET_QUOTA | PROCESS_SUSPEND_RESUME | PROCESS_QUERY_LIMITED_INFORMATION
_PROCESS_ACCESS = 0x0001 | 0x0100 | 0x0800 | 0x1000


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class _BasicAccounting(ctypes.Structure):
    _fields_ = (
        ("TotalUserTime", ctypes.c_int64),
        ("TotalKernelTime", ctypes.c_int64),
        ("ThisPeriodTotalUserTime", ctypes.c_int64),
        ("ThisPeriodTotalKernelTime", ctypes.c_int64),
        ("TotalPageFaultCount", wintypes.DWORD),
        ("TotalProcesses", wintypes.DWORD),
        ("ActiveProcesses", wintypes.DWORD),
        ("TotalTerminatedProcesses", wintypes.DWORD),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateJobObjectW.argtypes = [ctypes.c_void_p, wintypes.LPCWSTR]
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
_kernel32.QueryInformationJobObject.argtypes = [
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
]
_kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
_kernel32.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
_kernel32.TerminateProcess.argtypes = [wintypes.HANDLE, wintypes.UINT]
_kernel32.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
_kernel32.OpenProcess.restype = wintypes.HANDLE
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
_ntdll = ctypes.WinDLL("ntdll")
_ntdll.NtResumeProcess.argtypes = [wintypes.HANDLE]


class JobObject:
    """One job, for as long as this process lives."""

    def __init__(self) -> None:
        """Makes it; raises OSError."""
        self._job = _kernel32.CreateJobObjectW(None, None)
        if not self._job:
            raise ctypes.WinError(ctypes.get_last_error())
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
        size = ctypes.sizeof(limits)
        if not _kernel32.SetInformationJobObject(self._job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), size):
            raise ctypes.WinError(ctypes.get_last_error())

    def adopt(self, pid: int) -> None:
        """Takes in a process that was created suspended and lets it run; if that fails it is killed. Raises OSError.

        The caller holds a handle of the process, so that its id is not used again meanwhile.
        """
        process = _kernel32.OpenProcess(_PROCESS_ACCESS, False, pid)
        if not process:
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            if not _kernel32.AssignProcessToJobObject(self._job, process):
                error = ctypes.get_last_error()
                _kernel32.TerminateProcess(process, _EXIT_CODE)
                raise ctypes.WinError(error)
            if _ntdll.NtResumeProcess(process) < 0:
                _kernel32.TerminateProcess(process, _EXIT_CODE)
                raise OSError(0, "the new process cannot be resumed")
        finally:
            _kernel32.CloseHandle(process)

    def terminate(self) -> None:
        """Begins to kill every process in it."""
        _kernel32.TerminateJobObject(self._job, _EXIT_CODE)

    def count(self) -> int:
        """Returns how many processes in it have not ended; raises OSError."""
        accounting = _BasicAccounting()
        size = ctypes.sizeof(accounting)
        if not _kernel32.QueryInformationJobObject(
            self._job, _BASIC_ACCOUNTING_INFORMATION, ctypes.byref(accounting), size, None
        ):
            raise ctypes.WinError(ctypes.get_last_error())
        return int(accounting.ActiveProcesses)
