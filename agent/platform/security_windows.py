"""Asks Windows who may read a file, and makes files that only their owner, administrators and the system may open.

Imported on Windows only. It talks to advapi32 with security descriptors in their text form: unlike the output of icacls
that does not change with the language of the system, and unlike pywin32 it is always there.
"""

from __future__ import annotations

import ctypes
import msvcrt
import os
import sys
from ctypes import wintypes
from pathlib import Path

assert sys.platform == "win32"  # tells the type checker; nothing imports this module elsewhere

_SDDL_REVISION_1 = 1
_OWNER_SECURITY_INFORMATION = 0x1
_DACL_SECURITY_INFORMATION = 0x4
_PROTECTED_DACL_SECURITY_INFORMATION = 0x80000000
_TOKEN_QUERY = 0x8
_TOKEN_USER = 1
_GENERIC_WRITE = 0x40000000
_CREATE_NEW = 1
_FILE_ATTRIBUTE_NORMAL = 0x80
_INVALID_HANDLE = ctypes.c_void_p(-1).value


class _SecurityAttributes(ctypes.Structure):
    _fields_ = (
        ("length", wintypes.DWORD),
        ("security_descriptor", ctypes.c_void_p),
        ("inherit_handle", wintypes.BOOL),
    )


_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.GetCurrentProcess.restype = wintypes.HANDLE
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
_kernel32.LocalFree.argtypes = [ctypes.c_void_p]
_kernel32.LocalFree.restype = ctypes.c_void_p
_kernel32.CreateFileW.argtypes = [
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(_SecurityAttributes),
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
]
_kernel32.CreateFileW.restype = wintypes.HANDLE
_advapi32.OpenProcessToken.argtypes = [wintypes.HANDLE, wintypes.DWORD, ctypes.POINTER(wintypes.HANDLE)]
_advapi32.GetTokenInformation.argtypes = [
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
]
_advapi32.ConvertSidToStringSidW.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]
_advapi32.ConvertStringSidToSidW.argtypes = [wintypes.LPCWSTR, ctypes.POINTER(ctypes.c_void_p)]
_advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = [
    wintypes.LPCWSTR,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
]
_advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW.argtypes = [
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
]
_advapi32.GetFileSecurityW.argtypes = [
    wintypes.LPCWSTR,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
]
_advapi32.SetFileSecurityW.argtypes = [wintypes.LPCWSTR, wintypes.DWORD, ctypes.c_void_p]
_advapi32.LookupAccountSidW.argtypes = [
    wintypes.LPCWSTR,
    ctypes.c_void_p,
    wintypes.LPWSTR,
    ctypes.POINTER(wintypes.DWORD),
    wintypes.LPWSTR,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.POINTER(wintypes.DWORD),
]


def _check(succeeded: int) -> None:
    if not succeeded:
        raise ctypes.WinError(ctypes.get_last_error())


def _taken_text(pointer: ctypes.c_void_p) -> str:
    """Returns the wide string that Windows allocated at `pointer`, and frees it."""
    assert pointer.value is not None
    try:
        return ctypes.wstring_at(pointer.value)
    finally:
        _kernel32.LocalFree(pointer)


def own_sid() -> str:
    """Returns the security identifier of the account that this process runs as; raises OSError."""
    token = wintypes.HANDLE()
    _check(_advapi32.OpenProcessToken(_kernel32.GetCurrentProcess(), _TOKEN_QUERY, ctypes.byref(token)))
    try:
        size = wintypes.DWORD()
        _advapi32.GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        _check(_advapi32.GetTokenInformation(token, _TOKEN_USER, buffer, size, ctypes.byref(size)))
        # TOKEN_USER opens with the pointer to the SID.
        sid = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_void_p)).contents
        text = ctypes.c_void_p()
        _check(_advapi32.ConvertSidToStringSidW(sid, ctypes.byref(text)))
        return _taken_text(text)
    finally:
        _kernel32.CloseHandle(token)


