"""Trees of every shape come over; and where the two nodes' places do not fit, nothing is taken for deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from agent.config.model import TreeKind
from agent.replica import sink, sink_intake
from agent.replica.worker_protocol import Stand
from tests.replica.two_workers import FOLLOWING, SERVING, Joined, Worker, until


@pytest.fixture(autouse=True)
def _tries_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "AGAIN_S", 0.05)
    monkeypatch.setattr(sink_intake, "AGAIN_S", 0.05)


def worker(folder: Path, stand: Stand, *, place: str = "data", makes_place: bool = True, **more: object) -> Worker:
    return Worker(folder, stand, place=place, makes_place=makes_place, **more)  # type: ignore[arg-type]


async def problem_of(source: Worker, sink_: Worker) -> str:
    """Joins both until the sink tells what is wrong, and returns that."""
    async with Joined(source, sink_):
        await until(lambda: bool(sink_.sentences("sync-failed")))
        await trio.sleep(0.2)
        assert ("complete", 2) not in sink_.told
        assert len(sink_.sentences("sync-failed")) == 1, "told once, however often it is tried"
    return sink_.sentences("sync-failed")[0]


def test_an_empty_tree_comes_over(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink_ = worker(tmp_path / "a", SERVING), worker(tmp_path / "b", FOLLOWING, makes_place=False)
        async with Joined(source, sink_):
            await source.until("followed")
        assert sink_.data.is_dir()
        assert sink_.contents() == {}

    trio.run(main)


def test_an_empty_file_and_an_empty_folder_come_over(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink_ = worker(tmp_path / "a", SERVING), worker(tmp_path / "b", FOLLOWING)
        (source.data / "file").touch()
        (source.data / "folder").mkdir()
        async with Joined(source, sink_):
            await source.until("followed")
            assert sink_.contents() == {"file": b"", "folder": None}
            (source.data / "file").write_bytes(b"full")
            await source.changed()
            await until(lambda: sink_.contents()["file"] == b"full")
            (source.data / "file").write_bytes(b"")
            await source.changed()
            await until(lambda: sink_.contents()["file"] == b"")

    trio.run(main)


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_a_tree_that_is_one_file_comes_over_and_follows_every_change(tmp_path: Path, size: int) -> None:
    async def main() -> None:
        source = worker(tmp_path / "a", SERVING, place="app.conf", makes_place=False)
        sink_ = worker(tmp_path / "b", FOLLOWING, place="app.conf", makes_place=False)
        source.data.write_bytes(b"x" * size)
        (sink_.folder / "beside").write_bytes(b"no part of the tree")
        async with Joined(source, sink_):
            await source.until("followed")
            assert sink_.data.read_bytes() == b"x" * size
            source.data.write_bytes(b"changed")
            await source.changed()
            await until(lambda: sink_.data.read_bytes() == b"changed")
            sink_.data.write_bytes(b"edited")
            await sink_.changed()
            await until(lambda: sink_.data.read_bytes() == b"changed")
        assert {path.name for path in sink_.folder.iterdir()} == {"app.conf", "beside", "state"}
        assert sink_.archived() == []  # a tree of this name lies there as a file itself
        archived = [path.read_bytes() for path in (sink_.folder / "state" / "archive").glob("*/data") if path.is_file()]
        assert archived == [b"edited"]

    trio.run(main)


@pytest.mark.parametrize("source_is_file", [True, False])
def test_a_file_here_and_a_folder_there_is_told_and_nothing_is_changed(tmp_path: Path, source_is_file: bool) -> None:
    async def main() -> None:
        source = worker(tmp_path / "a", SERVING, makes_place=not source_is_file)
        sink_ = worker(tmp_path / "b", FOLLOWING, makes_place=source_is_file)
        for each in (source, sink_):
            (each.data / "inside" if each.data.is_dir() else each.data).write_bytes(b"its own")
        there, here = ("a file", "a folder") if source_is_file else ("a folder", "a file")
        problem = await problem_of(source, sink_)
        assert f"is {here} here and {there} on the other node; mend one of the paths" in problem
        assert (sink_.data / "inside" if source_is_file else sink_.data).read_bytes() == b"its own"

    trio.run(main)


def test_a_tree_that_is_missing_on_the_source_deletes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink_ = worker(tmp_path / "a", SERVING), worker(tmp_path / "b", FOLLOWING)
        (source.data / "one").write_bytes(b"one")
        async with Joined(source, sink_):
            await source.until("followed")
            shutil.rmtree(source.data)  # a disk that is not mounted
            await source.changed()
            await until(lambda: bool(sink_.sentences("sync-failed")))
            assert "is gone: nothing is taken for deleted" in sink_.sentences("sync-failed")[0]
            assert sink_.contents() == {"one": b"one"}
        assert "it does not exist on the other node; nothing is taken for deleted" in await problem_of(source, sink_)
        assert sink_.contents() == {"one": b"one"}

    trio.run(main)


def test_a_tree_that_vanished_on_the_sink_is_told_and_an_order_brings_it_into_an_empty_folder(tmp_path: Path) -> None:
    async def main() -> None:
        source, sink_ = worker(tmp_path / "a", SERVING), worker(tmp_path / "b", FOLLOWING)
        (source.data / "one").write_bytes(b"one")
        async with Joined(source, sink_):
            await source.until("followed")
        shutil.rmtree(sink_.data)
        problem = await problem_of(source, sink_)
        assert (
            "is gone; bring it back, or make an empty folder and run `pair-agent sync` to receive everything anew"
            in problem
        )
        assert not sink_.data.exists()
        async with Joined(source, sink_):
            await until(lambda: bool(sink_.sentences("sync-failed")))
            sink_.data.mkdir()
            assert sink_.session is not None
            sink_.session.restart(full=False)
            await until(lambda: sink_.contents() == source.contents())

    trio.run(main)


def test_trees_of_different_kinds_are_told_and_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        source = worker(tmp_path / "a", SERVING, kind=TreeKind.CONFIG)
        sink_ = worker(tmp_path / "b", FOLLOWING)
        (source.data / "one").write_bytes(b"one")
        assert 'its kind is "data" here and "config" there; set the same on both' in await problem_of(source, sink_)
        assert sink_.contents() == {}

    trio.run(main)


def test_a_tree_that_only_one_node_has_is_told_on_the_sink_and_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        source = worker(tmp_path / "a", SERVING, tree_name="other")
        sink_ = worker(tmp_path / "b", FOLLOWING)
        (sink_.data / "one").write_bytes(b"one")
        assert "no tree of this name is configured on the other node" in await problem_of(source, sink_)
        assert sink_.contents() == {"one": b"one"}

    trio.run(main)


def test_a_config_tree_changes_as_one_or_not_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        source = worker(tmp_path / "a", SERVING, kind=TreeKind.CONFIG)
        sink_ = worker(tmp_path / "b", FOLLOWING, kind=TreeKind.CONFIG)
        for name in ("one", "two"):
            (source.data / name).write_bytes(b"old")
        async with Joined(source, sink_):
            await source.until("followed")
            assert ("config applied", "data") in sink_.told
            for name in ("one", "two"):
                (source.data / name).write_bytes(b"new")
            await source.changed()
            (source.data / "two").unlink()
            (source.data / "two").symlink_to("one")  # no file any more, though it was told as one
            await until(lambda: bool(sink_.sentences("sync-failed")) or sink_.contents() == source.contents())
            assert sink_.contents() in ({"one": b"old", "two": b"old"}, {"one": b"new", "two": "one"})
            await source.changed()
            await until(lambda: sink_.contents() == {"one": b"new", "two": "one"})

    trio.run(main)
