"""A round is wholly old or wholly new after any interruption, and what it displaces is in the archive, once."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from agent.core.tree_entries import Entry, EntryKind
from agent.replica.applying import ArchiveError, apply
from agent.replica.archive import Archive
from agent.replica.file_system import FileSystem
from agent.replica.file_tree import fingerprint_of
from agent.replica.obstacles import obstacles
from agent.replica.staging import Staging
from agent.replica.standing import Patience
from agent.replica.steps import Applied, Archived, Blocked, Step, StepKind
from tests.replica.interrupted_disk import (
    FLUSHES,
    CountingDisk,
    Crash,
    CrashingDisk,
    FailingDisk,
    PowerLossDisk,
)
from tests.replica.rounds import SCENARIOS, Deed, Scenario, World, read_tree

# Every call is tried on Linux; on Windows, where the code is the same and a test machine slow, every seventh.
STRIDE = 7 if sys.platform == "win32" else 1


def links_work() -> bool:
    """True if this account may make symbolic links here: Windows grants that to few."""
    if sys.platform != "win32":
        return True
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.symlink("target", os.path.join(folder, "link"))
        except OSError:
            return False
        return os.path.islink(os.path.join(folder, "link"))  # Wine 8 says it made one, and made none


def scenarios() -> list[object]:
    lacking = pytest.mark.skipif(not links_work(), reason="this account may not make symbolic links")
    return [
        pytest.param(each, id=each.name.replace(" ", "-"), marks=[lacking] if each.links else []) for each in SCENARIOS
    ]


@pytest.fixture
def disk_path(tmp_path: Path) -> Iterator[Path]:
    """A folder for thousands of small rounds: in memory where the system has such a disk."""
    if sys.platform != "linux" or not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pair-agent-rounds-") as folder:
        yield Path(folder)


every_scenario = pytest.mark.parametrize("scenario", scenarios())
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits, pipes or second roots")


@every_scenario
def test_an_undisturbed_round_brings_the_tree_to_the_new_state(scenario: Scenario, tmp_path: Path) -> None:
    world = World(tmp_path, scenario)
    world.run(FileSystem())
    world.check_new()


@every_scenario
def test_d11_a_crash_between_any_two_calls_leaves_the_old_or_the_new_state(scenario: Scenario, disk_path: Path) -> None:
    at = 0
    while True:
        world = World(disk_path / str(at), scenario)
        disk = CrashingDisk(at)
        try:
            world.run(disk)
        except Crash:
            journalled = world.journal is not None or world.applied
            world.reboot()
            if journalled:
                world.check_new()
            else:
                world.check_old()
        else:
            world.check_new()
            break
        at += STRIDE
    assert at >= disk.calls > len(scenario.deeds)


@every_scenario
def test_d11_a_second_crash_while_rolling_forward_changes_nothing(scenario: Scenario, disk_path: Path) -> None:
    journalled_at = CountingDisk()
    whole = World(disk_path / "whole", scenario)
    whole.run(journalled_at, at_journal=lambda: setattr(journalled_at, "mark", journalled_at.calls))
    half_way = (getattr(journalled_at, "mark", 0) + journalled_at.calls) // 2
    at = 0
    while True:
        world = World(disk_path / str(at), scenario)
        with pytest.raises(Crash):
            world.run(CrashingDisk(half_way))
        if world.journal is None:  # on Windows attributes are one call, and there is no half of it
            return
        disk = CrashingDisk(at)
        try:
            world.reboot(disk)
        except Crash:
            world.reboot()
            world.check_new()
        else:
            world.check_new()
            break
        at += STRIDE


def no_second_name(*arguments: object) -> None:
    """In the place of `link`: the archive lies on another disk than the tree."""
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


@every_scenario
def test_d11_with_the_archive_on_another_disk_a_crash_anywhere_does_no_harm(
    scenario: Scenario, disk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CountingDisk, "link", no_second_name)
    at = 0
    while True:
        world = World(disk_path / str(at), scenario)
        disk = CrashingDisk(at)
        try:
            world.run(disk)
        except Crash:
            journalled = world.journal is not None or world.applied
            world.reboot()
            if journalled:
                world.check_new()
            else:
                world.check_old()
        else:
            world.check_new()
            break
        at += STRIDE


@on_posix
@pytest.mark.parametrize("loses", ["contents", "contents-other-disk", "names"])
@every_scenario
def test_d9_power_lost_at_any_call_loses_nothing(
    scenario: Scenario, loses: str, disk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loses == "contents-other-disk":
        monkeypatch.setattr(CountingDisk, "link", no_second_name)
    at = 0
    while True:
        world = World(disk_path / str(at), scenario)
        cellar = disk_path / f"{at}-cellar"
        cellar.mkdir()
        disk = PowerLossDisk(at, loses != "names", cellar)
        try:
            world.run(disk)
        except Crash:
            journalled = world.journal is not None or world.applied
            # What `run` dropped of the journal it had made durable before; then nothing of it may be lost.
            disk.lose(world.top, world.archive_folder)
            world.reboot()
            if journalled:
                assert world.tree() == scenario.after
                # Bringing names back changes ctimes here, so that more than necessary may have been kept.
                assert not Counter(scenario.archived) - world.archived()
                assert world.staging_left() == []
            else:
                world.check_old()
        else:
            break
        at += STRIDE


@every_scenario
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["no-space", "io-error"])
def test_d10_a_disk_that_fails_at_any_call_leaves_the_old_state_or_one_to_roll_forward(
    scenario: Scenario, number: int, disk_path: Path
) -> None:
    at = 0
    while True:
        world = World(disk_path / str(at), scenario)
        before = world.tree()
        disk = FailingDisk(at, number)
        try:
            world.run(disk)
        except ArchiveError:
            assert world.journal is not None
            assert world.tree() == before
            world.reboot()
            world.check_new()
        except OSError as error:
            if error.errno != number:
                raise
            if world.journal is None:
                assert world.tree() == before
                Staging(world.root).clean()
                world.check_old()
                world.run(CountingDisk())  # the next round
            else:
                world.reboot()
            world.check_new()
        else:
            world.reboot()  # a failure to tidy up is left to the next time
            assert world.tree() == scenario.after
        if disk.failed is None:
            break
        at += STRIDE


@every_scenario
def test_d10_what_failed_to_be_flushed_is_staged_anew_and_never_flushed_again(
    scenario: Scenario, disk_path: Path
) -> None:
    at = 0
    while True:
        world = World(disk_path / str(at), scenario)
        disk = FailingDisk(at, errno.EIO, FLUSHES)
        with contextlib.suppress(OSError, ArchiveError):
            world.run(disk)
        if disk.failed is None:
            break
        if disk.failed[0] == "flush" and world.journal is None:
            opened = [call[1] for call in disk.calls_made if call[0] == "open"]
            doubtful = opened[-1] if len(opened) else None
            assert doubtful is not None
            assert sum(1 for path in opened if not Path(str(path)).exists()) == 1
            assert len([path for path in opened if path == doubtful]) == 1
        at += STRIDE


def test_d9_what_is_archived_has_its_name_on_the_disk_before_anything_in_the_tree_changes(tmp_path: Path) -> None:
    """The archive may lie on another disk, which keeps no order with the tree's."""
    deeds = (
        Deed(StepKind.PUT_FILE, "a", b"new", archive=True, reason="edited here"),
        Deed(StepKind.REMOVE, "b", archive=True, reason="edited here"),
        Deed(StepKind.ARCHIVE_STAGED, "c", b"the other's", reason="both changed"),
    )
    world = World(tmp_path, Scenario("order", {"a": b"old", "b": b"old", "c": b"mine"}, deeds, {}))
    disk = FailingDisk(10_000, errno.EIO)
    world.run(disk)
    archive, tree = str(world.archive_folder), world.root.disk_path()
    kept = [at for at, call in enumerate(disk.calls_made) if call[0] == "link"]
    changed = [
        at
        for at, call in enumerate(disk.calls_made)
        if at > kept[0] and call[0] in ("replace", "remove") and str(call[-1]).startswith(tree)
    ]
    between = disk.calls_made[kept[-1] : changed[0]]
    flushed = [str(call[1]) for call in between if call[0] == "flush_folder"]
    assert len(kept) == 3
    assert sum(archive in path and path.endswith(world.root.name) for path in flushed) == 2  # of both batches
    assert any(path.endswith("archive") for path in flushed)


