"""Changes of a tree are told soon; what cannot be told is not called quiet."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agent.replica import watching
from agent.replica.file_tree import TreeRoot
from agent.replica.watching import Watcher
from tests.replica.tree_scene import TREE, root_at, write

SECONDS_MAX = 20
POSIX = sys.platform != "win32"
only_linux = pytest.mark.skipif(not POSIX, reason="Windows gives no such promise")


class Reports:
    """What a watcher told."""

    def __init__(self) -> None:
        self.dirty: set[str] = set()
        self.troubles: list[str] = []
        self._news = trio.Event()

    def note_dirty(self, tree: str, paths: set[str]) -> None:
        assert tree == TREE
        self.dirty |= paths
        self._ring()

    def note_trouble(self, tree: str, sentence: str) -> None:
        self.troubles.append(sentence)
        self._ring()

    def take(self) -> set[str]:
        dirty, self.dirty = self.dirty, set()
        return dirty

    async def until(self, told: Callable[[], bool]) -> None:
        while not told():
            self._news = trio.Event()
            await self._news.wait()

    def _ring(self) -> None:
        self._news.set()


@asynccontextmanager
async def watched(root: TreeRoot) -> AsyncIterator[tuple[Watcher, Reports]]:
    """Watches a tree; begins when the watches are in place."""
    watcher, reports = Watcher(), Reports()
    with trio.fail_after(SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.watch, [root], reports.note_dirty, reports.note_trouble)
            await reports.until(lambda: reports.dirty == {""} or bool(reports.troubles))
            reports.take()
            yield watcher, reports
            nursery.cancel_scope.cancel()


def test_a_tree_is_dirty_as_a_whole_when_watching_begins(tmp_path: Path) -> None:
    async def main() -> None:
        reports = Reports()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Watcher().watch, [root_at(tmp_path)], reports.note_dirty, reports.note_trouble)
            await reports.until(lambda: reports.dirty == {""})
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_changes_are_told_without_being_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "file")

    async def main() -> None:
        async with watched(root_at(tmp_path)) as (_, reports):
            write(tmp_path / "sub" / "file", "new")
            await reports.until(lambda: "sub/file" in reports.dirty)
            write(tmp_path / "fresh" / "deep" / "file")
            await reports.until(lambda: bool({"fresh", "fresh/deep/file"} & reports.dirty))
            (tmp_path / "sub" / "file").unlink()
            reports.take()
            await reports.until(lambda: "sub/file" in reports.dirty)

    trio.run(main)


@only_linux
def test_a_barrier_has_every_change_reported_that_was_made_before_it(tmp_path: Path) -> None:
    for name in ("a/file", "a/b/file", "c/file"):
        write(tmp_path / name)

    async def main() -> None:
        async with watched(root_at(tmp_path)) as (watcher, reports):
            changes: list[tuple[Callable[[], object], set[str]]] = [
                (lambda: write(tmp_path / "a" / "b" / "file", "new"), {"a/b/file"}),
                (lambda: (tmp_path / "c" / "file").unlink(), {"c/file"}),
                (lambda: os.chmod(tmp_path / "a" / "file", 0o600), {"a/file"}),
                (lambda: (tmp_path / "a").rename(tmp_path / "d"), {"a", "d"}),
                (lambda: write(tmp_path / "d" / "b" / "file", "newer"), {"d/b/file"}),
                (lambda: write(tmp_path / "new" / "x"), {"new"}),
                (lambda: write(tmp_path / "new" / "deep" / "x"), {"new/deep"}),
                (lambda: write(tmp_path / "new" / "deep" / "x", "again"), {"new/deep/x"}),
                (lambda: (tmp_path / "c").rmdir(), {"c"}),
                (lambda: write(tmp_path / "c" / "file"), {"c"}),
                (lambda: write(tmp_path / "c" / "file", "again"), {"c/file"}),
            ]
            for make, paths in changes:
                make()
                assert await watcher.barrier()
                assert paths <= reports.take() | {""}
            assert await watcher.barrier()
            assert reports.take() == set()

    trio.run(main)


@only_linux
def test_what_lies_in_a_new_folder_before_it_is_watched_is_not_missed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    write(outside / "a" / "b" / "file")
    tree.mkdir()

    async def main() -> None:
        async with watched(root_at(tree)) as (watcher, reports):
            outside.rename(tree / "moved-in")
            write(tree / "moved-in" / "a" / "b" / "file", "written before anyone looked")
            assert await watcher.barrier()
            assert reports.take() == {"moved-in"}
            write(tree / "moved-in" / "a" / "b" / "file", "and after")
            assert await watcher.barrier()
            assert reports.take() == {"moved-in/a/b/file"}

    trio.run(main)


@only_linux
def test_a_folder_that_was_moved_out_of_the_tree_is_no_longer_watched(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree / "a" / "b" / "file")

    async def main() -> None:
        async with watched(root_at(tree)) as (watcher, reports):
            (tree / "a").rename(tmp_path / "elsewhere")
            assert await watcher.barrier()
            assert reports.take() == {"a"}
            write(tmp_path / "elsewhere" / "b" / "file", "new")
            assert await watcher.barrier()
            assert reports.take() == set()

    trio.run(main)


@only_linux
def test_links_are_not_followed_and_what_is_not_replicated_is_not_told(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    write(outside / "file")
    for name in (".pair-agent/staging/x", ".git/config"):
        write(tree / name)
    (tree / "link").symlink_to(outside)

    async def main() -> None:
        async with watched(root_at(tree, ".git/", "*.tmp")) as (watcher, reports):
            write(outside / "file", "new")
            write(tree / ".pair-agent" / "staging" / "x", "new")
            write(tree / ".git" / "config", "new")
            write(tree / "x.tmp")
            (tree / os.fsdecode(b"\xff")).write_bytes(b"")
            assert await watcher.barrier()
            assert reports.take() == set()

    trio.run(main)


@only_linux
def test_a_decomposed_name_is_told_as_the_tree_knows_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with watched(root_at(tmp_path)) as (watcher, reports):
            write(tmp_path / "a\u0308")
            assert await watcher.barrier()
            assert reports.take() == {"\u00e4"}

    trio.run(main)


@only_linux
def test_many_changes_are_the_whole_tree(tmp_path: Path) -> None:
    async def main() -> None:
        async with watched(root_at(tmp_path)) as (watcher, reports):
            for number in range(1100):
                (tmp_path / f"file-{number}").write_bytes(b"")
            assert await watcher.barrier()
            assert "" in reports.take()

    trio.run(main)


@only_linux
def test_a_full_queue_makes_the_whole_tree_dirty_and_loses_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.replica import inotify_linux

    async def main() -> None:
        async with watched(root_at(tmp_path)) as (watcher, reports):
            read = inotify_linux.Inotify.read
            dropped = [True]

            def overflow(self: inotify_linux.Inotify) -> list[inotify_linux.Event]:
                events = read(self)
                if dropped:
                    dropped.clear()
                    return [inotify_linux.Event(-1, inotify_linux.OVERFLOW, "")]
                return events

            monkeypatch.setattr(inotify_linux.Inotify, "read", overflow)
            write(tmp_path / "new" / "file")
            assert await watcher.barrier()
            await reports.until(lambda: "" in reports.dirty)
            reports.take()
            write(tmp_path / "new" / "file", "again")
            assert await watcher.barrier()
            assert reports.take() == {"new/file"}

    trio.run(main)


def test_a_single_file_is_watched_also_over_its_replacement(tmp_path: Path) -> None:
    path = write(tmp_path / "settings.json")

    async def main() -> None:
        async with watched(root_at(path, single_file=True)) as (_, reports):
            for _ in range(2):
                os.replace(write(tmp_path / "other", "new"), path)
                await reports.until(lambda: reports.dirty == {""})
                reports.take()
            write(tmp_path / "beside")
            os.utime(path)
            await reports.until(lambda: reports.dirty == {""})

    trio.run(main)


def test_a_tree_that_cannot_be_watched_is_told_once_and_no_barrier_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.01)
    tree = tmp_path / "tree"

    async def main() -> None:
        async with watched(root_at(tree)) as (watcher, reports):
            assert not await watcher.barrier()
            await trio.sleep(0.1)  # some attempts
            (told,) = reports.troubles
            assert str(tree) in told
            tree.mkdir()  # and it heals by itself
            await reports.until(lambda: reports.dirty == {""})
            assert await watcher.barrier() == POSIX

    trio.run(main)


@only_linux
def test_a_tree_that_goes_away_is_told_and_watched_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0.01)
    tree = tmp_path / "tree"
    tree.mkdir()

    async def main() -> None:
        async with watched(root_at(tree)) as (watcher, reports):
            tree.rename(tmp_path / "elsewhere")
            await reports.until(lambda: bool(reports.troubles))
            assert not await watcher.barrier()
            reports.take()
            (tmp_path / "elsewhere").rename(tree)
            await reports.until(lambda: reports.dirty == {""})
            assert await watcher.barrier()

    trio.run(main)


@only_linux
@pytest.mark.parametrize(
    ("number", "setting"), [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "max_user_instances")]
)
def test_a_limit_of_the_system_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, setting: str
) -> None:
    from agent.replica import inotify_linux

    (tmp_path / "sub").mkdir()

    def refuse(self: inotify_linux.Inotify, folder: str, *, follow: bool = False) -> int:
        raise OSError(number, os.strerror(number))

    async def main() -> None:
        monkeypatch.setattr(inotify_linux.Inotify, "add", refuse)
        async with watched(root_at(tmp_path)) as (watcher, reports):
            assert setting in reports.troubles[0]
            assert not await watcher.barrier()

    trio.run(main)


def test_nothing_to_watch_is_nothing_to_do() -> None:
    async def main() -> None:
        watcher = Watcher()
        await watcher.watch([], lambda tree, paths: None, lambda tree, sentence: None)
        assert not await watcher.barrier()

    trio.run(main)
