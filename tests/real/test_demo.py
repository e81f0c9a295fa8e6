"""`pair-agent demo` shows what it promises, measured, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.real.pair import PROJECT

WAIT_S = 90.0
MARK = "DEMO_TEST_MARK"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="interrupts by the signals of POSIX")


@dataclass
class Demo:
    """Starts demos whose processes carry a mark, and whose folders lie in `temporary`."""

    temporary: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "demo", *options],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(self.temporary), MARK: str(self.temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*options)
        output, _ = process.communicate(timeout=WAIT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def folders(self) -> list[Path]:
        return list(self.temporary.iterdir())

    def living(self) -> list[psutil.Process]:
        """Every process that a demo of this test started, however far down."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(self.temporary):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def leaves_nothing(self) -> bool:
        return self.folders() == [] and self.living() == []


@pytest.fixture
def demo() -> Iterator[Demo]:
    # Not tmp_path: pytest would keep what a failed demo leaves.
    with tempfile.TemporaryDirectory(prefix="test-demo-") as folder:
        running = Demo(Path(folder))
        try:
            yield running
        finally:
            for process in running.living():
                process.kill()
            for started in running.started:
                started.communicate(timeout=WAIT_S)


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Returns the output so far, up to the line with `word`."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if word in line:
            return output
    raise AssertionError(f"{word!r} never came:\n{output}")


def test_it_shows_every_stage_measures_and_leaves_nothing(demo: Demo) -> None:
    done = demo.run()
    assert done.returncode == 0, done.stdout
    stages = re.findall(r"^ *[\d.]+ s  (\w+)", done.stdout, re.MULTILINE)
    expected = ["pairing", "active", "kill", "takeover", "return", "switchback", "comparison", "end"]
    assert list(dict.fromkeys(stages)) == expected
    for label in (
        r"takeover: from the kill to node-b's first reading",
        r"gap in the readings at the takeover",
        r"gap in the readings at the switchback",
        r"of that, without a running workload, by the agent",
    ):
        assert re.search(rf"^  {label} +\d+ ms$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^  two at once +never$", done.stdout, re.MULTILINE)
    assert "It worked: node-b took over" in done.stdout
    assert "it had received all of them before its application started" in done.stdout
    assert re.search(
        r"^  both trees, file by file +\d{2,} files, \d{3,} bytes: all the same$", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^  numbers of the readings, across the nodes +1 to \d+, without a break$", done.stdout, re.MULTILINE
    )
    assert re.search(r"^  readings lost otherwise +none$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout  # plain where there is no terminal
    assert demo.leaves_nothing()


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("two agents started", signal.SIGINT),
        ("kill -9", signal.SIGINT),
        ("is started again", signal.SIGINT),
        ("failover would work", signal.SIGTERM),
        ("its first reading", signal.SIGHUP),
    ],
)
def test_interrupted_in_the_middle_it_leaves_nothing(demo: Demo, stage: str, number: int) -> None:
    process = demo.start()
    read_until(process, stage)
    process.send_signal(number)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + number, output
    assert "Both agents are stopped" in output
    assert demo.leaves_nothing()


def test_an_agent_that_dies_unexpectedly_is_named_with_the_end_of_its_log(demo: Demo) -> None:
    process = demo.start()
    started = re.search(r"processes (\d+) and (\d+)", read_until(process, "failover would work right now"))
    assert started is not None
    os.kill(int(started[2]), signal.SIGKILL)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "The agent of node-b ended by itself, with exit code -9." in output
    assert "The end of the log of node-b:" in output
    assert "agent-started: " in output
    assert demo.leaves_nothing()


def test_a_reader_that_leaves_early_ends_it_with_nothing_left(demo: Demo) -> None:
    process = demo.start()
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(WAIT_S) == 1
    assert demo.leaves_nothing()


def test_a_kept_pair_is_talked_to_and_ended_as_printed(demo: Demo) -> None:
    done = demo.run("--keep")
    assert done.returncode == 0, done.stdout
    commands = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("  pair-agent ")]
    status = next(command for command in commands if command[1] == "status")
    stop = next(command for command in commands if command[1:3] == ["demo", "--stop"])
    status.remove("--watch")

    shown = run(status)
    assert shown.returncode == 0
    assert "node-a (primary) is active" in shown.stdout

    (folder,) = demo.folders()
    assert stop[3] == str(folder)
    stopped = run(stop)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert demo.leaves_nothing()


def test_no_folder_but_its_own_is_removed(tmp_path: Path) -> None:
    precious = tmp_path / "pair-agent-demo-not-really"
    precious.mkdir()
    (precious / "work.txt").write_text("a year of it")
    renamed = tmp_path / "work"
    renamed.mkdir()
    (renamed / "demo.json").write_text('{"agents": []}')
    for folder in (precious, renamed, tmp_path, tmp_path / "missing"):
        refused = run(["pair-agent", "demo", "--stop", str(folder)])
        assert refused.returncode == 1
        assert "nothing was changed" in refused.stderr
    assert (precious / "work.txt").exists()
    assert renamed.exists()


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs what the demo printed, by the very interpreter of this test."""
    assert command[0] == "pair-agent"
    return subprocess.run(
        [sys.executable, "-m", "agent", *command[1:]],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