# -- what somebody does meanwhile, and what bars the way


def one_step(tmp_path: Path, step: Step, contents: bytes | None = None) -> tuple[list[object], World]:
    """Carries out one step in the tree `tmp_path`/tree."""
    world = World(tmp_path, Scenario("one step", {}, (), {}))
    staging = Staging(world.root)
    if contents is not None:
        assert step.entry is not None
        with staging.open() as file:
            file.write(contents)
            step = replace(step, staged=file.finish(step.entry.digest))
    outcomes: list[object] = list(
        apply(world.root, lambda: iter([step]), staging, world.archive(FileSystem()), patience=Patience(0.1))
    )
    staging.clean()
    return outcomes, world


def put(path: str, contents: bytes, **more: object) -> Step:
    entry = Entry(path, EntryKind.FILE, len(contents), 10**18, None, "", blake3(contents).digest())
    return replace(Step(StepKind.PUT_FILE, path, entry), **more)  # type: ignore[arg-type]  # of a test


@pytest.mark.skipif(not links_work(), reason="this account may not make symbolic links")
@pytest.mark.parametrize("kind", [StepKind.REMOVE, StepKind.PUT_FILE, StepKind.ATTRIBUTES])
def test_d13_a_folder_that_became_a_link_out_of_the_tree_leads_nobody_astray(kind: StepKind, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_bytes(b"not ours")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").symlink_to(outside)
    expected = fingerprint_of((outside / "passwd").lstat())
    step = replace(put("a/passwd", b"new"), kind=kind, archive=True, expected=expected)
    if kind is StepKind.REMOVE:
        step = replace(step, entry=None)
    _, world = one_step(tmp_path, step, b"new" if kind is StepKind.PUT_FILE else None)
    assert read_tree(outside) == {"passwd": b"not ours"}
    if kind is StepKind.PUT_FILE:
        assert world.tree() == {"a": None, "a/passwd": b"new"}
        assert world.archived() == Counter({("a", str(outside)): 1})


def test_a_file_that_bars_the_way_to_a_folder_goes_to_the_archive(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"bars the way")
    outcomes, world = one_step(tmp_path, put("a/b/c", b"new"), b"new")
    assert world.tree() == {"a": None, "a/b": None, "a/b/c": b"new"}
    assert world.archived() == Counter({("a", b"bars the way"): 1})
    assert [type(each) for each in outcomes] == [Archived, Applied]


def test_a_folder_that_holds_what_no_step_removes_stays_with_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "cache.tmp").write_bytes(b"excluded")
    outcomes, world = one_step(tmp_path, Step(StepKind.REMOVE, "a"))
    assert world.tree() == {"a": None, "a/cache.tmp": b"excluded"}
    assert outcomes == [Applied("a", None, None, "a")]