def own_trustees() -> frozenset[str]:
    """Returns this process's account in every spelling that Windows uses in a descriptor's text; raises OSError."""
    sid = own_sid()
    descriptor = _descriptor(f"O:{sid}")
    try:
        return frozenset({sid, _text(descriptor, _OWNER_SECURITY_INFORMATION).removeprefix("O:")})
    finally:
        _kernel32.LocalFree(descriptor)


def account_name(trustee: str) -> str:
    """Returns the name of an account for people to read, or `trustee` itself where Windows knows none."""
    sid = ctypes.c_void_p()
    if not _advapi32.ConvertStringSidToSidW(trustee, ctypes.byref(sid)):
        return trustee
    try:
        name, domain = ctypes.create_unicode_buffer(256), ctypes.create_unicode_buffer(256)
        name_size, domain_size, use = wintypes.DWORD(256), wintypes.DWORD(256), wintypes.DWORD()
        known = _advapi32.LookupAccountSidW(
            None, sid, name, ctypes.byref(name_size), domain, ctypes.byref(domain_size), ctypes.byref(use)
        )
        if not known or not name.value:
            return trustee
        return f"{domain.value}\\{name.value}" if domain.value else name.value
    finally:
        _kernel32.LocalFree(sid)


def read_descriptor(path: Path) -> str:
    """Returns owner and access list of `path` as text (SDDL); raises OSError."""
    wanted = _OWNER_SECURITY_INFORMATION | _DACL_SECURITY_INFORMATION
    size = wintypes.DWORD()
    _advapi32.GetFileSecurityW(str(path), wanted, None, 0, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    _check(_advapi32.GetFileSecurityW(str(path), wanted, buffer, size, ctypes.byref(size)))
    return _text(ctypes.cast(buffer, ctypes.c_void_p), wanted)


def restrict(path: Path) -> None:
    """Replaces the access list of `path`: this account, administrators and the system, nothing inherited."""
    # The owner is set as well: what an elevated administrator makes belongs to the group otherwise.
    write_descriptor(path, _owner_only(inherited_by_content=path.is_dir()))


def write_descriptor(path: Path, sddl: str) -> None:
    """Gives `path` the owner and the access list of a descriptor's text, and stops inheritance; raises OSError."""
    descriptor = _descriptor(sddl)
    try:
        changed = _OWNER_SECURITY_INFORMATION | _DACL_SECURITY_INFORMATION | _PROTECTED_DACL_SECURITY_INFORMATION
        _check(_advapi32.SetFileSecurityW(str(path), changed, descriptor))
    finally:
        _kernel32.LocalFree(descriptor)


def create_private(path: Path) -> int:
    """Returns a descriptor, open for writing, of a new file that others can open at no moment; raises OSError."""
    descriptor = _descriptor(_owner_only(inherited_by_content=False))
    try:
        attributes = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), descriptor, False)
        handle = _kernel32.CreateFileW(
            str(path), _GENERIC_WRITE, 0, ctypes.byref(attributes), _CREATE_NEW, _FILE_ATTRIBUTE_NORMAL, None
        )
    finally:
        _kernel32.LocalFree(descriptor)
    if handle is None or handle == _INVALID_HANDLE:
        raise ctypes.WinError(ctypes.get_last_error())
    return msvcrt.open_osfhandle(handle, os.O_WRONLY | os.O_BINARY | os.O_NOINHERIT)


def _owner_only(*, inherited_by_content: bool) -> str:
    sid = own_sid()
    flags = "OICI" if inherited_by_content else ""
    entries = "".join(f"(A;{flags};FA;;;{trustee})" for trustee in ("SY", "BA", sid))
    return f"O:{sid}D:P{entries}"


def _descriptor(sddl: str) -> ctypes.c_void_p:
    """Returns a descriptor that Windows allocated: the caller frees it."""
    descriptor = ctypes.c_void_p()
    _check(
        _advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            sddl, _SDDL_REVISION_1, ctypes.byref(descriptor), None
        )
    )
    return descriptor


def _text(descriptor: ctypes.c_void_p, wanted: int) -> str:
    text = ctypes.c_void_p()
    _check(
        _advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor, _SDDL_REVISION_1, wanted, ctypes.byref(text), None
        )
    )
    return _taken_text(text)
