"""Watches one tree on Windows, with `watchfiles` (ReadDirectoryChangesW).

Windows writes what it reports into a buffer of fixed size, late, and drops what does not fit; nobody learns of it. So
this makes no promise: it tells soon what it can, and scans find the rest.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from typing import Final

import trio
from watchfiles._rust_notify import RustNotify

from agent.core.tree_names import RESERVED_FOLDER, normal_name
from agent.replica.file_tree import TreeRoot
from agent.replica.scanning import Scanner

assert sys.platform == "win32"  # tells the type checker; nothing imports this module elsewhere

PATHS_MAX: Final = 1000  # in one report; more are the whole tree
_GATHERING_MS: Final = 20
_STEP_MS: Final = 10  # how often it is asked for changes
_LOOK_MS: Final = 2_000  # how often the root is looked after


class TreeWatch:
    """The watch of one tree; `begin`, `read` and `close` block, and are called one at a time, from any thread."""

    PROMISES: Final = False

    def __init__(self, root: TreeRoot) -> None:
        self.is_watching = False
        self.failure: OSError | None = None  # why it watches no longer, if it ever did
        self._root = root
        self._top = str(root.path.parent if root.single_file else root.path)
        self._scanner = Scanner()
        self._stop = threading.Event()
        self._notify: RustNotify | None = None
        self._dirty: set[str] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Watches the whole tree; raises OSError."""
        os.stat(self._top)  # a missing one is not always told
        try:
            self._notify = RustNotify([self._top], False, False, 300, not self._root.single_file, True)
        except RuntimeError as error:  # what watchfiles makes of most errors
            raise OSError(errno.EIO, str(error)) from error
        self.is_watching = True

    async def wait(self) -> None:
        """Returns when there is something to read."""
        try:
            await trio.to_thread.run_sync(self._wait, abandon_on_cancel=True)
        except trio.Cancelled:
            self._stop.set()
            raise

    def read(self) -> set[str]:
        """Returns the paths that may have changed since the last reading, each with what is below it; "" is all."""
        with self._lock:
            dirty, self._dirty = self._dirty, set()
        return {""} if len(dirty) > PATHS_MAX or "" in dirty or not self.is_watching else dirty

    def close(self) -> None:
        """Ends the watching; may be called twice."""
        self.is_watching = False
        self._stop.set()
        self._notify = None  # closed when the thread that waits, if one does, lets go of it too: within a step

    def _wait(self) -> None:
        notify = self._notify
        while notify is not None and not self._stop.is_set():
            try:
                changes = notify.watch(_GATHERING_MS, _STEP_MS, _LOOK_MS, self._stop)
            except (OSError, RuntimeError) as error:
                self.is_watching, self.failure = False, OSError(errno.EIO, str(error))
                return
            if not os.path.isdir(self._top):
                self.is_watching, self.failure = False, OSError(errno.ENOENT, "it was moved or removed")
                return
            if isinstance(changes, set):
                with self._lock:
                    self._dirty |= {path for _, name in changes if (path := self._path(name)) is not None}
                return

    def _path(self, name: str) -> str | None:
        """Returns the path in the tree; None for what is never replicated."""
        if self._root.single_file:
            return "" if name == str(self._root.path) else None
        below = name.removeprefix(self._top)
        if below == name or below in ("", "\\"):
            return ""
        path = normal_name(below.lstrip("\\").replace("\\", "/"))
        if path.partition("/")[0].lower() == RESERVED_FOLDER:
            return None
        try:
            path.encode()
        except UnicodeEncodeError:
            return None
        return None if self._scanner.excluded(self._root, path, folder=False) else path
