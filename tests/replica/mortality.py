"""How a worker dies in tests: at its n-th use of index or disk, or at once; and what its disk holds afterwards.

From the moment of death on nothing that the worker still tries has an effect: its disk refuses every call, and its
index comes back as it was at that moment, committed transactions only.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agent.replica.index import Index
from agent.replica.local_trees import LocalTrees
from tests.replica.interrupted_disk import CountingDisk, Crash

T = TypeVar("T")
PARTS = ("", "-wal")  # of the index on the disk


class Mortality:
    """The life of one worker. `left`: after so many further steps it dies; None: it lives on."""

    def __init__(self, index_path: Path) -> None:
        self._index_path = index_path
        self._at_death = index_path.with_name("at-death")
        self.index_in_use = threading.RLock()
        self.left: int | None = None
        self.dead = False

    def step(self) -> None:
        """Raises Crash if the worker is dead, or dies now."""
        if self.left is not None and not self.dead:
            if self.left == 0:
                self.die()
            self.left -= 1
        if self.dead:
            raise Crash

    def die(self) -> None:
        """Keeps the index as it is now; whoever uses it is waited for."""
        with self.index_in_use:
            if self.dead:
                return
            self.dead = True
            self._at_death.mkdir()
            for part in PARTS:
                if (path := Path(f"{self._index_path}{part}")).exists():
                    shutil.copyfile(path, self._at_death / f"index{part}")

    def bury(self, index: Index) -> None:
        """Ends the worker's process: the next one finds the index as it was at death."""
        index._file._disconnect()  # closing it in order is what a dead process cannot do
        for part in ("", "-wal", "-shm"):
            Path(f"{self._index_path}{part}").unlink(missing_ok=True)
            if (kept := self._at_death / f"index{part}").exists():
                kept.rename(f"{self._index_path}{part}")
        self._at_death.rmdir()


class MortalDisk(CountingDisk):
    """The disk of a worker; a write at the moment of death is torn."""

    def __init__(self, mortality: Mortality) -> None:
        super().__init__()
        self._mortality = mortality

    def before(self, name: str, arguments: tuple[object, ...]) -> None:
        alive = not self._mortality.dead
        try:
            self._mortality.step()
        except Crash:
            if alive and name == "write":
                descriptor, data = arguments
                assert isinstance(descriptor, int)
                assert isinstance(data, bytes | memoryview)
                os.write(descriptor, data[: len(data) // 2])
            raise


class MortalTrees(LocalTrees):
    """The trees of a worker that may die whenever it uses its index."""

    mortality: Mortality

    async def in_index(self, work: Callable[..., T], *arguments: Any) -> T:
        return await super().in_index(self._in_life, work, *arguments)

    def _in_life(self, work: Callable[..., T], *arguments: Any) -> T:
        with self.mortality.index_in_use:
            self.mortality.step()
            return work(*arguments)
