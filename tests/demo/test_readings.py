"""What is read from the application's files is whole, and says who wrote when."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.demo.application import encode_reading
from agent.demo.readings import (
    Reading,
    ReadingsFile,
    Run,
    gap_before_ns,
    parse_reading_untrusted,
    runs_of,
    terms_grow,
    two_at_once,
)


def test_what_the_application_writes_is_what_is_read() -> None:
    assert parse_reading_untrusted(encode_reading(7, "node-a", 3, 1)) == Reading(7, "node-a", 3, 1)


@pytest.mark.parametrize("line", [b"", b"1 node-a 3", b"1 node-a x 1", b"1 node-\xff 3 1", b"1 node-a 3 1 1"])
def test_a_line_that_is_no_reading_is_none(line: bytes) -> None:
    assert parse_reading_untrusted(line) is None


def test_a_reading_counts_once_and_only_when_its_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "readings.txt"
    file = ReadingsFile(path)
    assert file.read_new() == []
    whole = encode_reading(1, "node-a", 3, 1) + encode_reading(2, "node-a", 3, 2)
    path.write_bytes(whole[:-3])
    assert [reading.number for reading in file.read_new()] == [1]
    path.write_bytes(whole)
    assert [reading.number for reading in file.read_new()] == [2]
    assert file.read_new() == []


def test_runs_are_one_for_each_node_and_term_in_order_of_time() -> None:
    readings = [Reading(30, "node-b", 2, 1), Reading(10, "node-a", 1, 1), Reading(20, "node-a", 1, 2)]
    assert runs_of(readings) == [Run("node-a", 1, 10, 20, 2), Run("node-b", 2, 30, 30, 1)]


@pytest.mark.parametrize(
    ("later", "overlap"),
    [
        (Run("node-b", 2, 21, 30, 2), False),
        (Run("node-b", 2, 20, 30, 2), True),  # at the very same moment
        (Run("node-b", 2, 12, 13, 2), True),  # within
        (Run("node-b", 1, 15, 30, 2), True),  # even in the same term
    ],
)
def test_two_at_once_are_found_by_so_little_as_one_reading(later: Run, overlap: bool) -> None:
    earlier = Run("node-a", 1, 10, 20, 2)
    assert two_at_once([earlier, later]) == ([(earlier, later)] if overlap else [])


def test_two_at_once_are_found_behind_another_run_too() -> None:
    long, short, last = Run("node-a", 1, 0, 100, 9), Run("node-b", 2, 110, 120, 2), Run("node-a", 3, 115, 130, 2)
    assert two_at_once([long, short, last]) == [(short, last)]


def test_terms_must_grow_with_each_run() -> None:
    first, second = Run("node-a", 1, 0, 1, 1), Run("node-b", 2, 2, 3, 1)
    assert terms_grow([first, second])
    assert not terms_grow([second, first])
    assert not terms_grow([first, Run("node-b", 1, 2, 3, 1)])


def test_a_gap_is_from_the_last_reading_of_anybody_before() -> None:
    first, second = Run("node-a", 1, 0, 50, 1), Run("node-b", 2, 80, 90, 1)
    assert gap_before_ns(second, [first, second]) == 30
    assert gap_before_ns(first, [first, second]) is None
