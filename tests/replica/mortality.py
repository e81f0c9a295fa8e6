"""How a worker dies in tests: at its n-th use of index or disk, or at once; and what its disk holds afterwards.

From the moment of death on nothing that the worker still tries has an effect: its disk refuses every call, and its
index comes back as it was at that moment, committed transactions only. If the power is lost, only those that were
durable, and what came before them, come back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
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
        self._durable = index_path.with_name("durable")
        self.index_in_use = threading.RLock()
        self.left: int | None = None
        self.dead = False

    def watch(self, index: Index) -> None:
        """Keeps what a loss of power would leave of the index, each time that it is made durable."""
        transaction = index._file.transaction

        @contextlib.contextmanager
        def noting(*, durable: bool = False) -> Iterator[sqlite3.Connection]:
            with transaction(durable=durable) as connection:
                yield connection
            if durable and not self.dead:
                self._copy_to(self._durable)

        index._file.transaction = noting  # type: ignore[method-assign]
        self._copy_to(self._durable)

    def _copy_to(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for part in PARTS:
            if (path := Path(f"{self._index_path}{part}")).exists():
                shutil.copyfile(path, folder / f"index{part}")

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
            self._copy_to(self._at_death)

    def bury(self, index: Index, *, power_lost: bool = False) -> None:
        """Ends the worker's process: the next one finds the index as it was at death, or as a loss of power left it."""
        if power_lost and self._durable.exists():
            shutil.rmtree(self._at_death)
            self._durable.rename(self._at_death)
        index._file._disconnect()  # closing it in order is what a dead process cannot do
        for part in ("", "-wal", "-shm"):
            Path(f"{self._index_path}{part}").unlink(missing_ok=True)
            if (kept := self._at_death / f"index{part}").exists():
                kept.rename(f"{self._index_path}{part}")
        shutil.rmtree(self._at_death)


class MortalDisk(CountingDisk):
    """The disk of a worker; a write at the moment of death is torn. `meanwhile` may interfere with a call."""

    def __init__(self, mortality: Mortality) -> None:
        super().__init__()
        self._mortality = mortality
        self.meanwhile: Callable[[str, tuple[object, ...]], None] = lambda name, arguments: None

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
        self.meanwhile(name, arguments)


class MortalTrees(LocalTrees):
    """The trees of a worker that may die whenever it uses its index."""

    mortality: Mortality

    async def in_index(self, work: Callable[..., T], *arguments: Any) -> T:
        return await super().in_index(self._in_life, work, *arguments)

    def _in_life(self, work: Callable[..., T], *arguments: Any) -> T:
        with self.mortality.index_in_use:
            self.mortality.step()
            return work(*arguments)
