"""Watches one tree on Linux, with inotify.

Every folder of the tree is watched by itself; links are not followed, so nothing outside of the tree ever is. The queue
holds each change as soon as it was made: whoever reads it to its end has missed nothing. Two gaps are closed here:

* What happens in a new folder before it is watched: it is dirty as a whole once it is watched.
* A full queue drops events: then everything is watched again, and dirty as a whole.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from typing import Final

import trio

from agent.core.tree_names import RESERVED_FOLDER, normal_name
from agent.replica import inotify_linux as inotify
from agent.replica.file_tree import TreeRoot
from agent.replica.scanning import Scanner

assert sys.platform != "win32"  # tells the type checker; nothing imports this module elsewhere

PATHS_MAX: Final = 1000  # in one report; more are the whole tree
_EVENTS_MAX: Final = 100_000  # in one report: somebody writing all the time must not keep it from being made
_NEW = inotify.CREATE | inotify.MOVED_TO
_ENDED = inotify.DELETE | inotify.MOVED_FROM
_GONE = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT
_TOO_MANY = {
    errno.ENOSPC: "the system allows no more watched folders; raise fs.inotify.max_user_watches (sysctl)",
    errno.EMFILE: "the system allows no more watchers; raise fs.inotify.max_user_instances (sysctl)",
}


class TreeWatch:
    """The watches of one tree; `begin`, `read` and `close` block, and are called one at a time, from any thread."""

    PROMISES: Final = True  # after `read`, every change made before it has been reported

    def __init__(self, root: TreeRoot) -> None:
        self.is_watching = False
        self.failure: OSError | None = None  # why it watches no longer, if it ever did
        self._root = root
        self._top = str(root.path.parent if root.single_file else root.path)
        self._scanner = Scanner()
        self._queue: inotify.Inotify | None = None
        self._places: dict[int, str] = {}  # of a watch: the folder, relative to the top, "/" between names, as on disk
        self._watches: dict[str, int] = {}

    def begin(self) -> None:
        """Watches the whole tree; raises OSError."""
        try:
            self._queue = inotify.Inotify()
            self._add("")
        except OSError as error:
            raise OSError(error.errno, _TOO_MANY.get(error.errno or 0, os.strerror(error.errno or 0))) from error
        self.is_watching = True

    async def wait(self) -> None:
        """Returns when there is something to read."""
        assert self._queue is not None
        await trio.lowlevel.wait_readable(self._queue.descriptor)

    def read(self) -> set[str]:
        """Returns the paths that may have changed since the last reading, each with what is below it; "" is all."""
        assert self._queue is not None
        dirty: set[str] = set()
        events = 0
        try:
            while (batch := self._queue.read()) and self.is_watching:
                for event in batch:
                    self._take(event, dirty)
                events += len(batch)
                if events > _EVENTS_MAX:
                    dirty = {""}
                    break
        except OSError as error:
            self._fail(OSError(error.errno, _TOO_MANY.get(error.errno or 0, error.strerror)))
        return {""} if len(dirty) > PATHS_MAX or "" in dirty or not self.is_watching else dirty

    def close(self) -> None:
        """Ends the watching; may be called twice."""
        self.is_watching = False
        if self._queue is not None:
            self._queue.close()

    def _fail(self, error: OSError) -> None:
        self.is_watching, self.failure = False, error

    def _take(self, event: inotify.Event, dirty: set[str]) -> None:
        if event.mask & inotify.OVERFLOW:
            self._add("")
            dirty.add("")
            return
        place = self._places.get(event.watch)
        if place is None:
            return  # of a folder that was moved away; where it went is dirty
        if event.mask & inotify.IGNORED:
            self._forget(event.watch)
            return
        if not event.name:
            if place == "" and event.mask & _GONE:
                self._fail(OSError(errno.ENOENT, "it was moved or removed"))
            return
        on_disk = f"{place}/{event.name}" if place else event.name
        if self._root.single_file:
            if on_disk == self._root.path.name:
                dirty.add("")
            return
        is_folder = bool(event.mask & inotify.IS_FOLDER)
        path = self._path(on_disk, is_folder)
        if path is None:
            return
        if is_folder:
            if event.mask & _ENDED:
                self._remove(on_disk)
            elif event.mask & _NEW or on_disk not in self._watches:  # or it could not be read until now
                self._add(on_disk)
        dirty.add(path)

    def _path(self, on_disk: str, is_folder: bool) -> str | None:
        """Returns the path in the tree; None for what is never replicated."""
        path = normal_name(on_disk)
        if path.partition("/")[0] == RESERVED_FOLDER:
            return None
        try:
            path.encode()
        except UnicodeEncodeError:
            return None
        return None if self._scanner.excluded(self._root, path, folder=is_folder) else path

    def _add(self, on_disk: str) -> None:
        """Watches a folder and all below it; one that vanished or cannot be read is left out."""
        assert self._queue is not None
        waiting = [on_disk]
        while waiting:
            place = waiting.pop()
            folder = os.path.join(self._top, place) if place else self._top
            try:
                watch = self._queue.add(folder, follow=not place)
                # Listed after it is watched: a folder that is made in between is met at least once.
                below = [] if self._root.single_file else list(self._folders(folder, place))
            except OSError as error:
                if not place or error.errno in _TOO_MANY:
                    raise
                continue
            self._forget(watch)
            self._places[watch] = place
            self._watches[place] = watch
            waiting += below

    def _folders(self, folder: str, place: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    on_disk = f"{place}/{entry.name}" if place else entry.name
                    if self._path(on_disk, is_folder=True) is not None:
                        yield on_disk

    def _remove(self, on_disk: str) -> None:
        """Ends the watches of a folder that is no longer there, and of all below it."""
        assert self._queue is not None
        inside = on_disk + "/"
        for place in [each for each in self._watches if each == on_disk or each.startswith(inside)]:
            watch = self._watches[place]
            self._forget(watch)
            self._queue.remove(watch)

    def _forget(self, watch: int) -> None:
        place = self._places.pop(watch, None)
        if place is not None and self._watches.get(place) == watch:
            del self._watches[place]
