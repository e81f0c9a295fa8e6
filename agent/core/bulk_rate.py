"""A bound on how fast a bulk connection sends, for a network that is shared (PROTOCOL.md, section 10).

Fed with time; knows nothing of windows and streams.
"""

from __future__ import annotations

BURST_NS = 50_000_000  # what was left unused for so long may be made up for

_NANOSECONDS_PER_SECOND = 1_000_000_000


class RateLimit:
    """Spaces what is sent; `bytes_per_second` must be at least 1."""

    def __init__(self, bytes_per_second: int, now_ns: int) -> None:
        assert bytes_per_second >= 1, "a rate of 0 would never send anything"
        self._bytes_per_second = bytes_per_second
        self._free_ns = now_ns

    @property
    def part_bytes(self) -> int:
        """How much is sent at once at most, so that the rate is even."""
        return max(1024, self._bytes_per_second * BURST_NS // _NANOSECONDS_PER_SECOND)

    def wait_ns(self, count: int, now_ns: int) -> int:
        """Takes that `count` bytes are to be sent, and returns for how long they have to wait first."""
        begin_ns = max(self._free_ns, now_ns - BURST_NS)
        self._free_ns = begin_ns + count * _NANOSECONDS_PER_SECOND // self._bytes_per_second
        return max(0, begin_ns - now_ns)
