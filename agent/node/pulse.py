"""The agent's pulse: keeps the workload's lease alive while this node may be active, and notices that it was frozen.

The arithmetic is `agent.core.lease`; PROTOCOL.md section 8 shows why a lease cannot outlive the other node's patience.
While linked, only a frame that went out renews it; without a link, the passing of time under a living agent does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from agent.core.lease import fence_margin_ns, lease_until_ns
from agent.platform.clock import boottime_ns

STEPS_PER_LEASE = 3
STEP_MIN_NS = 2_000_000
STEP_MAX_NS = 500_000_000
NANOSECONDS_PER_SECOND = 1_000_000_000


class Ground(Protocol):
    """What the pulse needs to know; asked at every beat."""

    @property
    def peer_takeover_ns(self) -> int | None:
        """The shortest silence after which the other node would take over; None: there is no other node."""

    @property
    def linked_since_ns(self) -> int | None:
        """When the present link came up; None: there is none."""

    @property
    def leased(self) -> bool:
        """Whether the workload may be running as the active one."""


class Pulse:
    """Renews the lease; see the module."""

    def __init__(self, ground: Ground, *, renew: Callable[[int | None], None], frozen: Callable[[], None]) -> None:
        """`renew(until_ns)` reaches the guardian; `frozen()` is called when `take_gap_ns` has something to tell."""
        self._ground = ground
        self._renew = renew
        self._frozen = frozen
        self._last_sent_ns = 0
        self._beat_ns: int | None = None  # None: not beating yet
        self._gap_ns: int | None = None  # not taken yet

    def sent(self, before_ns: int) -> None:
        """Takes note that a frame went out on the link after `before_ns`."""
        self._look(before_ns)
        self._last_sent_ns = before_ns
        self._renew_from(before_ns)

    def take_gap_ns(self) -> int | None:
        """Returns, once, for how long this agent did not run if that was as long as a lease: what it heard before is
        then worth nothing, and this is asked before anything heard is believed."""
        self._look(boottime_ns())
        gap_ns, self._gap_ns = self._gap_ns, None
        return gap_ns

    def begin(self) -> None:
        """Sets the lease that a workload starts with, or none; to be called before it is started and when it ended."""
        if not self._ground.leased:
            self._renew(None)
            return
        linked_since_ns = self._ground.linked_since_ns
        self._renew_from(boottime_ns() if linked_since_ns is None else max(self._last_sent_ns, linked_since_ns))

    async def run(self) -> None:
        """Beats until cancelled."""
        self._beat_ns = boottime_ns()
        while True:
            takeover_ns = self._ground.peer_takeover_ns
            step_ns = STEP_MAX_NS
            if takeover_ns is not None:
                step_ns = min(max(takeover_ns // STEPS_PER_LEASE, STEP_MIN_NS), STEP_MAX_NS)
            await trio.sleep(step_ns / NANOSECONDS_PER_SECOND)
            now_ns = boottime_ns()
            self._look(now_ns)
            if self._gap_ns is not None:
                self._frozen()
            elif self._ground.linked_since_ns is None:
                self._renew_from(now_ns)

    def _look(self, now_ns: int) -> None:
        """Notices a gap: since the last beat, or while linked since the last frame that went out, which is from when
        the other node counts."""
        takeover_ns, linked_since_ns = self._ground.peer_takeover_ns, self._ground.linked_since_ns
        if takeover_ns is None or self._beat_ns is None:
            self._beat_ns = now_ns if self._beat_ns is not None else None
            return
        last_ns = self._beat_ns
        if linked_since_ns is not None:
            last_ns = min(last_ns, max(self._last_sent_ns, linked_since_ns))
        if now_ns - last_ns > takeover_ns - fence_margin_ns(takeover_ns):
            self._gap_ns = now_ns - last_ns
            self._last_sent_ns = now_ns
        self._beat_ns = now_ns

    def _renew_from(self, sign_ns: int) -> None:
        takeover_ns = self._ground.peer_takeover_ns
        if takeover_ns is not None and self._ground.leased:
            self._renew(lease_until_ns(sign_ns, takeover_ns))
