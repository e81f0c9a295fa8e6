"""Steps are carried out safely whatever stands in their way, whoever changed it meanwhile, and on both systems."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from agent.core.tree_entries import Entry, EntryKind
from agent.replica.applying import apply
from agent.replica.archive import Archive
from agent.replica.file_system import FileSystem
from agent.replica.file_tree import fingerprint_of
from agent.replica.obstacles import obstacles
from agent.replica.staging import Staging
from agent.replica.standing import Patience
from agent.replica.steps import Applied, Archived, Blocked, Step, StepKind
from tests.replica.interrupted_disk import (
    Crash,
    CrashingDisk,
)
from tests.replica.rounds import Deed, Scenario, World, links_work, on_posix, read_tree

# -- what somebody does meanwhile, and what bars the way


def one_step(
    tmp_path: Path, step: Step, contents: bytes | None = None, files: FileSystem | None = None
) -> tuple[list[object], World]:
    """Carries out one step in the tree `tmp_path`/tree."""
    world = World(tmp_path, Scenario("one step", {}, (), {}))
    staging = Staging(world.root)
    if contents is not None:
        assert step.entry is not None
        with staging.open() as file:
            file.write(contents)
            step = replace(step, staged=file.finish(step.entry.digest))
    outcomes: list[object] = list(
        apply(world.root, lambda: iter([step]), staging, world.archive(FileSystem()), files, Patience(0.1))
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


def scan_will_find(outcome: object) -> bool:
    assert isinstance(outcome, Applied)
    assert outcome.fingerprint is not None
    return outcome.fingerprint.size == outcome.fingerprint.mtime_ns == 0


@pytest.mark.parametrize("standing", [b"edited after the crash", b"odd"])
def test_what_was_edited_after_it_was_put_in_place_is_left_for_the_next_scan_to_find(
    standing: bytes, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(standing)
    os.utime(tmp_path / "tree" / "a", ns=(10**18, 10**18 + 10**9))
    step = put("a", b"new", staged="gone", archive=True)
    [outcome], world = one_step(tmp_path, step)
    assert scan_will_find(outcome)
    assert world.tree() == {"a": standing}


def test_what_was_put_in_place_before_a_crash_is_known_by_its_contents(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"new")
    os.utime(tmp_path / "tree" / "a", ns=(10**18, 10**18))
    [outcome], _ = one_step(tmp_path, put("a", b"new", staged="gone"))
    assert isinstance(outcome, Applied)
    assert outcome.fingerprint == fingerprint_of((tmp_path / "tree" / "a").lstat())


def test_an_edit_right_after_a_file_was_put_in_place_is_left_for_the_next_scan_to_find(tmp_path: Path) -> None:
    class Hasty(FileSystem):
        """A disk on which somebody writes into each file the moment that it appears."""

        def replace(self, source: str, target: str) -> None:
            super().replace(source, target)
            Path(target).write_bytes(b"odd")

    [outcome], _ = one_step(tmp_path, put("a", b"new"), b"new", Hasty())
    assert scan_will_find(outcome)


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
        at += 7


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