def test_a_file_that_was_changed_meanwhile_does_not_get_the_attributes_of_another(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"planned")
    expected = fingerprint_of((tmp_path / "tree" / "a").lstat())
    (tmp_path / "tree" / "a").write_bytes(b"something else")
    step = replace(put("a", b"planned"), kind=StepKind.ATTRIBUTES, expected=expected)
    outcomes, _ = one_step(tmp_path, step)
    assert outcomes == [Blocked("a", "it was changed on this node meanwhile")]
    assert (tmp_path / "tree" / "a").lstat().st_mtime_ns != 10**18


def test_new_contents_that_vanished_before_they_were_put_in_place_are_told(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"old")
    expected = fingerprint_of((tmp_path / "tree" / "a").lstat())
    outcomes, world = one_step(tmp_path, put("a", b"new", staged="gone", expected=expected))
    assert outcomes == [Blocked("a", "its new contents vanished from the staging folder")]
    assert world.tree() == {"a": b"old"}


def test_what_was_edited_after_it_was_put_in_place_is_left_for_the_next_scan_to_find(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"edited after the crash")
    step = put("a", b"new", staged="gone", archive=True)
    [outcome], world = one_step(tmp_path, step)
    assert isinstance(outcome, Applied)
    assert outcome.fingerprint is not None
    assert outcome.fingerprint.size == outcome.fingerprint.mtime_ns == 0
    assert world.tree() == {"a": b"edited after the crash"}


def test_a_name_that_is_spelled_otherwise_on_disk_keeps_its_spelling(tmp_path: Path) -> None:
    (tmp_path / "tree" / "e\u0301").mkdir(parents=True)
    outcomes, _ = one_step(tmp_path, put("\u00e9/a", b"new", name_on_disk="e\u0301/a"), b"new")
    assert (tmp_path / "tree" / "e\u0301" / "a").read_bytes() == b"new"
    assert isinstance(outcomes[0], Applied)
    assert (outcomes[0].path, outcomes[0].name_on_disk) == ("\u00e9/a", "e\u0301/a")


