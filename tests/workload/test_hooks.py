"""Hooks run one at a time, in order, bounded, and never in the way of the workload."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from agent.config.model import Hooks, Workload
from agent.workload.events import WorkloadStarted, WorkloadStopped
from agent.workload.hooks import HookOccasion, HookRunner
from tests.workload.harness import is_alive, lines, running, script, until, workload

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses sh; Windows has its own lane")


def say(word: str, tmp_path: Path, before: str = "") -> tuple[str, ...]:
    return ("sh", "-c", f"{before}; echo {word} $PAIR_AGENT_TERM >> {tmp_path}/said".lstrip("; "))


def test_p8_role_flips_while_a_hook_runs_keep_the_hooks_in_order_and_end_right(tmp_path: Path) -> None:
    async def main() -> None:
        go = tmp_path / "go"
        hooks = Hooks(
            on_active=(
                say("begin", tmp_path),
                say("active", tmp_path, f"while ! test -e {go}; do sleep 0.01; done"),
            ),
            on_standby=(say("standby", tmp_path),),
        )
        async with running(workload(["sleep", "1000"], tmp_path), tmp_path, hooks) as run:
            run.supervisor.activate(2)
            await until(lambda: lines(tmp_path / "said") == ["begin 2"])
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)  # not held up by the hook
            run.supervisor.activate(4)
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            run.supervisor.activate(6)
            assert (await run.next(WorkloadStarted)).term == 6
            assert lines(tmp_path / "said") == ["begin 2"]
            go.touch()
            expected = ["begin 2", "active 2", "standby", "begin 6", "active 6"]
            await until(lambda: [line.strip() for line in lines(tmp_path / "said")] == expected)
            pid = run.supervisor.status.pid
            assert pid is not None
            assert is_alive(pid)

    trio.run(main)


def test_a_hook_that_hangs_is_killed_with_its_group_and_the_next_ones_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        runner = HookRunner(timeout_ms=200)
        hanging = ("sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/child; wait")
        ended = trio.Event()
        commands = [hanging, ("false",), ("no-such-program",), say("next", tmp_path)]
        runner.add(HookOccasion("on_active", commands, {"PAIR_AGENT_TERM": "2"}, done=ended.set))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            await ended.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert not is_alive(int((tmp_path / "child").read_text()))
    assert lines(tmp_path / "said") == ["next 2"]
    assert "hooks.on_active, number 1 did not end within 200 ms and was killed." in caplog.text
    assert "hooks.on_active, number 2 ended with exit code 1." in caplog.text
    assert 'hooks.on_active, number 3 could not be started: "no-such-program": No such file' in caplog.text


def test_a_hook_is_over_when_its_process_is_although_a_daemon_keeps_its_output_open(tmp_path: Path) -> None:
    async def main() -> None:
        runner = HookRunner(timeout_ms=600_000)
        ended = trio.Event()
        start = ("sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/daemon")
        runner.add(HookOccasion("on_active", [start], {}, done=ended.set))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            with trio.fail_after(10):
                await ended.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)
    daemon = int((tmp_path / "daemon").read_text())
    assert is_alive(daemon)  # what a hook starts on purpose outlives it
    os.kill(daemon, signal.SIGKILL)


def test_hooks_for_an_applied_configuration_run_in_their_turn_with_the_role(tmp_path: Path) -> None:
    async def main() -> None:
        hooks = Hooks(
            on_active=(say("active", tmp_path, "sleep 0.1"),), on_config_applied=(say("$PAIR_AGENT_ROLE", tmp_path),)
        )
        async with running(Workload(), tmp_path, hooks) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadStarted)
            run.supervisor.config_applied()
            await until(lambda: lines(tmp_path / "said") == ["active 2", "active 2"])

    trio.run(main)


def test_what_a_hook_says_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "agent.workload")

    async def main() -> None:
        runner = HookRunner(timeout_ms=10_000)
        ended = trio.Event()
        runner.add(HookOccasion("on_standby", [tuple(script("print('moved')"))], {}, done=ended.set))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            await ended.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert "hooks.on_standby, number 1: moved" in caplog.text
