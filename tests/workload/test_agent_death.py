"""A workload runs only under a living agent: the agent is killed, frozen, replaced, and all it ran dies in time."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.platform.clock import boottime_ns
from agent.workload.leftover import clean_up_leftover, write_record
from tests.workload.harness import FAMILY, PATIENCE_SECONDS, family, is_alive, lines, script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals; Windows has its own lane")

STAND_IN = Path(__file__).with_name("agent_stand_in.py")
PROJECT = Path(__file__).parent.parent.parent

# Notes the time over and over again; the last note is the last moment of its life, less a millisecond or so.
CLOCK_WRITER = """
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
while True:
    os.pwrite(file, b"%20d" % time.clock_gettime_ns(time.CLOCK_BOOTTIME), 0)
    time.sleep(0.0005)
"""


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@contextmanager
def agent(folder: Path, *command: str, lease_ms: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Runs an agent until the workload runs."""
    (folder / "pid").unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    arguments = [sys.executable, STAND_IN, folder, str(lease_ms), *command]
    process = subprocess.Popen(arguments, env=environment)
    try:
        until((folder / "pid").exists)
        yield process
    finally:
        process.kill()
        process.wait()
        clean_up_leftover(folder / "state")


def guardian_of(folder: Path) -> int:
    record = folder / "state" / "workload.pid"
    until(lambda: record.exists() and json.loads(record.read_text())["workload"] is not None)
    return int(json.loads(record.read_text())["guardian"]["pid"])


def connects(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.1)
        try:
            client.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, ConnectionResetError):
            return True  # not refused: the queue of a port on which nobody accepts is full, or it closed just now
        return True


def test_p4_a_killed_agent_takes_the_workload_its_children_and_its_daemons_along(tmp_path: Path) -> None:
    note = tmp_path / "family"
    with agent(tmp_path, *script(FAMILY, str(note))) as process:
        until(lambda: len(lines(note)) == 3)
        assert len(family(note)) == 2
        guardian = guardian_of(tmp_path)
        process.kill()
        until(lambda: not is_alive(guardian))
        assert not any(is_alive(pid) for pid in family(note))


def test_p4_the_port_refuses_connections_only_after_the_workload_is_dead(tmp_path: Path) -> None:
    deaf_family = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        note = folder / "family"
        with agent(folder, *script(deaf_family, str(note))) as process:
            until(lambda note=note: len(lines(note)) == 3)  # type: ignore[misc]  # bound now, mypy does not infer it
            port = int((folder / "port").read_text())
            process.kill()
            give_up = time.monotonic() + PATIENCE_SECONDS
            while connects(port):
                assert time.monotonic() < give_up
            assert not any(is_alive(pid) for pid in family(note))


def test_the_port_stays_open_while_a_guardian_is_still_killing(tmp_path: Path) -> None:
    with agent(tmp_path, "sleep", "1000") as process:
        port = int((tmp_path / "port").read_text())
        guardian = guardian_of(tmp_path)
        os.kill(guardian, signal.SIGSTOP)
        process.kill()
        process.wait()
        assert connects(port)
        assert is_alive(int((tmp_path / "pid").read_text()))
        os.kill(guardian, signal.SIGCONT)
        until(lambda: not connects(port))
        assert not is_alive(int((tmp_path / "pid").read_text()))


def test_the_workload_gets_no_descriptor_of_agent_or_guardian(tmp_path: Path) -> None:
    with agent(tmp_path, "sleep", "1000"):
        pid = int((tmp_path / "pid").read_text())
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]


def test_p1_a_frozen_agents_workload_dies_when_the_lease_ends_and_not_before(tmp_path: Path) -> None:
    last_moment = tmp_path / "clock"
    with agent(tmp_path, *script(CLOCK_WRITER, str(last_moment)), lease_ms=400) as process:
        pid = int((tmp_path / "pid").read_text())
        until((tmp_path / "lease").exists)
        process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: not is_alive(pid))
            lease_ns = int((tmp_path / "lease").read_text())
            # The agent may have renewed once more than it could write down.
            assert int(last_moment.read_text()) > lease_ns - 50_000_000
            assert boottime_ns() > lease_ns
        finally:
            process.send_signal(signal.SIGCONT)
        until(lambda: any("WorkloadFenced" in line for line in lines(tmp_path / "said")))


