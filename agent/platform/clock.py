"""The two clocks of a node: the one that decides, and the one that is only shown.

`boottime_ns` counts from the start of the machine, goes on while it sleeps, cannot be set, and is the same for every
process of one boot: an agent that was suspended sees on waking how long it was away, and its guardian agrees.
`wall_ms` can jump by hours; it stamps events and is never compared to decide anything.
"""

from __future__ import annotations

import sys
import time

if sys.platform == "win32":
    import ctypes
    from collections.abc import Callable

    # Interrupt time counts in steps of 100 ns, suspension included; the "unbiased" functions leave it out.
    # https://learn.microsoft.com/windows/win32/api/realtimeapiset/
    _NANOSECONDS_PER_INTERRUPT_TICK = 100
    _NANOSECONDS_PER_MILLISECOND = 1_000_000

    def _find_boot_clock() -> Callable[[], int]:
        """Returns the finest boot clock of this Windows: the choice depends on its version only, so that all agree."""
        kernelbase = ctypes.WinDLL("kernelbase", use_last_error=True)
        for name in ("QueryInterruptTimePrecise", "QueryInterruptTime"):
            query = getattr(kernelbase, name, None)
            if query is None:
                continue
            query.argtypes = [ctypes.POINTER(ctypes.c_uint64)]
            query.restype = None

            def interrupt_time_ns(query: Callable[[object], None] = query) -> int:
                ticks = ctypes.c_uint64()
                query(ctypes.byref(ticks))
                return ticks.value * _NANOSECONDS_PER_INTERRUPT_TICK

            return interrupt_time_ns

        tick_count = ctypes.WinDLL("kernel32").GetTickCount64
        tick_count.restype = ctypes.c_uint64
        return lambda: int(tick_count()) * _NANOSECONDS_PER_MILLISECOND

    _boot_clock = _find_boot_clock()

    def boottime_ns() -> int:
        """Returns nanoseconds since this machine started, time asleep included; the same clock in every process."""
        return _boot_clock()

else:

    def boottime_ns() -> int:
        """Returns nanoseconds since this machine started, time asleep included; the same clock in every process."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    """Returns milliseconds since 1970 in UTC: for people to read, never to decide by, because it can be set."""
    return time.time_ns() // 1_000_000
