"""Trees of a real pair on disks that are full or forbid writing; the names tell the rows of FAULTS."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.tree_pair import TreePair, command, contents, reasons, running_tree_pair, sentences, tree_status

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="mounts and attributes of Linux"),
    pytest.mark.skipif(sys.platform != "win32" and os.geteuid() != 0, reason="mounting and chattr need root"),
]

SMALL = 2_500_000  # bytes of a disk


@contextlib.contextmanager
def small_disk(place: Path, size: int = SMALL) -> Iterator[None]:
    """A file system of `size` bytes at `place`, whatever stands there now moved into it."""
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        for path, written in before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(written)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path, spare: int = 0) -> None:
    """Writes a file until the disk is full but for `spare` bytes."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    os.truncate(path, max(0, path.stat().st_size - spare))


def test_d10_a_full_disk_is_an_alarm_the_old_files_stay_and_it_goes_on_when_there_is_space(tmp_path: Path) -> None:
    pair = TreePair(tmp_path)
    copy = pair.tree(pair.backup)
    with small_disk(copy):
        try:
            pair.start()
            before = contents(copy)
            fill(copy / "filler.tmp", spare=200_000)
            data = pair.tree(pair.primary)
            (data / "sub" / "two.bin").write_bytes(os.urandom(400_000))
            (data / "one.txt").write_text("changed together with what does not fit")
            pair.wait_for(lambda: bool(sentences(pair.backup, "disk-full")), "the alarm")
            assert "full" in sentences(pair.backup, "disk-full")[0]
            after = contents(copy)
            assert after["sub/two.bin"] == before["sub/two.bin"]
            pair.wait_for(lambda: "full" in tree_status(pair.backup, "data")["error"], "the reason in the status")
            assert not pair.backup.status()["readiness"]["ready"]
            pair.wait_for(lambda: "full" in reasons(pair.primary), "the reason on the active node")
            assert pair.primary.status()["role"] == "active"
            time.sleep(6)  # another attempt
            assert len(sentences(pair.backup, "disk-full")) == 1  # an alarm is told once
            (copy / "filler.tmp").unlink()
            pair.wait_in_sync()
            assert not list(copy.glob(".pair-agent/staging/*"))
            assert pair.backup.status()["readiness"]["ready"]
        finally:
            pair.close()


def test_d10_a_big_file_that_fits_only_in_part_stops_nothing_for_good(tmp_path: Path) -> None:
    pair = TreePair(tmp_path)
    copy, data = pair.tree(pair.backup), pair.tree(pair.primary)
    with small_disk(copy, 6_500_000):
        try:
            pair.start()
            (data / "big.bin").write_bytes(os.urandom(20_000_000))
            pair.wait_for(lambda: bool(sentences(pair.backup, "disk-full")), "the alarm")
            time.sleep(6)  # another attempt
            assert "full" in tree_status(pair.backup, "data")["error"]
            assert not pair.backup.status()["readiness"]["ready"]
            for node in pair.nodes:
                tested = command(node, "test", "sync")
                assert tested.returncode != 0
                assert "bytes free, and" in tested.stdout + tested.stderr
            (data / "big.bin").unlink()
            (data / "one.txt").write_text("after")
            pair.wait_in_sync()
        finally:
            pair.close()


def test_d10_a_full_state_directory_stops_nothing_for_good(tmp_path: Path) -> None:
    pair = TreePair(tmp_path)
    state, copy, data = pair.backup.directory / "state", pair.tree(pair.backup), pair.tree(pair.primary)
    state.mkdir(mode=0o700, exist_ok=True)
    with small_disk(state):
        try:
            pair.start()
            fill(state / "filler")
            for number in range(30):
                (data / f"meanwhile-{number}").write_text("x" * 1_000 * number)
            pair.wait_for(
                lambda: (
                    bool(sentences(pair.backup, "tree-trouble") + sentences(pair.backup, "sync-failed"))
                    or "full" in pair.backup.tail()
                ),
                "the trouble told",
            )
            assert pair.primary.status()["role"] == "active"
            assert (copy / "one.txt").read_text() == "one"
            (state / "filler").unlink()
            if pair.backup.process is not None and pair.backup.process.poll() is not None:
                pair.backup.start()
            pair.wait_in_order()
            pair.wait_in_sync()
        finally:
            pair.close()


def chattr(flag: str, path: Path) -> None:
    done = subprocess.run(["chattr", flag, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this file system knows no attributes: {done.stderr.strip()}")


def test_d12_what_may_not_be_written_is_named_the_rest_goes_on_and_it_is_mended_later(tmp_path: Path) -> None:
    with running_tree_pair(tmp_path) as pair:
        data, copy = pair.tree(pair.primary), pair.tree(pair.backup)
        stuck, gone = copy / "one.txt", copy / "sub" / "two.bin"
        try:
            chattr("+i", stuck)
            chattr("+i", gone)
            (data / "one.txt").write_text("may not be written there")
            (data / "sub" / "two.bin").unlink()
            (data / "other.txt").write_text("goes on")
            pair.wait_for(lambda: (copy / "other.txt").exists(), "the rest")
            for node in pair.nodes:
                pair.wait_for(
                    lambda node=node: (
                        {each["path"] for each in tree_status(node, "data").get("refused", ())}
                        == {"one.txt", "sub/two.bin"}
                    ),
                    f"both named on {node.name}",
                )
            told = sentences(pair.backup, "name-refused")
            assert all(name in " ".join(told) for name in ("one.txt", "sub/two.bin"))
            (data / "another.txt").write_text("still goes on")
            pair.wait_for(lambda: (copy / "another.txt").exists(), "the rest")
            assert len(tree_status(pair.backup, "data")["refused"]) == 2
            refused = command(pair.backup, "failover")  # not to a node that lacks something
            assert refused.returncode == 1
            assert "one.txt" in refused.stderr + pair.backup.status()["reason"]
            assert pair.primary.status()["role"] == "active"
            assert sentences(pair.backup, "name-refused") == told  # once, though it was tried again and again
            assert stuck.read_text() == "one"
        finally:
            chattr("-i", stuck)
            chattr("-i", gone)
        pair.wait_in_sync()
        pair.wait_for(lambda: tree_status(pair.primary, "data")["refused_total"] == 0, "nothing is refused any more")
        assert not (copy / "sub" / "two.bin").exists()


def test_d12_one_file_that_may_not_be_written_keeps_a_config_tree_wholly_old(tmp_path: Path) -> None:
    with running_tree_pair(tmp_path) as pair:
        flows, copy = pair.tree(pair.primary, "flows"), pair.tree(pair.backup, "flows")
        before = contents(copy)
        try:
            chattr("+i", copy / "flow.json")
            (flows / "flow.json").write_text('{"new": true}')
            (flows / "another.json").write_text('{"new": true}')
            pair.wait_for(lambda: "flow.json" in tree_status(pair.backup, "flows").get("error", ""), "it is named")
            assert "changes as one" in " ".join(sentences(pair.backup, "sync-failed"))
            assert contents(copy) == before
        finally:
            chattr("-i", copy / "flow.json")
        pair.wait_in_sync()
