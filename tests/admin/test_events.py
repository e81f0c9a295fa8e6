"""The event log: numbered, bounded, never in the way, there again after a restart."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from agent.admin import events
from agent.admin.codes import EventCode
from agent.admin.event_file import EventFile
from agent.admin.events import EVENTS_KEPT, EventLog


def write_all(log: EventLog) -> None:
    """Runs the writer once, as a stopping agent does."""

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await log.run()

    trio.run(main)


def appended(path: Path, count: int, start: int = 1) -> EventLog:
    log = EventLog(path)
    for number in range(start, start + count):
        log.append(EventCode.LINK_UP, f"Event {number}.", number=number)
    write_all(log)
    return log


def test_an_event_says_when_what_and_why(tmp_path: Path) -> None:
    moment = datetime(2025, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
    log = EventLog(tmp_path / "events.jsonl", wall_clock=lambda: moment)
    event = log.append(EventCode.ROLE_CHANGED, "This node is active.", term=42, role="active")
    assert event.as_json() == {
        "sequence": 1,
        "time": "2025-03-01T10:00:00.123Z",
        "code": "role-changed",
        "sentence": "This node is active.",
        "fields": {"term": 42, "role": "active"},
    }


def test_events_and_their_numbers_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = appended(path, 3)
    second = EventLog(path)
    assert second.newest(10) == first.newest(10)
    assert second.append(EventCode.LINK_DOWN, "Down.").sequence == 4


def test_each_event_is_one_line_of_the_agents_log_with_its_weight(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with caplog.at_level(logging.INFO, logger="agent.events"):
        log.append(EventCode.LINK_UP, "Up.")
        log.append(EventCode.BOTH_ACTIVE, "Both.")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "link-up: Up."),
        ("WARNING", "both-active: Both."),
    ]


def test_a_sentence_from_elsewhere_cannot_forge_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    event = log.append(EventCode.PEER_REFUSED, "A\n2025 role-changed: \x1b[31m", name="x\r\ny" * 1000)
    write_all(log)
    assert event.sentence.isprintable()
    assert len(path.read_bytes().splitlines()) == 1
    assert len(str(event.fields["name"])) < 5000
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "torn", [b'{"sequence": 4, "ti', b"\x00" * 50, b'{"sequence": 4}', b"[[[", b'{"sequence": true}']
)
def test_a_line_torn_by_a_crash_costs_itself_alone(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    appended(path, 3)
    with path.open("ab") as file:
        file.write(torn)
    log = EventLog(path)
    assert log.append(EventCode.LINK_UP, "Event 4.").sequence == 4
    write_all(log)
    assert [event.sentence for event in EventLog(path).newest(10)] == [f"Event {number}." for number in range(1, 5)]


def test_the_files_stay_below_their_bound_and_one_previous_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, bytes_max=2000)
    for _ in range(40):
        for _ in range(5):
            log.append(EventCode.LINK_UP, "The link is up.")
        write_all(log)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["events.jsonl", "events.jsonl.previous"]
    assert all(file.stat().st_size <= 2000 for file in files)
    kept = [event.sequence for event in EventLog(path, bytes_max=2000).newest(1000)]
    assert kept == list(range(kept[0], 201))
    assert len(kept) > 10


def test_many_events_at_once_are_split_over_the_files(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, bytes_max=2000)
    for _ in range(100):
        log.append(EventCode.LINK_UP, "The link is up.")
    write_all(log)
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    assert EventLog(path, bytes_max=2000).last_sequence == 100


def test_memory_holds_the_newest_events_only(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for _ in range(EVENTS_KEPT + 10):
        log.append(EventCode.LINK_UP, "Up.")
    assert len(log.newest(10**6)) == EVENTS_KEPT
    assert log.since(0, 10**6)[0].sequence == 11
    assert [event.sequence for event in log.since(EVENTS_KEPT + 5, 2)] == [EVENTS_KEPT + 6, EVENTS_KEPT + 7]


def test_a_file_that_cannot_be_read_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.mkdir()
    log = EventLog(path)
    assert log.trouble is not None
    log.append(EventCode.LINK_UP, "Up.")
    write_all(log)
    assert log.last_sequence == 1


def test_a_full_disk_is_said_once_and_the_events_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(_self: EventFile, _lines: list[str]) -> None:
        raise OSError(28, "No space left on device")

    log = EventLog(tmp_path / "events.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "append", no_space)
        for _ in range(3):
            log.append(EventCode.LINK_UP, "Up.")
            write_all(log)
    assert log.trouble is not None
    assert "No space left on device" in log.trouble
    assert sum("No space" in record.getMessage() for record in caplog.records) == 1
    assert len(log.newest(10)) == 3
    log.append(EventCode.LINK_UP, "Up.")
    write_all(log)
    assert log.trouble is None


def test_a_disk_that_hangs_delays_neither_appending_nor_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, released = threading.Event(), threading.Event()

    def hang(_self: EventFile, _lines: list[str]) -> None:
        reached.set()
        released.wait(30)

    monkeypatch.setattr(EventFile, "append", hang)
    monkeypatch.setattr(events, "FLUSH_TIMEOUT_S", 0.05)

    async def main() -> None:
        log = EventLog(tmp_path / "events.jsonl")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            log.append(EventCode.LINK_UP, "Up.")
            assert await trio.to_thread.run_sync(reached.wait, 30)
            for _ in range(EVENTS_KEPT + 5):
                log.append(EventCode.LINK_UP, "Up.")
            assert log.trouble is not None
            nursery.cancel_scope.cancel()
        assert not released.is_set()

    try:
        trio.run(main)
    finally:
        released.set()


def test_what_was_appended_before_a_stop_is_on_the_disk_after_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    async def main() -> None:
        log = EventLog(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            await trio.testing.wait_all_tasks_blocked()
            log.append(EventCode.AGENT_STOPPED, "Stopped.")
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert [json.loads(line)["code"] for line in path.read_text().splitlines()] == ["agent-stopped"]


def test_waiting_ends_with_the_next_event(tmp_path: Path) -> None:
    async def main() -> None:
        log = EventLog(tmp_path / "events.jsonl")
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(log.wait_for_more, 0)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 2
            log.append(EventCode.LINK_UP, "Up.")
            with trio.fail_after(5):
                await log.wait_for_more(0)

    trio.run(main)


def test_every_code_has_a_meaning_and_keeps_its_word() -> None:
    assert all(code.meaning.endswith(".") and code.value == code.name.lower().replace("_", "-") for code in EventCode)
    assert EventCode("role-changed") is EventCode.ROLE_CHANGED
    assert len(EventCode) == 37
