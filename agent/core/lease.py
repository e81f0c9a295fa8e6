"""How long a workload may run without a sign of life from its agent (PROTOCOL.md, section 8).

The guardian kills the workload when the lease ends. The other node takes over `takeover_ns` after the last frame it
received, and a frame is never received before it was sent, so a lease counted from the last frame sent and ending
`fence_margin_ns` earlier cannot overlap with the other node's activation, as long as that frame arrives.
"""

from __future__ import annotations

FENCE_MARGIN_MIN_NS = 4_000_000
FENCE_MARGIN_DIVISOR = 6


def fence_margin_ns(takeover_ns: int) -> int:
    """Returns what is kept free for noticing that the lease ended and for killing the workload."""
    return min(max(FENCE_MARGIN_MIN_NS, takeover_ns // FENCE_MARGIN_DIVISOR), takeover_ns // 2)


def lease_until_ns(last_sign_ns: int, takeover_ns: int) -> int:
    """Returns the instant at which the workload must begin to die.

    `last_sign_ns` is a time before the last frame was handed to the network, or now while there is no link.
    """
    return last_sign_ns + takeover_ns - fence_margin_ns(takeover_ns)


def send_interval_ns(interval_ns: int, takeover_ns: int) -> int:
    """Returns how often frames must leave so that a lease is renewed twice before it ends; at most `interval_ns`."""
    return min(interval_ns, (takeover_ns - fence_margin_ns(takeover_ns)) // 2)
