"""The calls that change a disk, one method each, so that a test can stop or fail exactly one of them.

Thin: no decision, no retry, OSError as it comes. Paths are strings as `TreeRoot.disk_path` makes them; reading needs no
method. What Windows lacks does nothing there, and says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

NEW_FILE_MODE = 0o644  # less the umask, like every mode given at creation
NEW_FOLDER_MODE = 0o755
MTIME_NS_MAX = 253_402_300_799 * 1_000_000_000  # the end of the year 9999

if sys.platform == "win32":
    import msvcrt

    _BINARY = os.O_BINARY | os.O_NOINHERIT
    _FSCTL_SET_SPARSE = 0x900C4
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.DeviceIoControl.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32),
        *(ctypes.POINTER(ctypes.c_uint32), ctypes.c_void_p),
    ]

    def below(folder: str, place: str) -> str:
        """Returns the path of `place`, relative with "/" between names, below `folder`; "" is the folder itself."""
        return folder + "\\" + place.replace("/", "\\") if place else folder

else:
    _BINARY = os.O_CLOEXEC | os.O_NOFOLLOW
    _libc = ctypes.CDLL(None, use_errno=True)
    _SYNC_FILE_RANGE_WRITE = 2
    _sync_file_range = getattr(_libc, "sync_file_range", None)
    if _sync_file_range is not None:
        _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

    def below(folder: str, place: str) -> str:
        """Returns the path of `place`, relative with "/" between names, below `folder`; "" is the folder itself."""
        return folder + "/" + place if place else folder


def _syncfs_tells_failures() -> bool:
    """True where syncfs reports lost data: Linux 5.8 and later."""
    if sys.platform == "win32" or not hasattr(_libc, "syncfs"):
        return False
    numbers = os.uname().release.split(".")
    try:
        return (int(numbers[0]), int(numbers[1].split("-")[0])) >= (5, 8)
    except (IndexError, ValueError):
        return False


CAN_SYNC_ALL = _syncfs_tells_failures()


class FileSystem:
    """The disk. Every method is one change and raises OSError."""

    def create(self, path: str, mode: int = NEW_FILE_MODE) -> int:
        """Makes a new file and returns its descriptor, for reading and writing; FileExistsError if there is one."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, mode)

    def open(self, path: str) -> int:
        """Opens an existing file for reading and writing."""
        return os.open(path, os.O_RDWR | _BINARY)

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Writes all of `data` where the descriptor stands."""
        written = os.write(descriptor, data)
        while written < len(data):
            data = memoryview(data)[written:]
            written = os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        """Makes the file `size` bytes long; what is added is a hole."""
        os.ftruncate(descriptor, size)

    def copy_range(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
        """Lets the kernel copy up to `count` bytes, on some file systems without using space; returns how many."""
        if sys.platform == "linux":
            return os.copy_file_range(source, target, count, source_offset, target_offset)
        raise OSError(0, "no such call here")

    def set_sparse(self, descriptor: int) -> None:
        """Lets the file have holes, which Windows wants to be told; where it cannot have any, zeros take space."""
        if sys.platform == "win32":
            returned = ctypes.c_uint32()
            handle = msvcrt.get_osfhandle(descriptor)
            _kernel32.DeviceIoControl(handle, _FSCTL_SET_SPARSE, None, 0, None, 0, ctypes.byref(returned), None)

    def write_back(self, descriptor: int, offset: int, count: int) -> None:
        """Starts to bring a part of the file to the disk and waits for nothing; nothing is promised."""
        if sys.platform != "win32" and _sync_file_range is not None:
            _sync_file_range(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)

    def set_times(self, target: int | str, mtime_ns: int) -> None:
        """Sets the time of the last change of an open file, or of what stands at a path."""
        os.utime(target, ns=(mtime_ns, mtime_ns))

    def set_mode(self, target: int | str, mode: int) -> None:
        """Sets the permission bits; on Windows only whether it is read-only, and only by path."""
        os.chmod(target, mode)

    def set_owner(self, path: str, user: int, group: int) -> None:
        """Sets owner and group; not on Windows."""
        if sys.platform != "win32":
            os.chown(path, user, group, follow_symlinks=False)

    def flush(self, descriptor: int) -> None:
        """Returns when the file's contents and size are on the disk."""
        if sys.platform == "linux":
            os.fdatasync(descriptor)
        else:
            os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Closes a descriptor."""
        os.close(descriptor)

    def replace(self, source: str, target: str) -> None:
        """Moves a file or a link to `target` in one instant, in the place of the file or link there, if any."""
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """Gives a file a second name; FileExistsError if that is taken."""
        os.link(source, target)

    def symlink(self, text: str, path: str, to_folder: bool) -> None:
        """Makes a symbolic link that holds `text`; `to_folder` matters on Windows."""
        os.symlink(text, path, target_is_directory=to_folder)

    def remove(self, path: str) -> None:
        """Removes a file or a link."""
        os.unlink(path)

    def make_folder(self, path: str, mode: int = NEW_FOLDER_MODE) -> None:
        """Makes a folder."""
        os.mkdir(path, mode)

    def remove_folder(self, path: str) -> None:
        """Removes an empty folder."""
        os.rmdir(path)

    def flush_folder(self, path: str) -> None:
        """Returns when the names in a folder are on the disk; Windows journals them and has no such call."""
        if sys.platform != "win32":
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def flush_all(self, descriptor: int) -> None:
        """Returns when everything is on the disk that was written to the file system that `descriptor` is open on.

        Where `CAN_SYNC_ALL`. Reports what got lost since the descriptor was opened.
        """
        if sys.platform == "win32":
            raise OSError(0, "no such call here")
        elif _libc.syncfs(descriptor) != 0:  # noqa: RET506 - mypy sees only so that this is not for Windows
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def settable_time(mtime_ns: int) -> int:
    """Returns the nearest time that every system can set."""
    return mtime_ns if 0 <= mtime_ns <= MTIME_NS_MAX else max(0, min(mtime_ns, MTIME_NS_MAX))


def make_folders(files: FileSystem, path: str, made: Callable[[str], None] = lambda path: None) -> None:
    """Makes the folder `path` and those above it that are missing, telling `made` of each; raises OSError."""
    missing = []
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            files.make_folder(folder)
            made(folder)
