"""Keeps small files up to date, each whole or as it was before, and the event loop from waiting for the disk."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable
from pathlib import Path

import trio

from agent.platform.durability import replace
from agent.platform.priority import at_agents_priority

_log = logging.getLogger("agent.workload")


def replace_text(path: Path, text: str) -> None:
    """Puts a file with `text` in the place of the one at `path`; a failure leaves nothing else. Raises OSError."""
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.write_text(text, "utf-8")
        replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if error.filename is None:  # as when the disk is full: whoever reads it wants to know which
            error.filename = str(draft)
        raise


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
                    await trio.to_thread.run_sync(at_agents_priority(write))
                except OSError as error:
                    _log.error("The %s cannot be written: %s", self._what, _explain(error))
            self._settled.set()


def _explain(error: OSError) -> str:
    reason = error.strerror or str(error)
    place = f" ({error.filename})" if error.filename is not None else ""
    cure = "Free space there" if error.errno == errno.ENOSPC else "Let the agent's account write there"
    return f"{reason}{place}. {cure}; the next change is written again."
