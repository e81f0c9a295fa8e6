"""What becomes of both nodes' work when they have written on their own, and of edits and orders in between."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from agent.core.bulk_messages import Applied, Ask
from agent.core.bulk_wire import decode_untrusted
from agent.link.bulk_stream import Payload
from tests.replica.memory_connection import MemoryStream
from tests.replica.two_workers import FOLLOWING, SERVING, Joined, Worker, contents_of, until


def make_pair(folder: Path, **more: Any) -> tuple[Worker, Worker]:
    return Worker(folder / "a", SERVING, **more), Worker(folder / "b", FOLLOWING, **more)


async def fall_apart(source: Worker, sink: Worker) -> None:
    """Brings both in step; then the source is the backup, active in term 4, and the sink a primary that wrote, too."""
    async with Joined(source, sink):
        await source.until("followed")
    source.stand = replace(SERVING, primary=False, data_term=4, alone=True, base_term=2)
    sink.stand = replace(FOLLOWING, primary=True, data_term=3, alone=True, base_term=2)


def test_d5_a_link_that_gives_way_is_in_the_archive(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "both").symlink_to("common")
        await fall_apart(source, sink)
        for worker, target in ((source, "the-backups"), (sink, "the-primarys")):
            (worker.data / "both").unlink()
            (worker.data / "both").symlink_to(target)
        async with Joined(source, sink):
            await sink.until("complete", 4)
            assert sink.contents() == {"both": "the-primarys"}
            assert in_archive(sink) == {"both": "the-backups"}
            assert not (sink.data / ".pair-agent").exists()

    trio.run(main)


def test_d5_what_was_written_in_a_folder_that_the_primary_removed_is_in_the_archive(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "folder").mkdir()
        (source.data / "folder" / "file").write_bytes(b"common")
        await fall_apart(source, sink)
        (source.data / "folder" / "file").write_bytes(b"the backup's")
        (sink.data / "folder" / "file").unlink()
        (sink.data / "folder").rmdir()
        async with Joined(source, sink):
            await sink.until("complete", 4)
            assert sink.contents() == {}
            assert in_archive(sink) == {"folder/file": b"the backup's"}
            assert sink.sentences("name-refused") == []

    trio.run(main)


def test_d5_what_the_primary_kept_stays_in_place_when_the_connection_is_made_anew_before_it_is_active(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "both").write_bytes(b"common")
        await fall_apart(source, sink)
        (source.data / "both").write_bytes(b"the backup's")
        (sink.data / "both").write_bytes(b"the primary's")
        (sink.data / "own").write_bytes(b"the primary's, too")
        for _ in range(2):
            async with Joined(source, sink):
                await sink.until("complete", 4)
                await source.until("followed")
                assert sink.contents() == {"both": b"the primary's", "own": b"the primary's, too"}
        assert sink.archived() == [b"the backup's"]

    trio.run(main)


def test_what_the_primary_kept_reaches_the_backup_even_if_the_backup_once_had_it_already(tmp_path: Path) -> None:
    """The backup took a file over, and removed it, before the primary learned that it had it."""

    async def main() -> None:
        primary, backup = make_pair(tmp_path)
        async with Joined(primary, backup):
            await primary.until("followed")

        def cut_before_applied(end: MemoryStream, item: Any) -> Any:
            if isinstance(item, Payload) and isinstance(decode_untrusted(item.payload), Applied):
                joined.connection.break_off()
                raise trio.BrokenResourceError
            return item

        (primary.data / "kept").write_bytes(b"the primary's")
        joined = Joined(primary, backup, spoil=cut_before_applied)
        async with joined:
            await joined.over.wait()
        assert backup.contents() == primary.contents()
        (backup.data / "kept").unlink()
        backup.stand = replace(SERVING, primary=False, data_term=4, alone=True, base_term=2)
        primary.stand = replace(FOLLOWING, primary=True, data_term=3, alone=True, base_term=2)
        async with Joined(backup, primary):
            await primary.until("complete", 4)
        primary.stand = replace(SERVING, primary=True, data_term=5, alone=True, base_term=4)
        backup.stand = replace(FOLLOWING, primary=False, data_term=4, alone=False, base_term=4)
        async with Joined(primary, backup):
            await backup.until("complete", 5)
            assert backup.contents() == primary.contents() == {"kept": b"the primary's"}

    trio.run(main)


def test_an_edit_that_is_found_while_another_one_is_asked_for_is_replaced_too(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        for name in ("one", "two"):
            (source.data / name).write_bytes(b"the source's")
        async with Joined(source, sink) as joined:
            await source.until("followed")
            joined.connection.ends[1].flush_takes_s = 0.5
            for name in ("one", "two"):
                (sink.data / name).write_bytes(b"edited")
                await sink.changed()
                await trio.sleep(0.05)
            await until(lambda: sink.contents() == source.contents())

    trio.run(main)


def test_an_edit_that_is_found_during_the_first_round_is_replaced_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"the source's")
        async with Joined(source, sink):
            await source.until("followed")
        (source.data / "big").write_bytes(os.urandom(500_000))
        async with Joined(source, sink) as joined:
            joined.connection.ends[0].flush_takes_s = 0.2
            await until(lambda: sink.session is not None and bool(sink.session.sink.copying))
            (sink.data / "one").write_bytes(b"edited")
            await sink.changed()
            await until(lambda: sink.contents() == source.contents())

    trio.run(main)


def test_the_sink_notes_that_it_has_everything_before_the_source_learns_it(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        noted: list[bool] = []

        def look(end: MemoryStream, item: Any) -> Any:
            if isinstance(item, Payload) and isinstance(decode_untrusted(item.payload), Applied):
                noted.append(("complete", 2) in sink.told)
            return item

        async with Joined(source, sink, spoil=look):
            await source.until("followed")
        assert noted[0]

    trio.run(main)


def test_final_changes_are_told_to_have_arrived_though_the_sink_follows_anew_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        async with Joined(source, sink):
            await source.until("followed")
            (source.data / "last").write_bytes(b"last words")
            outcome: list[str] = []
            assert source.session is not None
            assert sink.session is not None
            source.session.source.finish(7, outcome.append)
            sink.session.restart(full=False)
            await until(lambda: bool(outcome))
            assert outcome == [""]
            assert sink.contents() == {"last": b"last words"}

    trio.run(main)


def test_an_order_to_compare_anew_may_come_while_the_sink_begins_to_follow(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path, second_place="second")
        for worker in (source, sink):
            (worker.folder / "second").mkdir()
        (source.data / "one").write_bytes(b"one")
        async with Joined(source, sink) as joined:
            joined.connection.ends[1].flush_takes_s = 0.05
            for _ in range(5):
                await trio.sleep(0.06)
                assert sink.session is not None
                sink.session.restart(full=True)
            await until(lambda: sink.contents() == source.contents())
            await sink.until("complete", 2)
            assert not joined.failures

    trio.run(main)


def test_a_sink_of_two_trees_of_which_one_may_not_be_changed_now_is_not_complete_and_tries_again(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path, second_place="second")
        for worker in (source, sink):
            (worker.folder / "second").mkdir()
        (source.data / "one").write_bytes(b"one")
        allowed = False
        sink.may_change = lambda incomplete: allowed
        async with Joined(source, sink):
            await sink.until("permit")
            await trio.sleep(0.2)
            assert ("complete", 2) not in sink.told
            assert sink.contents() == {}
            allowed = True
            assert sink.session is not None
            sink.session.stand(sink.stand)  # as when its phase has changed
            await sink.until("complete", 2)
            assert sink.contents() == source.contents()

    trio.run(main)


def test_an_edit_that_is_asked_for_costs_one_question(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"the source's")
        asked: list[tuple[str, ...]] = []

        def look(end: MemoryStream, item: Any) -> Any:
            message = decode_untrusted(item.payload) if isinstance(item, Payload) else None
            if isinstance(message, Ask):
                asked.append(message.paths)
            return item

        async with Joined(source, sink, spoil=look):
            await source.until("followed")
            (sink.data / "one").write_bytes(b"edited")
            await sink.changed()
            await until(lambda: sink.contents() == source.contents())
            await sink.changed()
            await trio.sleep(0.1)
        assert asked == [("one",)]

    trio.run(main)


def in_archive(worker: Worker) -> dict[str, Any]:
    """Returns the files and links in a worker's archive by path."""
    found: dict[str, Any] = {}
    for tree in (worker.folder / "state" / "archive").glob("*/data*"):
        found |= {path: value for path, value in contents_of(tree).items() if value is not None}
    return found
