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


@pytest.mark.netns
def test_boot_time_counts_the_time_asleep() -> None:
    """A time namespace looks as if this machine had slept for a day: only the clock that counts it is ahead."""
    asleep_seconds = 24 * 3600
    program = "import time; from agent.platform.clock import boottime_ns; print(boottime_ns() - time.monotonic_ns())"
    done = subprocess.run(
        ["unshare", "--time", "--boottime", str(asleep_seconds), "--fork", sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) > (asleep_seconds - 1) * 10**9


def test_wall_clock_is_milliseconds_since_1970() -> None:
    assert abs(wall_ms() - time.time() * 1000) < ONE_DAY_MS
