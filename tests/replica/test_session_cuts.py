"""N14: a connection that breaks after any message of a round leaves whole trees, and the next one ends the same way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import trio

from tests.replica.two_workers import FOLLOWING, SERVING, Joined, Worker, contents_of, until

MESSAGES_MAX = 60  # of one short session


def make_pair(folder: Path) -> tuple[Worker, Worker]:
    return Worker(folder / "a", SERVING), Worker(folder / "b", FOLLOWING)


def write_first(top: Path) -> None:
    random = Random(1)
    (top / "folder" / "empty").mkdir(parents=True)
    for number in range(5):
        (top / "folder" / f"small {number}").write_bytes(b"small %d" % number)
    for number in range(2):
        (top / f"big {number}").write_bytes(random.randbytes(300_000))
    (top / "sparse").write_bytes(b"begin" + bytes(200_000))
    (top / "link").symlink_to("big 0")


def change(top: Path) -> None:
    with (top / "big 0").open("r+b") as file:
        file.seek(150_000)
        file.write(b"changed")
    (top / "big 1").rename(top / "moved")
    (top / "folder" / "small 0").unlink()
    (top / "folder" / "small 1").write_bytes(b"changed")
    (top / "folder" / "small 2").unlink()
    (top / "folder" / "small 2").mkdir()
    (top / "folder" / "small 2" / "inside").write_bytes(b"a folder now")
    (top / "new").write_bytes(b"new")


def inodes(top: Path) -> dict[str, int]:
    return {name: (top / name).lstat().st_ino for name, value in contents_of(top).items() if isinstance(value, bytes)}


def is_over(joined: Joined, source: Worker) -> Callable[[], bool]:
    return lambda: joined.over.is_set() or ("followed", 2) in source.told


async def synchronise(source: Worker, sink: Worker) -> None:
    async with Joined(source, sink):
        await source.until("followed")


async def check_after_cut(source: Worker, sink: Worker, states: tuple[object, object]) -> None:
    """What a cut leaves is one state or the other, and another connection makes it the last one, changing only that."""
    assert sink.contents() in states
    before = inodes(sink.data)
    was_through = sink.contents() == states[1]
    await synchronise(source, sink)
    assert sink.contents() == states[1]
    after = inodes(sink.data)
    if was_through:
        assert after == before, "put in place twice"
    assert sink.archived() == []
    assert not (sink.data / ".pair-agent").exists()
    source.close()
    sink.close()


def test_n14_a_first_copy_that_is_cut_at_any_message_is_gone_on_with(tmp_path: Path) -> None:
    async def main() -> None:
        for cut_after in range(1, MESSAGES_MAX):
            source, sink = make_pair(tmp_path / str(cut_after))
            write_first(source.data)
            async with Joined(source, sink, cut_after=cut_after) as joined:
                await until(is_over(joined, source))
                was_cut = joined.connection.broken
            await check_after_cut(source, sink, ({}, source.contents()))
            if not was_cut:
                return
        raise AssertionError("more messages than a short session should have")

    trio.run(main)


def test_n14_a_later_round_that_is_cut_at_any_message_is_gone_on_with(tmp_path: Path) -> None:
    async def main() -> None:
        for cut_after in range(1, MESSAGES_MAX):
            source, sink = make_pair(tmp_path / str(cut_after))
            write_first(source.data)
            await synchronise(source, sink)
            old = sink.contents()
            change(source.data)
            async with Joined(source, sink, cut_after=cut_after) as joined:
                await until(is_over(joined, source))
                was_cut = joined.connection.broken
            await check_after_cut(source, sink, (old, source.contents()))
            if not was_cut:
                return
        raise AssertionError("more messages than a short session should have")

    trio.run(main)


def test_n14_final_changes_that_are_cut_at_any_message_are_never_told_to_have_arrived_when_they_have_not(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        for cut_after in range(1, MESSAGES_MAX):
            source, sink = make_pair(tmp_path / str(cut_after))
            write_first(source.data)
            outcome: list[str] = []
            async with Joined(source, sink) as joined:
                await source.until("followed")
                old = sink.contents()
                change(source.data)
                assert source.session is not None
                joined.connection.cut_after = joined.connection.arrived_count + cut_after
                source.session.source.finish(7, outcome.append)
                await until(outcome.__len__)
                was_cut = joined.connection.broken
                if not was_cut:
                    assert outcome == [""]
                if outcome == [""]:
                    assert sink.contents() == source.contents()
            await check_after_cut(source, sink, (old, source.contents()))
            if not was_cut:
                return
        raise AssertionError("more messages than a short session should have")

    trio.run(main)


def test_n14_a_big_file_is_gone_on_with_however_often_it_is_cut_and_leaves_one_beginning_of_itself(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        source, sink = make_pair(tmp_path)
        (source.data / "big").write_bytes(os.urandom(40_000_000))
        os.utime(source.data / "big", (1, 1))
        arrived = []
        for cut_after in (20, 25, 12):
            async with Joined(source, sink, cut_after=cut_after) as joined:
                await until(joined.over.is_set)
            assert sink.contents() == {}
            staged = [path for path in (sink.data / ".pair-agent").rglob("*") if path.is_file()]
            arrived.append(sum(path.stat().st_size for path in staged))
            assert len(staged) <= 1
        assert arrived == sorted(arrived)
        assert arrived[0] >= 1_000_000
        await synchronise(source, sink)
        assert sink.contents() == source.contents()
        assert not (sink.data / ".pair-agent").exists()

    trio.run(main)
