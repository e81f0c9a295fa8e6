"""The agent runs before ordinary work where it may, says so where it may not, and hands nothing of it on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent.platform.priority import Level

# In a process of its own: the priority of the tests must stay as it is.
RAISE = """
import os, subprocess, sys
from agent.platform.priority import Level, raise_priority
print(raise_priority(Level(sys.argv[1])))
"""
LINUX_STATE = """
print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(os.PRIO_PROCESS, 0))
child = "import os; print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))"
print(subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True).stdout)
"""


def run(program: str, level: Level, user: int | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, level.value],
        check=True,
        capture_output=True,
        text=True,
        **({} if user is None else {"user": user}),
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("level", list(Level))
def test_priority_is_raised_or_the_reason_is_told(level: Level) -> None:
    answer = run(RAISE, level)[0]
    assert answer == "None" or "ordinary priority" in answer


if sys.platform != "win32":
    as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a priority")

    @as_root
    @pytest.mark.parametrize("level", list(Level))
    def test_what_the_agent_starts_runs_at_ordinary_priority(level: Level) -> None:
        answer, own, child, *_ = run(RAISE + LINUX_STATE, level)
        assert answer == "None"
        assert own in (f"{os.SCHED_RR} 0", f"{os.SCHED_OTHER} -10")
        assert child == f"{os.SCHED_OTHER} 0"
