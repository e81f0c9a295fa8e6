"""What is written for others is whole or not there, and a disk that takes nothing is said in words."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from agent.core.vocabulary import Role
from agent.workload.environment import role_file_path, write_role_file
from agent.workload.latest_write import LatestWrite
from agent.workload.leftover import record_path, write_record

WRITERS: list[tuple[Callable[[Path], Path], Callable[[Path], None]]] = [
    (role_file_path, lambda folder: write_role_file(role_file_path(folder), Role.ACTIVE, 7)),
    (record_path, lambda folder: write_record(folder, os.getpid(), None)),
]


@pytest.mark.parametrize(("place", "write"), WRITERS, ids=["role file", "record"])
def test_a_full_disk_leaves_the_former_file_and_no_draft(
    tmp_path: Path, place: Callable[[Path], Path], write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    before = place(tmp_path).read_bytes()

    def fill(path: Path, *_: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == [place(tmp_path)]
    assert place(tmp_path).read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_is_said_in_words_with_the_way_out(
    tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "role.json.new"))

    async def write_once() -> None:
        file = LatestWrite("role file")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.run)
            file.put(fail)
            await file.settled()
            file.put(partial(write_role_file, tmp_path / "role.json", Role.STANDBY, 1))
            await file.settled()
            nursery.cancel_scope.cancel()

    with caplog.at_level(logging.ERROR):
        trio.run(write_once)
    (line,) = caplog.messages
    assert line.startswith(f"The role file cannot be written: {os.strerror(number)}")
    assert str(tmp_path) in line
    assert "Errno" not in line
    assert ("Free space" in line) == (number == errno.ENOSPC)
    assert (tmp_path / "role.json").exists()