def test_a_lease_that_is_renewed_in_time_never_kills(tmp_path: Path) -> None:
    with agent(tmp_path, "sleep", "1000", lease_ms=200):
        pid = int((tmp_path / "pid").read_text())
        began_ns = boottime_ns()
        until(lambda: (tmp_path / "lease").exists() and int((tmp_path / "lease").read_text()) > began_ns + 800_000_000)
        assert is_alive(pid)


def test_nobody_is_condemned_on_stale_evidence_when_the_guardian_was_held_up(tmp_path: Path) -> None:
    with agent(tmp_path, "sleep", "1000", lease_ms=200):
        pid = int((tmp_path / "pid").read_text())
        guardian = guardian_of(tmp_path)
        until((tmp_path / "lease").exists)
        os.kill(guardian, signal.SIGSTOP)
        stopped_ns = boottime_ns()
        until(lambda: int((tmp_path / "lease").read_text()) > stopped_ns + 600_000_000)
        os.kill(guardian, signal.SIGCONT)
        until(lambda: int((tmp_path / "lease").read_text()) > stopped_ns + 900_000_000)
        assert is_alive(pid)
        assert not any("WorkloadFenced" in line for line in lines(tmp_path / "said"))


def test_p4_agent_and_guardian_killed_together_leave_nothing_to_the_next_agent(tmp_path: Path) -> None:
    note = tmp_path / "family"
    with agent(tmp_path, *script(FAMILY, str(note))) as process:
        until(lambda: len(lines(note)) == 3)
        guardian = guardian_of(tmp_path)
        process.send_signal(signal.SIGSTOP)  # so that it cannot do the guardian's work when that one dies
        os.kill(guardian, signal.SIGKILL)
        process.kill()
        process.wait()
        until(lambda: not is_alive(guardian))
        first = int((tmp_path / "pid").read_text())
        until(lambda: not is_alive(first))  # the kernel's doing
        assert any(is_alive(pid) for pid in family(note))  # the daemon: nobody was left to kill it
        assert clean_up_leftover(tmp_path / "state")
        assert not any(is_alive(pid) for pid in family(note))
        assert not (tmp_path / "state" / "workload.pid").exists()
        assert not clean_up_leftover(tmp_path / "state")


def test_a_guardian_that_is_still_killing_is_waited_for_and_in_the_end_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with agent(tmp_path, "sleep", "1000") as process:
        guardian, pid = guardian_of(tmp_path), int((tmp_path / "pid").read_text())
        os.kill(guardian, signal.SIGSTOP)
        process.kill()
        process.wait()
        with caplog.at_level(logging.INFO):
            assert clean_up_leftover(tmp_path / "state", guardian_patience_ms=100)
        said = f"Waiting for process {guardian} of the former agent, which is still stopping the workload."
        assert caplog.messages == [said]
        assert not is_alive(guardian)
        assert not is_alive(pid)


def test_a_process_that_got_the_id_of_an_old_workload_is_spared(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        try:
            write_record(tmp_path, stranger.pid, stranger.pid)
            record = json.loads((tmp_path / "workload.pid").read_text())
            for entry in record.values():
                entry["identity"] += "0"
            (tmp_path / "workload.pid").write_text(json.dumps(record))
            assert not clean_up_leftover(tmp_path)
            assert is_alive(stranger.pid)
        finally:
            stranger.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"guardian": 5, "workload": {}}', '{"guardian": null}', "\xff"])
def test_a_damaged_record_is_as_if_nothing_had_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "workload.pid").write_text(content, "latin-1")
    assert not clean_up_leftover(tmp_path)
