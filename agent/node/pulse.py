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

STEPS_PER_LEASE = 8
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

    def __init__(self, ground: Ground, *, renew: Callable[[int | None], None], frozen: Callable[[int], None]) -> None:
        """`renew(until_ns)` reaches the guardian; `frozen(gap_ns)` is told of every gap as long as a lease."""
        self._ground = ground
        self._renew = renew
        self._frozen = frozen
        self._last_sent_ns = 0

    def sent(self, before_ns: int) -> None:
        """Takes note that a frame went out on the link after `before_ns`."""
        self._last_sent_ns = before_ns
        self._renew_from(before_ns)

    def begin(self) -> None:
        """Sets the lease that a workload starts with, or none; to be called before it is started and when it ended."""
        if not self._ground.leased:
            self._renew(None)
            return
        linked_since_ns = self._ground.linked_since_ns
        self._renew_from(boottime_ns() if linked_since_ns is None else max(self._last_sent_ns, linked_since_ns))

    async def run(self) -> None:
        """Beats until cancelled."""
        last_ns = boottime_ns()
        while True:
            takeover_ns = self._ground.peer_takeover_ns
            step_ns = STEP_MAX_NS
            if takeover_ns is not None:
                step_ns = min(max(takeover_ns // STEPS_PER_LEASE, STEP_MIN_NS), STEP_MAX_NS)
            await trio.sleep(step_ns / NANOSECONDS_PER_SECOND)
            now_ns = boottime_ns()
            if takeover_ns is not None and now_ns - last_ns > takeover_ns - fence_margin_ns(takeover_ns):
                self._frozen(now_ns - last_ns)
            elif self._ground.linked_since_ns is None:
                self._renew_from(now_ns)
            last_ns = now_ns

    def _renew_from(self, sign_ns: int) -> None:
        takeover_ns = self._ground.peer_takeover_ns
        if takeover_ns is not None and self._ground.leased:
            self._renew(lease_until_ns(sign_ns, takeover_ns))