@on_posix
def test_a_replaced_file_keeps_owner_and_group_and_a_new_one_has_its_folders(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "old").write_bytes(b"old")
    os.chown(tree / "a", 1001, 1002)
    os.chown(tree / "a" / "old", 1003, 1004)
    one_step(tmp_path, put("a/old", b"new"), b"new")
    one_step(tmp_path, put("a/fresh", b"new"), b"new")
    one_step(tmp_path, put("a/b/c", b"new"), b"new")
    owners = {
        path.name: (path.lstat().st_uid, path.lstat().st_gid)
        for path in (tree / "a" / "old", tree / "a" / "fresh", tree / "a" / "b", tree / "a" / "b" / "c")
    }
    assert owners == {"old": (1003, 1004), "fresh": (1001, 1002), "b": (1001, 1002), "c": (1001, 1002)}


@on_posix
def test_permission_bits_come_from_the_entry_else_from_the_file_replaced(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "secret").write_bytes(b"old")
    (tree / "secret").chmod(0o600)
    one_step(tmp_path, put("secret", b"new"), b"new")
    step = put("tool", b"new")
    assert step.entry is not None
    one_step(tmp_path, replace(step, entry=replace(step.entry, mode=0o4755)), b"new")
    assert (tree / "secret").stat().st_mode & 0o7777 == 0o600
    assert (tree / "tool").stat().st_mode & 0o7777 == 0o755  # never set-user-id


@on_posix
def test_a_folder_that_its_owner_may_not_write_to_is_filled_first(tmp_path: Path) -> None:
    deeds = (
        Deed(StepKind.MAKE_FOLDER, "closed", mode=0o555),
        Deed(StepKind.MAKE_FOLDER, "closed/inner", mode=0o555),
        Deed(StepKind.PUT_FILE, "closed/inner/f", b"f"),
    )
    world = World(
        tmp_path, Scenario("closed", {}, deeds, {"closed": None, "closed/inner": None, "closed/inner/f": b"f"})
    )
    order: list[str] = []

    class Watched(FileSystem):
        def set_mode(self, target: int | str, mode: int) -> None:
            order.append(f"mode {Path(str(target)).name}")
            super().set_mode(target, mode)

        def replace(self, source: str, target: str) -> None:
            order.append(f"put {Path(target).name}")
            super().replace(source, target)

    world.run(Watched())
    assert order == ["mode inner", "mode closed", "put f"] or order.index("put f") < order.index("mode inner")
    assert (world.top / "closed").stat().st_mode & 0o777 == 0o555
    world.check_new()


# -- locked and forbidden (D12)


class LockedDisk(FileSystem):
    """Refuses to replace or remove one file, as Windows does while somebody has it open."""

    def __init__(self, path: str) -> None:
        self._path = path

    def replace(self, source: str, target: str) -> None:
        if target == self._path:
            raise PermissionError(errno.EACCES, "in use", target)
        super().replace(source, target)

    def remove(self, path: str) -> None:
        if path == self._path:
            raise PermissionError(errno.EACCES, "in use", path)
        super().remove(path)


def test_d12_a_locked_file_is_told_by_name_and_the_rest_goes_on(tmp_path: Path) -> None:
    deeds = (
        Deed(StepKind.PUT_FILE, "a", b"new a"),
        Deed(StepKind.PUT_FILE, "locked", b"new", archive=True, reason="edited here"),
        Deed(StepKind.PUT_FILE, "z", b"new z"),
    )
    world = World(tmp_path, Scenario("locked", {"locked": b"old"}, deeds, {}))
    outcomes = world.run(LockedDisk(world.root.disk_path("locked")))
    assert [each for each in outcomes if isinstance(each, Blocked)] == [Blocked("locked", "in use")]
    assert world.tree() == {"a": b"new a", "locked": b"old", "z": b"new z"}
    assert world.staging_left() == []
    # It stays in use: a second name in the archive would change with it.
    assert world.archived() == Counter()


