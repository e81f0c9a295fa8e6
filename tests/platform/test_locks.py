"""One agent per state directory (fault P13): whoever comes second is refused, and death frees the directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.errors import StateError
from agent.platform.locks import DirectoryLock

HOLDER = """
import sys
from pathlib import Path
from agent.platform.locks import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def start_holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "held"
    return process


def test_a_second_agent_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        with pytest.raises(StateError) as refused:
            DirectoryLock(tmp_path).acquire()
        assert f"another agent (pid {holder.pid}) already uses this state directory" in str(refused.value)
        assert str(tmp_path) in str(refused.value)
        holder.kill()


def test_a_killed_agent_leaves_the_directory_free(tmp_path: Path) -> None:
    with start_holder(tmp_path) as holder:
        holder.kill()
    DirectoryLock(tmp_path).acquire()


def test_children_of_the_agent_do_not_keep_the_directory(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False
    ) as child:
        lock.release()
        DirectoryLock(tmp_path).acquire()
        assert child.poll() is None
        child.kill()


def test_one_process_cannot_take_the_directory_twice(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path)
    with first:
        with pytest.raises(StateError, match=f"pid {os.getpid()}"):
            DirectoryLock(tmp_path).acquire()
        with pytest.raises(AssertionError):
            first.acquire()
    with DirectoryLock(tmp_path):
        pass


def test_release_can_be_repeated(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.release()
    lock.acquire()
    lock.release()
    lock.release()


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "state"
    with DirectoryLock(directory):
        assert directory.is_dir()
        if sys.platform != "win32":
            assert directory.stat().st_mode & 0o077 == 0


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="state_directory"):
        DirectoryLock(tmp_path / "state").acquire()
