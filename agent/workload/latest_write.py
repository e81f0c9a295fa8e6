"""Keeps a small file up to date from the event loop without waiting for the disk: of several writes the last counts."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

_log = logging.getLogger("agent.workload")


class LatestWrite:
    """Does one write at a time, in a thread; what was put last is done last, what was overtaken not at all."""

    def __init__(self, what: str) -> None:
        self._what = what  # for the log
        self._next: Callable[[], None] | None = None
        self._put = trio.Event()
        self._settled = trio.Event()
        self._settled.set()

    def put(self, write: Callable[[], None]) -> None:
        """Has `write`, which may raise OSError, done soon; returns at once."""
        self._next = write
        if self._settled.is_set():
            self._settled = trio.Event()
        self._put.set()

    async def settled(self) -> None:
        """Returns when what was put last is done, or failed."""
        while not self._settled.is_set():
            await self._settled.wait()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._put.wait()
            self._put = trio.Event()
            while self._next is not None:
                write, self._next = self._next, None
                try:
                    await trio.to_thread.run_sync(write)
                except OSError as error:
                    _log.error("The %s cannot be written: %s.", self._what, error)
            self._settled.set()
