"""Bounds the number of role changes when the network or a node flaps.

Counts activations that no operator brought about in a sliding window. When FREE_ACTIVATIONS are used up, the next one
that rests on silence alone, and the next automatic switchback, must wait. A peer that is provably gone is never
waited for.
"""

from __future__ import annotations

WINDOW_NS = 600_000_000_000
FREE_ACTIVATIONS = 5
DELAY_FIRST_NS = 10_000_000_000
DELAY_MAX_NS = 300_000_000_000
REMEMBERED_MAX = 32


class Damper:
    """Remembers unplanned activations and says how long the next must wait."""

    def __init__(self) -> None:
        self._activations_ns: list[int] = []

    def note_unplanned_activation(self, now_ns: int) -> None:
        """Counts one activation that nobody asked for."""
        self._activations_ns = [*self._activations_ns[-REMEMBERED_MAX + 1 :], now_ns]

    def recent(self, now_ns: int) -> int:
        """Returns how many there were within the window."""
        return sum(now_ns - each < WINDOW_NS for each in self._activations_ns)

    def wait_ns(self, now_ns: int) -> int:
        """Returns how long from now the next undesired change must wait; 0: not at all."""
        excess = self.recent(now_ns) - FREE_ACTIVATIONS
        if excess < 0 or not self._activations_ns:
            return 0
        delay_ns = min(DELAY_FIRST_NS << min(excess, 16), DELAY_MAX_NS)
        return max(0, self._activations_ns[-1] + delay_ns - now_ns)
