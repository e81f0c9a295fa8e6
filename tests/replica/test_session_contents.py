"""Contents come over whole and unaltered, whatever happens to them on their way, on a disk, or while they are read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.replica import contents, gathering, sending, sink, sink_intake, source
from agent.replica.file_tree import fingerprint_of
from tests.replica.interrupted_disk import FailingDisk
from tests.replica.memory_connection import MemoryData, MemoryStream
from tests.replica.two_workers import FOLLOWING, SERVING, Joined, Worker, until


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "AGAIN_S", 0.1)
    monkeypatch.setattr(sink_intake, "AGAIN_S", 0.1)
    monkeypatch.setattr(source, "REFUSED_AGAIN_S", 0.1)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    workers = Worker(tmp_path / "a", SERVING), Worker(tmp_path / "b", FOLLOWING)
    yield workers
    for worker in workers:
        worker.close()


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


async def let_rot(worker: Worker, name: str, offset: int) -> None:
    """Flips a bit on a disk, which no time of the file tells of."""
    path = worker.data / name
    flip(path, offset)
    now = fingerprint_of(path.lstat())
    with worker.index._file.transaction() as connection:
        connection.execute(
            "UPDATE entry SET disk_mtime_ns = ?, ctime_ns = ? WHERE key = ?", (now.mtime_ns, now.ctime_ns, name)
        )
    await worker.changed()
    assert worker.index.row("data", name).entry.digest  # type: ignore[union-attr]


def test_d7_a_bit_that_flips_on_the_way_is_found_and_the_file_fetched_again(pair: tuple[Worker, Worker]) -> None:
    async def main() -> None:
        source_, sink_ = pair
        (source_.data / "big").write_bytes(os.urandom(3_000_000))
        (source_.data / "other").write_bytes(b"other")
        flipped: list[int] = []

        def spoil(end: MemoryStream, item: Any) -> Any:
            if isinstance(item, MemoryData) and not flipped:
                flipped.append(len(item.view))
                altered = bytearray(item.view)
                altered[len(altered) // 2] ^= 4
                return MemoryData(bytes(altered))
            return item

        async with Joined(source_, sink_, spoil=spoil):
            await sink_.until("complete", 2)
            await until(lambda: sink_.contents() == source_.contents())
        assert flipped

    trio.run(main)


def test_d7_a_bit_that_flipped_on_the_sinks_disk_is_found_by_a_full_comparison(pair: tuple[Worker, Worker]) -> None:
    async def main() -> None:
        source_, sink_ = pair
        (source_.data / "big").write_bytes(os.urandom(300_000))
        (source_.data / "small").write_bytes(b"small")
        async with Joined(source_, sink_):
            await source_.until("followed")
            await let_rot(sink_, "big", 100_000)
            await let_rot(sink_, "small", 1)
            assert sink_.session is not None
            sink_.session.restart(full=True)
            await until(lambda: sink_.contents() == source_.contents())

    trio.run(main)


@pytest.mark.long
def test_d14_a_file_that_is_written_all_the_time_never_comes_over_torn(
    pair: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        source_, sink_ = pair
        path = source_.data / "log"
        seen: set[bytes] = set()

        def write(number: int) -> None:
            data = (b"%08d" % number) * 10_000
            seen.add(data)
            path.write_bytes(data)

        write(0)
        async with Joined(source_, sink_):
            await sink_.until("complete", 2)
            for number in range(1, 40):
                write(number)
                await trio.sleep(0.004)
                await source_.changed()
                if (sink_.data / "log").exists():
                    assert (sink_.data / "log").read_bytes() in seen
            await until(lambda: sink_.contents() == source_.contents())

    trio.run(main)


def test_d14_a_file_that_never_rests_is_told_by_name_and_the_rest_goes_on(
    pair: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ATTEMPTS_S", 0.1)

    async def main() -> None:
        source_, sink_ = pair
        (source_.data / "calm").write_bytes(b"calm")
        writing = True

        async def write() -> None:
            number = 0
            while writing:
                number += 1
                (source_.data / "restless").write_bytes(b"%d" % number * 20_000)
                await trio.sleep(0.002)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(0.01)
            async with Joined(source_, sink_):
                await sink_.until("complete", 2)
                assert set(sink_.contents()) == {"calm"}
                assert "restless: it changes all the time" in sink_.sentences("name-refused")[0]
                writing = False
                await trio.sleep(0.01)
                await source_.changed()
                await until(lambda: sink_.contents() == source_.contents())

    trio.run(main)


def test_a_file_that_vanishes_before_it_is_read_is_no_trouble(pair: tuple[Worker, Worker]) -> None:
    async def main() -> None:
        source_, sink_ = pair
        for name in ("one", "two"):
            (source_.data / name).write_bytes(name.encode())
        (source_.data / "big").write_bytes(os.urandom(200_000))

        def spoil(end: MemoryStream, item: Any) -> Any:
            (source_.data / "one").unlink(missing_ok=True)
            (source_.data / "big").unlink(missing_ok=True)
            return item

        async with Joined(source_, sink_, spoil=spoil):
            await sink_.until("complete", 2)
            assert sink_.contents() == {"two": b"two"}
            assert sink_.sentences("name-refused") == []

    trio.run(main)


def test_five_thousand_small_files_come_over_in_one_round(pair: tuple[Worker, Worker]) -> None:
    async def main() -> None:
        source_, sink_ = pair
        for folder in range(50):
            (source_.data / str(folder)).mkdir()
            for number in range(100):
                (source_.data / str(folder) / str(number)).write_bytes(b"%d/%d" % (folder, number))
        async with Joined(source_, sink_):
            await sink_.until("complete", 2)
            assert sink_.told.count(("permission used",)) == 1
            assert sink_.contents() == source_.contents()

    trio.run(main)


def test_files_of_which_few_may_be_on_their_way_come_over_though_everything_arrives_during_a_flush(
    pair: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "AHEAD_BYTES", 100_000)
    monkeypatch.setattr(contents, "YOUNG_NS", 0)

    async def main() -> None:
        source_, sink_ = pair
        for number in range(4):
            (source_.data / str(number)).write_bytes(os.urandom(90_000))
        await source_.changed()
        await trio.sleep(0.05)
        async with Joined(source_, sink_) as joined:
            joined.connection.ends[1].flush_takes_s = 0.3
            await sink_.until("complete", 2)
            assert sink_.contents() == source_.contents()

    trio.run(main)


def test_d10_a_full_disk_is_told_and_changes_nothing_and_when_there_is_room_everything_comes(
    pair: tuple[Worker, Worker],
) -> None:
    async def main() -> None:
        source_, sink_ = pair
        (source_.data / "big").write_bytes(os.urandom(500_000))
        (source_.data / "one").write_bytes(b"one")
        sink_.local.disk = FailingDisk(0, errno.ENOSPC, ("write",))
        async with Joined(source_, sink_) as joined:
            await until(lambda: bool(sink_.sentences("disk-full")))
            assert sink_.contents() == {}
            await sink_.until("complete", 2)
            assert sink_.contents() == source_.contents()
            assert not joined.failures

    trio.run(main)


def test_i2_what_the_sink_could_not_take_is_kept_when_the_roles_turn(
    pair: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that another program holds is told by name; its new version exists on the source alone, and stays that."""
    monkeypatch.setattr(source, "REFUSED_AGAIN_S", 60.0)

    async def main() -> None:
        source_, sink_ = pair
        (source_.data / "held").write_bytes(b"old")
        async with Joined(source_, sink_):
            await source_.until("followed")
            (source_.data / "held").write_bytes(b"new")
            (source_.data / "new").write_bytes(b"not on the sink either")
            sink_.local.disk = Holding(sink_.data)
            await source_.changed()
            await until(lambda: source_.session is not None and bool(source_.session.source.refused("data")))
        assert sink_.contents() == {"held": b"old"}
        sink_.stand = replace(SERVING, primary=False, data_term=3, alone=True, base_term=2)
        source_.stand = replace(FOLLOWING, primary=True, data_term=2, alone=False, base_term=2)
        async with Joined(source_, sink_):
            await source_.until("complete", 3)
            assert source_.contents() == sink_.contents() == {"held": b"old"}
            assert source_.archived() == [b"new", b"not on the sink either"]

    trio.run(main)


def test_what_the_sink_could_not_take_is_told_again_by_the_next_connection(
    pair: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "REFUSED_AGAIN_S", 60.0)

    async def main() -> None:
        source_, sink_ = pair
        (source_.data / "held").write_bytes(b"old")
        async with Joined(source_, sink_):
            await source_.until("followed")
            (source_.data / "held").write_bytes(b"new")
            disk, sink_.local.disk = sink_.local.disk, Holding(sink_.data)
            await source_.changed()
            await until(lambda: bool(sink_.sentences("name-refused")))
        sink_.local.disk = disk
        async with Joined(source_, sink_):
            await until(lambda: sink_.contents() == source_.contents())

    trio.run(main)


class Holding(FailingDisk):
    """A disk on which another program holds every file of a tree."""

    def __init__(self, top: Path) -> None:
        super().__init__(-1, errno.EBUSY)
        self._top = str(top)

    def before(self, name: str, arguments: tuple[object, ...]) -> None:
        if name == "replace" and Path(str(arguments[1])).parent == Path(self._top):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
