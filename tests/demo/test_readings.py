"""What is read from the application's files is whole, and says who wrote when."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.demo.application import encode_reading, file_name
from agent.demo.readings import (
    Reading,
    ReadingsFolder,
    Run,
    gap_before_ns,
    number_breaks,
    parse_reading_untrusted,
    readings_below,
    runs_of,
    terms_grow,
    two_at_once,
)


def test_what_the_application_writes_is_what_is_read() -> None:
    assert parse_reading_untrusted(encode_reading(7, "node-a", 3, 1)) == Reading(7, "node-a", 3, 1)


@pytest.mark.parametrize("line", [b"", b"1 node-a 3", b"1 node-a x 1", b"1 node-\xff 3 1", b"1 node-a 3 1 1"])
def test_a_line_that_is_no_reading_is_none(line: bytes) -> None:
    assert parse_reading_untrusted(line) is None


def put(folder: Path, reading: Reading) -> Path:
    path = folder / file_name(reading.number)
    path.write_bytes(encode_reading(reading.taken_ns, reading.node, reading.term, reading.number))
    return path


def test_a_reading_counts_once_and_only_when_its_file_is_written(tmp_path: Path) -> None:
    folder = ReadingsFolder(tmp_path / "readings")
    assert folder.read_new() == []
    (tmp_path / "readings").mkdir()
    first, second = Reading(1, "node-a", 3, 1), Reading(2, "node-a", 3, 2)
    put(tmp_path / "readings", first)
    empty = tmp_path / "readings" / file_name(2)
    empty.touch()
    assert folder.read_new() == [first]
    put(tmp_path / "readings", second)
    assert folder.read_new() == [second]
    assert folder.read_new() == []
    assert folder.files == 2


def test_a_reading_that_takes_the_place_of_another_is_seen_too(tmp_path: Path) -> None:
    folder = ReadingsFolder(tmp_path)
    mine, others = Reading(1, "node-a", 1, 7), Reading(20, "node-b", 2, 7)
    put(tmp_path, mine)
    assert folder.read_new() == [mine]
    put(tmp_path, others)
    assert folder.read_new() == [others]


def test_what_stands_is_found_however_deep_and_under_whatever_name(tmp_path: Path) -> None:
    reading = Reading(1, "node-a", 3, 1)
    (tmp_path / "batch" / "readings").mkdir(parents=True)
    put(tmp_path / "batch" / "readings", reading).rename(tmp_path / "batch" / "readings" / "renamed~1")
    (tmp_path / "batch" / "batch.json").write_text("{}")
    assert readings_below(tmp_path) == {reading}
    assert readings_below(tmp_path / "missing") == set()


def test_numbers_go_on_across_nodes() -> None:
    first, second, third = Reading(10, "node-a", 1, 1), Reading(20, "node-b", 2, 2), Reading(30, "node-a", 3, 3)
    assert number_breaks([third, first, second]) == []
    assert number_breaks([first, third]) == [3]
    assert number_breaks([second, third]) == [2]
    assert number_breaks([first, second, Reading(30, "node-a", 3, 2)]) == [2]


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
