"""The deciding clock is one clock for every process of a boot, and not the one that can be set."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from agent.platform.clock import boottime_ns, wall_ms

ONE_DAY_MS = 24 * 3600 * 1000


def test_boot_time_never_goes_back() -> None:
    readings = [boottime_ns() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert all(type(reading) is int for reading in readings)


def test_two_processes_of_one_boot_read_the_same_clock() -> None:
    program = "from agent.platform.clock import boottime_ns; print(boottime_ns())"
    before = boottime_ns()
    other = int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    assert before <= other <= boottime_ns()


def test_boot_time_is_not_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert boottime_ns() > 0
    assert wall_ms() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="CLOCK_BOOTTIME is Linux'")
def test_boot_time_counts_suspension_on_linux() -> None:
    """CLOCK_MONOTONIC stops while the machine sleeps; CLOCK_BOOTTIME, which does not, lies between two readings."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    reading = boottime_ns()
    assert before <= reading <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_wall_clock_is_milliseconds_since_1970() -> None:
    assert abs(wall_ms() - time.time() * 1000) < ONE_DAY_MS
