"""Who may use one half of a stream now: a rule against mistakes, and a lock that remembers failures.

Knows nothing of TLS. Both exist because a task that waits in the middle of using a half lets others run.
"""

from __future__ import annotations

import trio


class OneTask:
    """Lets one task in at a time and refuses a second one instead of letting it wait."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is already {self._what} this TLS stream")
        self._busy = True

    def __exit__(self, *_: object) -> None:
        self._busy = False


class SendingHalf:
    """The transport's sending half: held by one task at a time; an error while it is held breaks it for good."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.broken = False

    async def __aenter__(self) -> None:
        try:
            self.lock.acquire_nowait()
        except trio.WouldBlock:
            await self.lock.acquire()

    async def __aexit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        if exception_type is not None:
            self.broken = True
        self.lock.release()
