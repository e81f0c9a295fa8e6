"""A sink follows a source: two workers in one process over a connection in memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from agent.core.bulk_messages import Mark
from agent.core.bulk_wire import decode_untrusted
from agent.core.errors import PairAgentError
from agent.link.bulk_stream import Payload
from agent.replica.sink import Sink
from tests.replica.memory_connection import MemoryStream
from tests.replica.two_workers import FOLLOWING, SERVING, Joined, Worker, until


def make_pair(tmp_path: Path) -> tuple[Worker, Worker]:
    return Worker(tmp_path / "a", SERVING), Worker(tmp_path / "b", FOLLOWING)


def test_everything_comes_over(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "sub" / "empty").mkdir(parents=True)
        (source.data / "one").write_bytes(b"one")
        (source.data / "sub" / "big").write_bytes(os.urandom(3_000_000))
        (source.data / "link").symlink_to("sub/big")
        for number in range(300):
            (source.data / f"many-{number}").write_bytes(b"%d" % number)
        async with Joined(source, sink):
            await sink.until("complete", 2)
            await source.until("followed")
            assert sink.contents() == source.contents()
            (source.data / "one").write_bytes(b"two")
            (source.data / "many-7").unlink()
            with (source.data / "sub" / "big").open("r+b") as big:
                big.seek(1_000_000)
                big.write(b"changed")
            await source.changed()
            await until(lambda: sink.contents() == source.contents())
        source.close()
        sink.close()

    trio.run(main)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    trio.run(scenario)


def test_an_edit_at_the_sink_is_replaced_and_archived(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        async with Joined(source, sink):
            await sink.until("complete", 2)
            (sink.data / "one").write_bytes(b"edited")
            (sink.data / "own").write_bytes(b"of its own")
            await sink.changed()
            await until(lambda: sink.contents() == source.contents() == {"one": b"one"})
            assert sink.archived() == [b"edited", b"of its own"]

    run(main)


def test_what_was_edited_while_they_were_apart_is_replaced_too(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        async with Joined(source, sink):
            await sink.until("complete", 2)
            await source.until("followed")
        (sink.data / "one").write_bytes(b"the unsent tail of a crashed node")
        async with Joined(source, sink):
            await sink.until("complete", 2)
            assert sink.contents() == {"one": b"one"}
            assert sink.archived() == [b"the unsent tail of a crashed node"]

    run(main)


def test_d5_a_primary_that_wrote_on_its_own_keeps_what_it_wrote_and_archives_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        for name in ("both", "source only", "sink only", "gone at the source"):
            (source.data / name).write_bytes(b"common")
        async with Joined(source, sink):
            await sink.until("complete", 2)
            await source.until("followed")
        (source.data / "both").write_bytes(b"written by the source")
        (source.data / "source only").write_bytes(b"written by the source")
        (source.data / "gone at the source").unlink()
        (sink.data / "both").write_bytes(b"written by the sink")
        (sink.data / "sink only").write_bytes(b"written by the sink")
        source.stand = replace(SERVING, primary=False, data_term=4, alone=True, base_term=2)
        sink.stand = replace(FOLLOWING, primary=True, data_term=3, alone=True, base_term=2)
        async with Joined(source, sink):
            await sink.until("complete", 4)
            assert sink.contents() == {
                "both": b"written by the sink",
                "sink only": b"written by the sink",
                "source only": b"written by the source",
            }
            assert sink.archived() == [b"written by the source"]
            assert ("conflicted", 1) in sink.told

    run(main)


def test_an_overwrite_archives_whatever_it_replaces(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"the primary's")
        (sink.data / "one").write_bytes(b"the backup's")
        (sink.data / "two").write_bytes(b"the backup's, too")
        sink.stand = replace(FOLLOWING, overwrite=True, data_term=0, base_term=0)
        async with Joined(source, sink):
            await sink.until("complete", 2)
            assert sink.contents() == {"one": b"the primary's"}
            assert sink.archived() == [b"the backup's", b"the backup's, too"]

    run(main)


def test_nothing_is_changed_without_permission(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        sink.may_change = lambda incomplete: False
        async with Joined(source, sink):
            await sink.until("permit")
            await trio.testing.wait_all_tasks_blocked(0.2)
            assert sink.contents() == {}

    run(main)


def test_a_state_of_another_term_is_announced_before_it_is_put_in_place_and_the_same_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        seen: list[tuple[str, bool]] = []

        def may_change(incomplete: str) -> bool:
            seen.append((incomplete, "one" in sink.contents()))
            return True

        sink.may_change = may_change
        async with Joined(source, sink):
            await sink.until("complete", 2)
            (source.data / "two").write_bytes(b"two")
            await source.changed()
            await until(lambda: sink.contents() == source.contents())
        assert [bool(incomplete) for incomplete, _ in seen] == [True, False]
        assert [there for _, there in seen] == [False, True]

    run(main)


def test_a_dry_run_lists_and_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        (sink.data / "own").write_bytes(b"own")
        sink.stand = replace(FOLLOWING, following=False)
        async with Joined(source, sink):
            assert sink.session is not None
            await until(lambda: sink.session is not None and sink.session.sink.knows_source)
            listing = await sink.session.sink.list_changes(100)
            assert {(each["path"], each["deed"], each["archived"]) for each in listing.changes} == {
                ("one", "create", False),
                ("own", "remove", True),
            }
            assert sink.contents() == {"own": b"own"}

    run(main)


def test_a_dry_run_lists_what_the_first_copy_brings_and_makes_no_folder_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        sink.data.rmdir()
        sink.stand = replace(FOLLOWING, following=False)
        async with Joined(source, sink):
            assert sink.session is not None
            await until(lambda: sink.session is not None and sink.session.sink.knows_source)
            listing = await sink.session.sink.list_changes(100)
            assert [(each["path"], each["deed"]) for each in listing.changes] == [("one", "create")]
            assert not sink.data.exists()
            sink.session.stand(FOLLOWING)
            await until(lambda: sink.contents() == source.contents())

    run(main)


@pytest.mark.parametrize("cut", [True, False])
def test_a_dry_run_that_is_interrupted_says_so_and_the_sink_is_free_again(tmp_path: Path, cut: bool) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "one").write_bytes(b"one")
        sink.stand = replace(FOLLOWING, following=False)
        sentences: list[str] = []

        async def list_changes(listing_sink: Sink) -> None:
            with pytest.raises(PairAgentError) as failure:
                await listing_sink.list_changes(100)
            sentences.append(str(failure.value))

        def interrupt(end: MemoryStream, item: Any) -> Any:
            message = decode_untrusted(item.payload) if isinstance(item, Payload) else None
            if isinstance(message, Mark) and not sentences:
                if cut:
                    joined.connection.break_off()
                    raise trio.BrokenResourceError
                assert sink.session is not None
                sink.session.sink.restart(full=False)
            return item

        joined = Joined(source, sink, spoil=interrupt)
        async with trio.open_nursery() as nursery, joined:
            assert sink.session is not None
            listing_sink = sink.session.sink
            await until(lambda: listing_sink.knows_source)
            nursery.start_soon(list_changes, listing_sink)
            await until(lambda: sentences)
            assert ("connection" if cut else "compared anew") in sentences[0]
            if not cut:
                sink.session.stand(FOLLOWING)
                await sink.until("complete", 2)

    run(main)


def test_final_changes_are_on_the_other_node_when_that_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        async with Joined(source, sink):
            await source.until("followed")
            (source.data / "last").write_bytes(b"last words")
            outcome: list[str] = []
            assert source.session is not None
            source.session.source.finish(7, outcome.append)
            await until(lambda: bool(outcome))
            assert outcome == [""]
            assert sink.contents() == {"last": b"last words"}

    run(main)


def test_a_cut_in_the_middle_of_a_big_file_is_gone_on_from(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "big").write_bytes(os.urandom(40_000_000))
        os.utime(source.data / "big", (1, 1))
        async with Joined(source, sink) as joined:
            await until(lambda: joined.received(sink) > 20_000_000)
        assert sink.contents() == {}
        async with Joined(source, sink) as joined:
            await sink.until("complete", 2)
            assert joined.received(sink) < 35_000_000  # less than all, by far
            assert sink.contents() == source.contents()

    run(main)


def test_a_renamed_folder_costs_no_contents(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "old").mkdir()
        (source.data / "old" / "big").write_bytes(os.urandom(5_000_000))
        os.utime(source.data / "old" / "big", ns=(1_123_456_789, 1_123_456_789))
        async with Joined(source, sink) as joined:
            await sink.until("complete", 2)
            await source.until("followed")
            before = joined.received(sink)
            (source.data / "old").rename(source.data / "new")
            await source.changed()
            await until(lambda: sink.contents() == source.contents())
            assert joined.received(sink) - before < 10_000

    run(main)


def test_d13_names_that_cannot_be_told_are_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        for name in ("con", "a:b", "dot.", "UPPER", "upper", "good"):
            (source.data / name).write_bytes(name.encode())
        os.mkfifo(source.data / "fifo")
        (source.data / "out").symlink_to("/etc/passwd")
        async with Joined(source, sink):
            await sink.until("complete", 2)
            assert set(sink.contents()) == {"UPPER", "good"}
            assert {each.path for each in source.tree.refused} == {"con", "a:b", "dot.", "upper", "fifo", "out"}

    run(main)


def test_many_files_that_are_alike_all_arrive_also_after_a_cut(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        for number in range(600):
            (source.data / f"{number:03d}").write_bytes(b"the same")
        sink.may_change = lambda incomplete: False
        async with Joined(source, sink):
            await sink.until("permit")  # everything is staged, and stays so
        sink.may_change = lambda incomplete: True
        async with Joined(source, sink):
            await sink.until("complete", 2)
            assert sink.contents() == source.contents()

    run(main)
