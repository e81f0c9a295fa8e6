"""The workload runs when it should, as it should, and its end is confirmed: with real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from agent.config.model import Hooks, StandbyKind, WorkloadKind
from agent.core.errors import WorkloadError
from agent.core.vocabulary import WorkloadState
from agent.platform.clock import boottime_ns
from agent.workload.events import (
    WorkloadFailed,
    WorkloadFenced,
    WorkloadOutput,
    WorkloadRestarted,
    WorkloadStarted,
    WorkloadStopped,
)
from tests.workload.harness import FAMILY, family, is_alive, lines, own_children, running, script, until, workload

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses sh and POSIX signals; Windows has its own lane")


def test_an_activation_starts_the_workload_and_tells_it_its_role(tmp_path: Path) -> None:
    async def main() -> None:
        command = ["sh", "-c", "env | grep ^PAIR_AGENT_ | sort; cat $PAIR_AGENT_ROLE_FILE; echo $OWN; exec sleep 1000"]
        async with running(workload(command, tmp_path, environment={"OWN": "a\tb=ü"}), tmp_path) as run:
            run.supervisor.activate(6)
            started = await run.next(WorkloadStarted)
            assert started.term == 6
            assert started.pid is not None
            assert is_alive(started.pid)
            status = run.supervisor.status
            assert (status.state, status.pid, status.term) == (WorkloadState.RUNNING, started.pid, 6)
            said = [(await run.next(WorkloadOutput)).line for _ in range(6)]
            assert said == [
                "PAIR_AGENT_MODE=primary",
                "PAIR_AGENT_NAME=north",
                "PAIR_AGENT_PEER=south",
                "PAIR_AGENT_ROLE=active",
                f"PAIR_AGENT_ROLE_FILE={tmp_path}/state/role.json",
                "PAIR_AGENT_TERM=6",
            ]
            role_file = tmp_path / "state" / "role.json"
            await until(lambda: role_file.exists() and json.loads(role_file.read_text())["term"] == 6)
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert not is_alive(started.pid)
            await until(lambda: json.loads(role_file.read_text()) == {"role": "standby", "term": None})

    trio.run(main)


def test_secrets_in_the_agents_own_environment_do_not_reach_the_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIR_AGENT_SECURITY__PRE_SHARED_KEY", "very secret")

    async def main() -> None:
        async with running(workload(["sh", "-c", "env; echo end"], tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            while (line := (await run.next(WorkloadOutput)).line) != "end":
                assert "very secret" not in line

    trio.run(main)


def test_a_deactivation_is_answered_once_each_even_if_nothing_ran(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(workload(["sleep", "1000"], tmp_path), tmp_path) as run:
            run.supervisor.deactivate()
            assert run.count(WorkloadStopped) == 0  # never from within the call
            await run.next(WorkloadStopped)
            run.supervisor.deactivate()
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            await run.next(WorkloadStopped)
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            run.supervisor.activate(4)
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            run.supervisor.activate(6)
            await run.next(WorkloadStarted)
            run.supervisor.deactivate()
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            await run.next(WorkloadStopped)
            run.supervisor.activate(8)
            await run.next(WorkloadStarted)
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert run.count(WorkloadStopped) == 8

    trio.run(main)


def test_p12_a_stop_during_a_start_ends_stopped(tmp_path: Path) -> None:
    async def main() -> None:
        note = tmp_path / "family"
        async with running(workload(script(FAMILY, str(note)), tmp_path), tmp_path) as run:
            for term in range(2, 12, 2):
                run.supervisor.activate(term)
                await trio.sleep(term * 0.002)
                run.supervisor.deactivate()
                await run.next(WorkloadStopped)
                assert run.supervisor.status.state is WorkloadState.STOPPED
                assert not any(is_alive(pid) for pid in family(note))

    trio.run(main)


def test_an_activation_during_a_stop_starts_after_the_stop_is_confirmed(tmp_path: Path) -> None:
    async def main() -> None:
        slow = """
