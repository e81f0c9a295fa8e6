"""Tells which paths of the trees may have changed, soon after they did, as the system reports it.

Reports only where to look; what changed is found by a scan. May report too much (a path that is as it was, a whole tree
as ""), and on Linux never too little: what it cannot watch it says, and does not call it quiet. On Windows a report may
be missing. What is written through a memory mapping is reported by no system. So scans now and then stay necessary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import trio

from agent.replica.file_tree import TreeRoot

if sys.platform == "win32":
    from agent.replica.watching_windows import TreeWatch
else:
    from agent.replica.watching_linux import TreeWatch

OnDirty: TypeAlias = Callable[[str, set[str]], None]
OnTrouble: TypeAlias = Callable[[str, str], None]

RETRY_SECONDS: Final = 2.0
_GATHERING_SECONDS: Final = 0.01  # most changes come in groups: a file is made, written, renamed


class Watcher:
    """Watches trees; `watch` runs as long as that is wanted, `barrier` is asked meanwhile."""

    def __init__(self) -> None:
        self._wanted = 0
        self._watches: dict[str, tuple[TreeWatch, trio.Lock]] = {}
        self._on_dirty: OnDirty = lambda tree, paths: None

    async def watch(self, roots: Sequence[TreeRoot], on_dirty: OnDirty, on_trouble: OnTrouble) -> None:
        """Watches until it is cancelled; returns only if `roots` is empty.

        `on_dirty(tree, paths)` takes paths that may have changed, each with all that is below it; "" is the whole tree.
        As soon as a tree is watched it is dirty as a whole, because what happened before is unknown.
        `on_trouble(tree, sentence)` takes why a tree cannot be watched, once for each reason; it is tried again.
        """
        self._wanted, self._on_dirty = len(roots), on_dirty
        try:
            async with trio.open_nursery() as nursery:
                for root in roots:
                    nursery.start_soon(self._keep_watching, root, on_trouble)
        finally:
            self._wanted = 0

    async def barrier(self) -> bool:
        """Returns when every change that was made before the call has been reported.

        False if that cannot be told: not every tree is watched, or the system reports without such a promise. Then only
        a scan tells.
        """
        complete = TreeWatch.PROMISES and self._wanted > 0 and len(self._watches) == self._wanted
        for name in list(self._watches):
            complete &= await self._report(name)
        return complete

    async def _keep_watching(self, root: TreeRoot, on_trouble: OnTrouble) -> None:
        told = ""
        while True:
            watch = TreeWatch(root)
            try:
                await trio.to_thread.run_sync(watch.begin)
                self._watches[root.name] = watch, trio.Lock()
                self._on_dirty(root.name, {""})
                told = ""
                while await self._report(root.name):
                    await watch.wait()
                    await trio.sleep(_GATHERING_SECONDS)
                raise watch.failure or OSError("it was moved or removed")
            except OSError as error:
                reason = (
                    f"{root.path} cannot be watched, so changes are found by scans only: {error.strerror or error}."
                )
                if reason != told:
                    on_trouble(root.name, reason)
                told = reason
            finally:
                with trio.CancelScope(shield=True):  # no longer than one reading that a barrier may have begun
                    await self._give_up(root.name, watch)
            await trio.sleep(RETRY_SECONDS)

    async def _report(self, name: str) -> bool:
        """Reports what has come in; False if the tree is no longer watched."""
        if name not in self._watches:
            return False
        watch, lock = self._watches[name]
        async with lock:
            if watch.is_watching:
                dirty = await trio.to_thread.run_sync(watch.read)
                if dirty:
                    self._on_dirty(name, dirty)
        return watch.is_watching

    async def _give_up(self, name: str, watch: TreeWatch) -> None:
        _, lock = self._watches.pop(name, (watch, trio.Lock()))
        async with lock:
            watch.close()
