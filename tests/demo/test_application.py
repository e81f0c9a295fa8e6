"""The protected application goes on with the data that it finds, and rests when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.demo import application
from agent.demo.application import encode_reading, file_name, last_number
from agent.demo.readings import Reading, readings_below

WAIT_S = 30.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_last_number_is_that_of_the_last_file_with_a_reading_in_it(tmp_path: Path) -> None:
    assert last_number(str(tmp_path)) == 0
    (tmp_path / file_name(9)).write_bytes(encode_reading(1, "node-a", 1, 9))
    (tmp_path / file_name(10)).write_bytes(b"")  # killed before it wrote
    (tmp_path / ".pair-agent").mkdir()
    (tmp_path / "notes.txt").write_text("none of its own")
    assert last_number(str(tmp_path)) == 9


def test_it_goes_on_with_the_numbers_of_the_other_node_and_pauses(tmp_path: Path) -> None:
    folder, pause = tmp_path / "readings", tmp_path / "pause"
    folder.mkdir()
    others = Reading(1, "node-a", 1, 41)
    (folder / file_name(41)).write_bytes(encode_reading(1, "node-a", 1, 41))
    pause.touch()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", application.__file__, str(folder), str(pause)],
        env={**os.environ, "PAIR_AGENT_NAME": "node-b", "PAIR_AGENT_TERM": "2"},
    )
    try:
        pause.unlink()
        wait_for(lambda: len(readings_below(folder)) > 3)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    written = sorted(readings_below(folder), key=lambda reading: reading.number)
    assert written[0] == others
    assert [reading.number for reading in written] == list(range(41, 41 + len(written)))
    assert {(reading.node, reading.term) for reading in written[1:]} == {("node-b", 2)}