def test_d12_a_folder_with_a_locked_file_is_told_as_well(tmp_path: Path) -> None:
    deeds = (Deed(StepKind.REMOVE, "d"), Deed(StepKind.REMOVE, "d/locked"), Deed(StepKind.REMOVE, "d/free"))
    world = World(tmp_path, Scenario("locked", {"d": None, "d/locked": b"old", "d/free": b"f"}, deeds, {}))
    outcomes = world.run(LockedDisk(world.root.disk_path("d/locked")))
    assert {each.path for each in outcomes if isinstance(each, Blocked)} == {"d", "d/locked"}
    assert world.tree() == {"d": None, "d/locked": b"old"}


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere an open file bars nobody")
def test_d12_windows_a_file_open_without_sharing_is_an_obstacle_and_bounds_the_patience(tmp_path: Path) -> None:
    deeds = (Deed(StepKind.PUT_FILE, "a", b"new a"), Deed(StepKind.PUT_FILE, "held", b"new"))
    world = World(tmp_path, Scenario("held", {"a": b"old", "held": b"old"}, deeds, {}))
    with (world.top / "held").open("rb"):  # Python shares reading and writing, not removal
        step = put("held", b"new", expected=fingerprint_of((world.top / "held").lstat()))
        assert [each.path for each in obstacles(world.root, [step, put("a", b"new")])] == ["held"]
        outcomes, _ = one_step(tmp_path, step, b"new")
        assert isinstance(outcomes[-1], Blocked)
    assert list(obstacles(world.root, [step])) == []


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere a file's own bits do not bar its removal")
def test_d12_windows_a_read_only_file_is_replaced_and_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_bytes(b"old")
        (tree / name).chmod(0o444)
    outcomes, world = one_step(tmp_path, put("a", b"new", archive=True, reason="edited"), b"new")
    assert isinstance(outcomes[-1], Applied)
    outcomes, world = one_step(tmp_path, Step(StepKind.REMOVE, "b"))
    assert world.tree() == {"a": b"new"}


def test_paths_beyond_260_characters_are_carried_out(tmp_path: Path) -> None:
    names = ["n" * 120] * 4
    folders = ["/".join(names[:depth]) for depth in range(1, 5)]
    steps = [Step(StepKind.MAKE_FOLDER, path, Entry(path, EntryKind.FOLDER)) for path in folders]
    for step in steps:
        one_step(tmp_path, step)
    outcomes, world = one_step(tmp_path, put(folders[-1] + "/f", b"new"), b"new")
    assert isinstance(outcomes[0], Applied)
    with open(world.root.disk_path(folders[-1] + "/f"), "rb") as file:
        assert file.read() == b"new"
    outcomes, _ = one_step(tmp_path, Step(StepKind.REMOVE, folders[-1] + "/f", archive=True, reason="x"))
    assert isinstance(outcomes[0], Archived)


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows' disks do not tell upper from lower case")
def test_windows_a_change_of_case_alone_survives_a_roll_forward(tmp_path: Path) -> None:
    deeds = (Deed(StepKind.REMOVE, "readme"), Deed(StepKind.PUT_FILE, "README", b"new"))
    scenario = Scenario("case", {"readme": b"old"}, deeds, {"README": b"new"})
    at = 0
    while True:
        world = World(tmp_path / str(at), scenario)
        disk = CrashingDisk(at)
        try:
            world.run(disk)
        except Crash:
            if world.journal is not None or world.applied:
                world.reboot()
                assert world.tree() == scenario.after
        else:
            break
        at += STRIDE


@on_posix
def test_d12_a_folder_that_may_not_be_written_to_is_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "closed").mkdir(parents=True)
    closed = str(tmp_path / "tree" / "closed")
    monkeypatch.setattr(os, "access", lambda path, mode, **more: str(path) != closed)
    world = World(tmp_path, Scenario("closed", {}, (), {}))
    found = list(obstacles(world.root, [put("closed/new/f", b"f"), put("open", b"f")]))
    assert [each.path for each in found] == ["closed/new/f"]


@on_posix
def test_a_stale_socket_or_pipe_in_the_way_is_replaced_and_not_archived(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree" / "run")
    _, world = one_step(tmp_path, put("run", b"new", archive=True, reason="overwrite"), b"new")
    assert world.tree() == {"run": b"new"}
    assert world.archived() == Counter()


def test_the_archive_of_another_round_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for contents in (b"first", b"second"):
        (tmp_path / "tree" / "a").write_bytes(contents)
        _, world = one_step(tmp_path, put("a", b"new", archive=True, reason="edited"), b"new")
    batches = Archive(world.archive_folder).batches()
    assert [batch.items for batch in batches] == [1, 1]
