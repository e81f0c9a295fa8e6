"""A round is wholly old or wholly new after any interruption, and what it displaces is in the archive, once."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.replica.applying import ArchiveError
from agent.replica.file_system import FileSystem
from agent.replica.staging import Staging
from agent.replica.steps import StepKind
from tests.replica.interrupted_disk import (
    FLUSHES,
    CountingDisk,
    Crash,
    CrashingDisk,
    FailingDisk,
    PowerLossDisk,
)
from tests.replica.rounds import SCENARIOS, Deed, Scenario, World, links_work, on_posix

# Every call is tried on Linux; on Windows, where the code is the same and a test machine slow, every seventh.
STRIDE = 7 if sys.platform == "win32" else 1


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
