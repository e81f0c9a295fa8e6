"""Keeps one bulk connection while the agents are linked: dialled by the backup's worker, accepted by the primary's.

Invariant: one session at a time. A newer connection ends the one before and waits until it has ended, because two
sessions at once would write one journal.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from agent.core.errors import PairAgentError, PeerError
from agent.link.bulk import BulkAcceptor, open_bulk_client
from agent.link.bulk_stream import BulkStream
from agent.link.identity import Identity
from agent.platform.socket_passing import SocketTaker
from agent.replica import worker_protocol as say

log = logging.getLogger("agent.replica")

REDIAL_PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0)  # short: a primary that is back waits for this
KILOBYTE = 1_000


class BulkLink:
    """The bulk connections of one worker; `run` beside everything else."""

    def __init__(
        self,
        identity: Identity,
        taker: SocketTaker,
        rate_limit: int,
        run_session: Callable[[BulkStream], Awaitable[None]],
    ) -> None:
        """`rate_limit` in kB/s, 0 is none; `run_session(stream)` uses a connection until it ends."""
        self._identity = identity
        self._taker = taker
        self._rate_limit = rate_limit
        self._run_session = run_session
        self._changed = trio.Event()
        self._one_session = trio.Lock()
        self._session_scope = trio.CancelScope()
        self._acceptor = BulkAcceptor(
            lambda: self._identity,
            lambda: self.link.key if self.link else None,
            on_stream=self._serve,
            on_refused=lambda address, sentence: log.warning("%s: %s", address, sentence),
        )
        self.link: say.Link | None = None
        self.problem = "not connected yet"  # why there is no connection, for people

    def use(self, link: say.Link | None) -> None:
        """Takes what the agent said of its link; None: it is gone, and so is what was bound to it."""
        self.link = link
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def hand_over(self, order: say.Handover) -> None:
        """Takes a connection that the agent accepted."""
        if (accepted := self._taker.take(order.token)) is not None:
            self._acceptor.take(accepted, order.received, order.address)

    async def run(self) -> None:
        """Connects, for as long as there is a link; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._acceptor.run)
            while True:
                link, changed = self.link, self._changed
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as dialling:
                        dialling.start_soon(_cancel_on, changed, scope)
                        if link is not None and link.dial:
                            await self._dial(link)
                        await trio.sleep_forever()

    async def _dial(self, link: say.Link) -> None:
        failures = 0
        while True:
            try:
                stream = await open_bulk_client(link.host, link.port, self._identity, link.key)
            except (PairAgentError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                self.problem = str(error) or "no answer in time"
            else:
                failures = 0
                await self._serve(stream, link.host)
            await trio.sleep(REDIAL_PAUSES_S[min(failures, len(REDIAL_PAUSES_S) - 1)])
            failures += 1

    async def _serve(self, stream: BulkStream, address: str) -> None:
        """Uses one connection until it ends, the link does, or a newer one takes its place."""
        del address
        self._session_scope.cancel()
        changed = self._changed
        try:
            async with self._one_session:
                if changed is not self._changed:
                    return  # the link it was bound to ended meanwhile
                if self._rate_limit:
                    stream.limit_rate(self._rate_limit * KILOBYTE)
                with trio.CancelScope() as self._session_scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_on, changed, self._session_scope)
                        await self._run_session(stream)
                        nursery.cancel_scope.cancel()
        except* (PeerError, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            self.problem = _sentence(group)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await stream.aclose()


async def _cancel_on(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _sentence(group: BaseExceptionGroup[BaseException]) -> str:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first) or type(first).__name__
