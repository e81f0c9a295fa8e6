"""Whether somebody writes to a file: by a descriptor, or by a mapping that outlives it."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.platform.writers import has_writers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    descriptor = os.open(path, os.O_RDONLY)
    yield path, descriptor
    os.close(descriptor)


def test_a_file_that_is_only_read_has_no_writers(file: tuple[Path, int]) -> None:
    path, descriptor = file
    with path.open("rb"):
        assert not has_writers(descriptor)


def test_whoever_has_it_open_for_writing_is_one(file: tuple[Path, int]) -> None:
    path, descriptor = file
    with path.open("r+b"):
        assert has_writers(descriptor)
    assert not has_writers(descriptor)


def test_whoever_has_it_mapped_for_writing_is_one(file: tuple[Path, int]) -> None:
    path, descriptor = file
    with path.open("r+b") as opened:
        mapping = mmap.mmap(opened.fileno(), 0)
    assert has_writers(descriptor)
    mapping.close()
    assert not has_writers(descriptor)


def test_nobody_is_kept_from_opening_it_afterwards(file: tuple[Path, int]) -> None:
    path, descriptor = file
    assert not has_writers(descriptor)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