import os, signal, time
def end(*_):
    time.sleep(0.2)
    os.write(1, b"down\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
os.write(1, f"up {os.environ['PAIR_AGENT_TERM']}\\n".encode())
while True:
    signal.pause()
"""
        async with running(workload(script(slow), tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadOutput)
            run.supervisor.deactivate()
            run.supervisor.activate(4)
            await run.next(WorkloadStopped)
            assert (await run.next(WorkloadStarted)).term == 4
            assert (await run.next(WorkloadOutput)).line == "up 4"
            assert [event.line for event in run.events if isinstance(event, WorkloadOutput)] == ["up 2", "down", "up 4"]

    trio.run(main)


def test_p6_a_stop_that_hangs_is_killed_in_time_with_all_descendants(tmp_path: Path) -> None:
    async def main() -> None:
        note = tmp_path / "family"
        deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY
        async with running(workload(script(deaf, str(note)), tmp_path, stop_timeout=300), tmp_path) as run:
            run.supervisor.activate(2)
            await until(lambda: len(lines(note)) == 3)
            began_ns = boottime_ns()
            run.supervisor.deactivate()
            stopped = await run.next(WorkloadStopped)
            assert stopped.at_ns - began_ns >= 300_000_000
            assert len(family(note)) == 2
            assert not any(is_alive(pid) for pid in family(note))

    trio.run(main)


def test_a_daemon_of_the_workload_is_asked_to_end_too_once_the_first_process_has(tmp_path: Path) -> None:
    async def main() -> None:
        note = tmp_path / "family"
        async with running(workload(script(FAMILY, str(note)), tmp_path, stop_timeout=600_000), tmp_path) as run:
            run.supervisor.activate(2)
            await until(lambda: len(lines(note)) == 3)
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert not any(is_alive(pid) for pid in family(note))

    trio.run(main)


@pytest.mark.parametrize(
    ("command", "folder", "says"),
    [
        (["no-such-program-anywhere"], ".", 'the command "no-such-program-anywhere" was not found: it is not in PATH'),
        (["./missing"], ".", 'the command "./missing" was not found: no such file, seen from'),
        (["./text"], ".", "needs a first line like"),
        (["./locked"], ".", "could not be started: Permission denied"),
        (["sleep", "1"], "gone", "cannot be used: No such file or directory"),
    ],
)
def test_p7_a_start_that_fails_is_said_once_and_clearly(
    command: list[str], folder: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("echo")
    (tmp_path / "text").chmod(0o755)
    (tmp_path / "locked").write_text("#!/bin/sh\n")

    async def main() -> None:
        asked = workload(command, tmp_path, working_directory=tmp_path / folder)
        async with running(asked, tmp_path) as run:
            run.supervisor.activate(2)
            failed = await run.next(WorkloadFailed)
            assert says in failed.reason
            status = run.supervisor.status
            assert status.state is WorkloadState.FAILED
            assert status.last_error == failed.reason
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert run.count(WorkloadFailed) == 1

    trio.run(main)


def test_a_crash_is_followed_by_a_restart_with_the_same_term(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(workload(["sleep", "1000"], tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            first = await run.next(WorkloadStarted)
            assert first.pid is not None
            os.kill(first.pid, signal.SIGSEGV)
            restarted = await run.next(WorkloadRestarted)
            assert restarted == WorkloadRestarted("it was ended by signal SIGSEGV", 1)
            assert run.supervisor.status.pid not in (None, first.pid)
            assert run.count(WorkloadStarted) == 1

    trio.run(main)


def test_crashes_in_a_row_are_a_failure_said_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(workload(["sh", "-c", "exit 3"], tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            failed = await run.next(WorkloadFailed)
            assert failed.reason == "it ended with exit code 3"
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)

    trio.run(main)


def test_output_goes_to_a_file_if_one_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        output = tmp_path / "output.log"
        output.write_text("before\n")
        command = ["sh", "-c", "echo out; echo err >&2; sleep 1000"]
        async with running(workload(command, tmp_path, output=output), tmp_path) as run:
            run.supervisor.activate(2)
            await until(lambda: lines(output) == ["before", "out", "err"])

    trio.run(main)


def test_p4_the_end_of_the_supervisor_kills_the_workload(tmp_path: Path) -> None:
    before = own_children()  # of other tests

    async def main() -> None:
        note = tmp_path / "family"
        async with running(workload(script(FAMILY, str(note)), tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            await until(lambda: len(lines(note)) == 3)
        assert not any(is_alive(pid) for pid in family(note))
        assert own_children() == before
        assert not (tmp_path / "state" / "workload.pid").exists()

    trio.run(main)


def test_a_lease_that_ends_kills_all_and_it_stays_dead_until_activated_again(tmp_path: Path) -> None:
    async def main() -> None:
        note = tmp_path / "family"
        async with running(workload(script(FAMILY, str(note)), tmp_path), tmp_path) as run:
            run.supervisor.renew_lease(boottime_ns() + 60_000_000_000)
            run.supervisor.activate(2)
            await until(lambda: len(lines(note)) == 3)
            until_ns = boottime_ns() + 50_000_000
            run.supervisor.renew_lease(until_ns)
            fenced = await run.next(WorkloadFenced)
            assert fenced.at_ns >= until_ns
            assert not any(is_alive(pid) for pid in family(note))
            assert run.supervisor.status.state is WorkloadState.STOPPED
            run.supervisor.activate(4)  # the lease was not renewed: nothing starts under it
            await run.next(WorkloadFenced)
            assert len(lines(note)) == 3
            run.supervisor.renew_lease(boottime_ns() + 60_000_000_000)
            run.supervisor.activate(6)
            assert (await run.next(WorkloadStarted)).term == 6
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            run.supervisor.activate(8)  # a lease ends with the stop it was for
            assert (await run.next(WorkloadStarted)).term == 8

    trio.run(main)


def test_p4_a_killed_guardian_takes_its_workload_along_and_both_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        note = tmp_path / "family"
        async with running(workload(script(FAMILY, str(note)), tmp_path), tmp_path) as run:
            run.supervisor.activate(2)
            await until(lambda: len(lines(note)) == 3)
            old = family(note)
            os.kill(run.guardian_pid(), signal.SIGKILL)
            restarted = await run.next(WorkloadRestarted)
            assert restarted.reason == "its guardian process ended unexpectedly"
            assert not any(is_alive(pid) for pid in old)
            await until(lambda: len(lines(note)) == 6)
            assert all(is_alive(pid) for pid in set(family(note)) - set(old))

    trio.run(main)


def test_a_stop_is_confirmed_although_the_guardian_dies_during_it(tmp_path: Path) -> None:
    async def main() -> None:
        deaf = 'trap "" TERM; echo up; while :; do sleep 0.01; done'
        async with running(workload(["sh", "-c", deaf], tmp_path, stop_timeout=600_000), tmp_path) as run:
            run.supervisor.activate(2)
            await run.next(WorkloadOutput)
            pid = run.supervisor.status.pid
            assert pid is not None
            run.supervisor.deactivate()
            os.kill(run.guardian_pid(), signal.SIGKILL)
            await run.next(WorkloadStopped)
            assert not is_alive(pid)
            assert run.count(WorkloadStopped) == 1

    trio.run(main)


def test_nothing_to_run_is_confirmed_at_once(tmp_path: Path) -> None:
    before = own_children()  # of other tests

    async def main() -> None:
        hooks = Hooks(on_active=(("sh", "-c", f"echo $PAIR_AGENT_TERM >> {tmp_path}/hooked"),))
        for runs, kind in enumerate((WorkloadKind.NONE, WorkloadKind.SYSTEMD), start=1):
            async with running(workload([], tmp_path, kind=kind), tmp_path, hooks) as run:
                run.supervisor.activate(2)
                assert (await run.next(WorkloadStarted)).pid is None
                run.supervisor.deactivate()
                await run.next(WorkloadStopped)
                await until(lambda runs=runs: len(lines(tmp_path / "hooked")) == runs)
        assert own_children() == before

    trio.run(main)


def test_a_warm_workload_runs_on_standby_and_is_told_without_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        hooks = Hooks(
            on_active=(("sh", "-c", f"echo active $PAIR_AGENT_TERM >> {tmp_path}/hooked"),),
            on_standby=(("sh", "-c", f"sleep 0.1; echo standby >> {tmp_path}/hooked"),),
        )
        role_file = tmp_path / "state" / "role.json"
        asked = workload(["sh", "-c", "echo $PAIR_AGENT_ROLE; sleep 1000"], tmp_path, standby=StandbyKind.WARM)
        async with running(asked, tmp_path, hooks) as run:
            assert (await run.next(WorkloadOutput)).line == "standby"
            await until(lambda: run.supervisor.status.state is WorkloadState.RUNNING)
            pid = run.supervisor.status.pid
            assert pid is not None
            run.supervisor.activate(2)
            started = await run.next(WorkloadStarted)
            assert started.pid == pid
            assert json.loads(role_file.read_text()) == {"role": "active", "term": 2}
            run.supervisor.deactivate()
            await run.next(WorkloadStopped)
            assert json.loads(role_file.read_text()) == {"role": "standby", "term": None}
            assert lines(tmp_path / "hooked") == ["active 2", "standby"]
            assert is_alive(pid)
            run.supervisor.activate(4)
            await run.next(WorkloadStarted)
            run.supervisor.renew_lease(boottime_ns())
            await run.next(WorkloadFenced)
            assert not is_alive(pid)
            assert (await run.next(WorkloadOutput)).line == "standby"

    trio.run(main)


def test_a_guardian_that_cannot_be_started_is_an_error_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    async def main() -> None:
        async with running(workload(["sleep", "1"], tmp_path), tmp_path):
            pass

    with pytest.RaisesGroup(pytest.RaisesExc(WorkloadError, match="the guardian"), flatten_subgroups=True):
        trio.run(main)
