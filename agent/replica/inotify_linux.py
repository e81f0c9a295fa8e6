"""Linux' inotify (inotify(7)) as a small object: watch a folder, read what happened. Knows nothing of trees."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final, NamedTuple

assert sys.platform != "win32"  # tells the type checker; nothing imports this module elsewhere

MODIFY: Final = 0x0000_0002
ATTRIB: Final = 0x0000_0004
MOVED_FROM: Final = 0x0000_0040
MOVED_TO: Final = 0x0000_0080
CREATE: Final = 0x0000_0100
DELETE: Final = 0x0000_0200
DELETE_SELF: Final = 0x0000_0400
MOVE_SELF: Final = 0x0000_0800
UNMOUNT: Final = 0x0000_2000
OVERFLOW: Final = 0x0000_4000  # events were dropped
IGNORED: Final = 0x0000_8000  # the watch is gone
IS_FOLDER: Final = 0x4000_0000

_ONLY_FOLDERS: Final = 0x0100_0000
_NO_LINKS: Final = 0x0200_0000
_NOTHING_UNLINKED: Final = 0x0400_0000
_CHANGES: Final = MODIFY | ATTRIB | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
_EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES: Final = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """What happened: in the watched folder `watch`, to `name` in it ("": to the folder itself). `mask`: see above."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One queue of events, in the order in which the changes were made; each is in it when the change returns."""

    def __init__(self) -> None:
        """Raises OSError, EMFILE if this user has too many queues."""
        self.descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise _last_error()

    def add(self, folder: str, *, follow: bool = False) -> int:
        """Watches a folder, not what is below it; returns its number. Raises OSError, ENOSPC if there are too many."""
        mask = _CHANGES | _ONLY_FOLDERS | _NOTHING_UNLINKED | (0 if follow else _NO_LINKS)
        number: int = _libc.inotify_add_watch(self.descriptor, os.fsencode(folder), mask)
        if number < 0:
            raise _last_error()
        return number

    def remove(self, watch: int) -> None:
        """Ends a watch; one that ended by itself is as well."""
        _libc.inotify_rm_watch(self.descriptor, watch)

    def read(self) -> list[Event]:
        """Returns the next events, none if there are none now."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            events.append(Event(watch, mask, os.fsdecode(name)))
        return events

    def close(self) -> None:
        """Ends all watches; may be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
