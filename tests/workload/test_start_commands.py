"""Workloads that are started and stopped by commands: what runs is the commands' business, that it ends is ours."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from agent.config.model import Workload, WorkloadKind
from agent.platform.clock import boottime_ns
from agent.workload.events import WorkloadFailed, WorkloadFenced, WorkloadRestarted, WorkloadStarted, WorkloadStopped
from tests.workload.harness import is_alive, lines, running, until, workload

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses sh; Windows has its own lane")


def commands(tmp_path: Path, **changes: object) -> Workload:
    """A service that is started by a file being there."""
    settings: dict[str, object] = {
        "kind": WorkloadKind.COMMANDS,
        "start": ("sh", "-c", "echo start $PAIR_AGENT_TERM >> log; touch running"),
        "stop": ("sh", "-c", "echo stop >> log; rm -f running"),
        "status": ("test", "-e", "running"),
    }
    return workload([], tmp_path, **{**settings, **changes})


def test_commands_start_and_stop_and_what_ran_before_is_stopped_first(tmp_path: Path) -> None:
    (tmp_path / "running").touch()

    async def main() -> None:
        async with running(commands(tmp_path), tmp_path) as run:
            await until(lambda: not (tmp_path / "running").exists())
            run.supervisor.activate(2)
            started = await run.next(WorkloadStarted)
            assert started.pid is None
            assert (tmp_path / "running").exists()
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert not (tmp_path / "running").exists()
        assert lines(tmp_path / "log") == ["stop", "start 2", "stop"]

    trio.run(main)


def test_p4_the_stop_command_runs_when_the_agent_ends_and_when_the_lease_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(commands(tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadStarted)
            run.supervisor.renew_lease(boottime_ns())
            await run.next(WorkloadFenced)
            assert not (tmp_path / "running").exists()
            run.supervisor.renew_lease(None)
            run.supervisor.activate(4)
            await run.next(WorkloadStarted)
        assert not (tmp_path / "running").exists()

    trio.run(main)


def test_the_status_command_finds_what_has_ended_and_it_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(commands(tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadStarted)
            await until(lambda: run.supervisor.status.healthy is True)
            (tmp_path / "running").unlink()
            await run.next(WorkloadRestarted)
            assert (tmp_path / "running").exists()

    trio.run(main)


def test_p7_a_start_command_that_fails_is_a_failure_and_stopped_again(tmp_path: Path) -> None:
    async def main() -> None:
        start = ("sh", "-c", "touch running; exit 9")
        async with running(commands(tmp_path, start=start), tmp_path) as run:
            run.supervisor.activate(2)
            assert (await run.next(WorkloadFailed)).reason == 'the start command "sh" ended with exit code 9'
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert not (tmp_path / "running").exists()

    trio.run(main)


def test_a_killed_guardian_is_followed_by_a_stop_before_the_next_start(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = "sleep 1000 & echo $! > daemon; touch running; echo start >> log"
        async with running(commands(tmp_path, start=("sh", "-c", daemon)), tmp_path) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadStarted)
            first = int((tmp_path / "daemon").read_text())
            os.kill(run.guardian_pid(), signal.SIGKILL)
            await run.next(WorkloadRestarted)
            assert not is_alive(first)
            assert lines(tmp_path / "log") == ["stop", "start", "stop", "start"]
        assert not is_alive(int((tmp_path / "daemon").read_text()))

    trio.run(main)
