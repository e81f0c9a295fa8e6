"""A process id that was written down is recognised only while it is the same process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent.platform.processes import is_same_process, process_identity

WAITING = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"]


def start() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(WAITING, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_living_process_keeps_its_identity() -> None:
    identity = process_identity(os.getpid())
    assert identity is not None
    assert process_identity(os.getpid()) == identity
    assert is_same_process(os.getpid(), identity)


def test_every_process_sees_the_same_identity() -> None:
    program = f"from agent.platform.processes import process_identity; print(process_identity({os.getpid()}))"
    seen = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
    assert seen == process_identity(os.getpid())


def test_a_dead_process_has_no_identity_even_before_it_is_reaped() -> None:
    with start() as process:
        identity = process_identity(process.pid)
        assert identity is not None
        process.kill()
        if sys.platform == "win32":
            process.wait()  # the handle is still open
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_identity(process.pid) is None
        assert not is_same_process(process.pid, identity)


def test_another_process_is_not_the_same_one() -> None:
    own = process_identity(os.getpid())
    assert own is not None
    with start() as process:
        assert not is_same_process(process.pid, own)
        process.kill()


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1])
def test_an_impossible_id_is_no_process(pid: int) -> None:
    assert process_identity(pid) is None


@pytest.mark.skipif(sys.platform == "win32", reason="/proc is Linux'")
def test_a_name_with_parentheses_and_spaces_does_not_confuse(tmp_path: object) -> None:
    program = "import sys; open('/proc/self/comm', 'w').write('a) R 1 (b c'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        before = process_identity(process.pid)
        assert process.stdout is not None
        process.stdout.readline()
        assert process_identity(process.pid) == before
        process.kill()
