"""What is staged is what was asked for, is on the disk after the flush, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from agent.config.model import TreeKind
from agent.replica import staging as staging_module
from agent.replica.file_system import CAN_SYNC_ALL, FileSystem
from agent.replica.file_tree import TreeRoot
from agent.replica.staged_file import HOLE_BYTES_MIN, READ_BYTES
from agent.replica.staging import FLUSH_EACH_MAX, ContentsDiffer, Staging
from tests.replica.interrupted_disk import CHANGES, FailingDisk

MTIME_NS = 1_700_000_000_000_000_000


def root_at(path: Path, name: str = "flows", single_file: bool = False) -> TreeRoot:
    return TreeRoot(name, TreeKind.DATA, path, (), single_file)


def stage(staging: Staging, contents: bytes, mtime_ns: int | None = None) -> str:
    with staging.open(len(contents)) as file:
        file.write(contents)
        return file.finish(blake3(contents).digest(), mtime_ns=mtime_ns)


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_a_staged_file_holds_what_was_written_with_its_time(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    name = stage(staging, b"contents", MTIME_NS)
    path = Path(staging.path(name))
    assert path.read_bytes() == b"contents"
    assert path.stat().st_mtime_ns == MTIME_NS
    assert path.parent.parent.samefile(tmp_path / ".pair-agent")
    assert staging.holds(name, blake3(b"contents").digest())
    staging.flush([name])
    staging.clean()
    assert list(tmp_path.iterdir()) == []


def test_the_root_of_a_new_tree_is_made(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path / "not" / "yet"))
    name = stage(staging, b"x")
    staging.flush([name])
    assert Path(staging.path(name)).exists()
    staging.clean()


def test_d7_contents_with_another_digest_are_thrown_away(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    file = staging.open()
    file.write(b"a bit flipped")
    with pytest.raises(ContentsDiffer):
        file.finish(blake3(b"a bit flippee").digest())
    assert left(tmp_path) == []
    file.abandon()  # does nothing any more


def test_d7_a_staged_file_that_rotted_is_not_reused(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    name = stage(staging, b"contents")
    digest = blake3(b"contents").digest()
    assert staging.holds(name, digest)
    Path(staging.path(name)).write_bytes(b"contentz")
    assert not staging.holds(name, digest)
    assert not staging.holds("unknown", digest)


@pytest.mark.parametrize("seed", range(20))
def test_writes_zeros_and_copies_add_up_in_any_order(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    old = chance.randbytes(3 * READ_BYTES + 17)
    (tmp_path / "old").write_bytes(old)
    staging = Staging(root_at(tmp_path))
    model = bytearray()
    file = staging.open()
    for _ in range(chance.randrange(1, 12)):
        match chance.randrange(3):
            case 0:
                data = chance.randbytes(chance.choice((0, 1, 5000, READ_BYTES)))
                file.write(memoryview(data))
                model += data
            case 1:
                count = chance.choice((0, 1, HOLE_BYTES_MIN - 1, HOLE_BYTES_MIN, 2 * READ_BYTES + 3))
                file.write_zeros(count)
                model += bytes(count)
            case _:
                offset = chance.randrange(len(old))
                length = chance.choice((1, 4096, 200_000, len(old)))
                length = min(length, len(old) - offset)
                file.copy_from(tmp_path / "old", offset, length)
                model += old[offset : offset + length]
    assert file.size == len(model)
    name = file.finish(blake3(bytes(model)).digest())
    assert Path(staging.path(name)).read_bytes() == bytes(model)
    staging.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Wine does not say how much space a file takes")
def test_zeros_take_no_space(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    with staging.open() as file:
        file.write(b"begin")
        file.write_zeros(64 * READ_BYTES)
        name = file.finish(blake3(b"begin" + bytes(64 * READ_BYTES)).digest())
    status = os.stat(staging.path(name))
    assert status.st_size == 5 + 64 * READ_BYTES
    assert status.st_blocks * 512 < READ_BYTES
    staging.close()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_that_cannot_copy_is_done_without(number: int, tmp_path: Path) -> None:
    old = random.Random(1).randbytes(300_000)
    (tmp_path / "old").write_bytes(old)
    disk = FailingDisk(0, number, ("copy_range",))
    staging = Staging(root_at(tmp_path), disk)
    with staging.open() as file:
        file.copy_from(tmp_path / "old", 1, 299_000)
        name = file.finish(blake3(old[1:299_001]).digest())
    assert Path(staging.path(name)).read_bytes() == old[1:299_001]
    staging.close()


def test_a_source_of_a_copy_that_became_shorter_is_told(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(100_000))
    staging = Staging(root_at(tmp_path))
    with staging.open() as file, pytest.raises(ContentsDiffer, match="shorter"):
        file.copy_from(tmp_path / "old", 50_000, 100_000)
    assert left(tmp_path / ".pair-agent") == []
    staging.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there the kernel copies nothing")
def test_a_copy_is_hashed_as_it_arrived(tmp_path: Path) -> None:
    """A file that is changed between being read and being copied must not get the digest of its old contents."""
    old = tmp_path / "old"
    old.write_bytes(b"a" * 200_000)

    class Changing(FileSystem):
        def copy_range(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
            old.write_bytes(b"b" * 200_000)
            return super().copy_range(source, target, count, source_offset, target_offset)

    staging = Staging(root_at(tmp_path), Changing())
    with staging.open() as file:
        file.copy_from(old, 0, 200_000)
        with pytest.raises(ContentsDiffer):
            file.finish(blake3(b"a" * 200_000).digest())
    staging.close()


def test_n9_a_file_that_was_left_unfinished_is_gone_on_with(tmp_path: Path) -> None:
    whole = random.Random(2).randbytes(2 * READ_BYTES + 5)
    first = Staging(root_at(tmp_path))
    file = first.open(len(whole))
    file.write(whole[: READ_BYTES + 1])
    name = file.leave()
    first.close()

    second = Staging(root_at(tmp_path))
    resumed = second.resume(name)
    assert resumed is not None
    assert resumed.size == READ_BYTES + 1
    resumed.write(whole[resumed.size :])
    assert resumed.finish(blake3(whole).digest()) == name
    assert Path(second.path(name)).read_bytes() == whole
    assert second.resume("unknown") is None
    second.clean()


def test_d1_a_new_process_reuses_what_it_keeps_and_removes_the_rest(tmp_path: Path) -> None:
    before = Staging(root_at(tmp_path))
    kept, dropped = stage(before, b"kept"), stage(before, b"dropped")
    torn = before.open()
    torn.write(b"half")
    torn.leave()
    before.close()

    after = Staging(root_at(tmp_path))
    after.clean(keep={kept})
    assert left(tmp_path) == [kept]
    assert after.holds(kept, blake3(b"kept").digest())
    assert stage(after, b"new") not in (kept, dropped)
    after.clean()
    assert list(tmp_path.iterdir()) == []


def test_two_single_files_in_one_folder_do_not_share_what_is_staged(tmp_path: Path) -> None:
    one = Staging(root_at(tmp_path / "a.conf", "one", single_file=True))
    two = Staging(root_at(tmp_path / "b.conf", "two", single_file=True))
    name = stage(one, b"1")
    stage(two, b"2")
    two.clean()
    assert one.holds(name, blake3(b"1").digest())
    assert Path(one.path(name)).parent.parent.samefile(tmp_path / ".pair-agent")
    one.clean()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="few accounts may make links there")
def test_d13_a_link_in_the_place_of_the_staging_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ".pair-agent").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        Staging(root_at(tmp_path / "tree")).open()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows gives what is staged the rights of the tree")
def test_nobody_else_can_look_at_what_is_staged(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    stage(staging, b"secret")
    assert Path(staging.folder).stat().st_mode & 0o077 == 0
    staging.clean()


@pytest.mark.parametrize("kind", ["create", "write", "set_times", "close"])
def test_d10_a_failure_while_staging_leaves_no_file(kind: str, tmp_path: Path) -> None:
    disk = FailingDisk(0, errno.ENOSPC, (kind,))
    staging = Staging(root_at(tmp_path), disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        stage(staging, b"contents", MTIME_NS)
    assert disk.failed is not None
    staging.clean()
    assert left(tmp_path) == []


def test_d10_after_a_failed_flush_the_file_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    disk = FailingDisk(1, errno.EIO, ("flush",))
    staging = Staging(root_at(tmp_path), disk)
    names = [stage(staging, bytes([number])) for number in range(3)]
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        staging.flush(names)
    assert left(tmp_path) == sorted((names[0], names[2]))
    staging.flush([names[0], names[2]])
    flushed = [call for call in disk.calls_made if call[0] == "flush"]
    assert len(flushed) == 5  # each once at first, and the two others once more: the failed one never again
    staging.clean()


@pytest.mark.skipif(sys.platform == "win32", reason="few accounts may make links there")
def test_a_staged_link_that_leads_nowhere_is_flushed_with_its_name(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    name = staging.link("gone/away")
    staging.flush([name, stage(staging, b"x")])
    assert os.readlink(staging.path(name)) == "gone/away"
    staging.clean()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not CAN_SYNC_ALL, reason="this system has no flush of a whole disk that tells failures")
def test_d10_after_a_failed_flush_of_many_all_of_them_are_gone(tmp_path: Path) -> None:
    disk = FailingDisk(0, errno.EIO, ("flush_all",))
    staging = Staging(root_at(tmp_path), disk)
    names = [stage(staging, bytes([number])) for number in range(FLUSH_EACH_MAX + 1)]
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        staging.flush(names)
    assert left(tmp_path) == []
    assert [call[0] for call in disk.calls_made if "flush" in str(call[0])] == ["flush_all"]
    staging.clean()


def test_many_files_are_flushed_one_by_one_where_the_disk_has_no_flush_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_module, "CAN_SYNC_ALL", False)
    disk = FailingDisk(10_000, errno.EIO)
    staging = Staging(root_at(tmp_path), disk)
    names = [stage(staging, bytes([number])) for number in range(FLUSH_EACH_MAX + 1)]
    staging.flush(names)
    assert [call[0] for call in disk.calls_made].count("flush") == len(names)
    staging.clean()


def test_the_names_of_staged_files_are_flushed_too(tmp_path: Path) -> None:
    disk = FailingDisk(10_000, errno.EIO)
    staging = Staging(root_at(tmp_path), disk)
    staging.flush([stage(staging, b"x")])
    flushed = [Path(str(call[1])).name for call in disk.calls_made if call[0] == "flush_folder"]
    assert flushed == ["staging-flows", ".pair-agent", tmp_path.name]
    staging.clean()


def test_a_time_that_no_system_can_set_is_brought_into_range(tmp_path: Path) -> None:
    staging = Staging(root_at(tmp_path))
    for mtime_ns in (-(10**30), 10**30):
        name = stage(staging, b"x", mtime_ns)
        assert os.stat(staging.path(name)).st_mtime >= 0
    staging.clean()


def test_the_free_space_is_told_also_before_the_root_is_there(tmp_path: Path) -> None:
    assert Staging(root_at(tmp_path / "not" / "yet")).free_bytes() > 0


def test_every_call_of_the_disk_is_counted_by_the_tests() -> None:
    """A new method of FileSystem must not escape the disks that fail on order."""
    assert {"create", "write", "replace", "link", "flush", "flush_all", "remove"} <= set(CHANGES)
