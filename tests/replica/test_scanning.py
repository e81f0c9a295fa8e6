"""A scan tells what stands in a tree, refuses by name what cannot be replicated, and never takes unknown for gone."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.config.model import Tree, TreeKind
from agent.core.errors import TreeError
from agent.core.tree_entries import EntryKind
from agent.replica.file_tree import Found, Refused, tree_root
from agent.replica.open_folder import OpenFolder
from agent.replica.scanning import Scanner
from tests.replica.tree_scene import WRITTEN_NS, root_at, scan, write

POSIX = sys.platform != "win32"
only_posix = pytest.mark.skipif(not POSIX, reason="Windows has no such thing in its file systems")
case_sensitive = pytest.mark.skipif(not POSIX, reason="Windows' file systems do not hold both names")
has_links = pytest.mark.skipif(not POSIX, reason="making links needs a privilege on Windows, and Wine makes none")
not_root = pytest.mark.skipif(not POSIX or os.geteuid() == 0, reason="nothing is unreadable to root")


def items(path: Path, under: str = "", *exclude: str) -> list[Found | Refused]:
    return list(Scanner().scan(root_at(path, *exclude), under))


@contextmanager
def unreadable(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> Iterator[None]:
    """Lets a folder fail to be opened, as it does without permission, also for root."""
    enter = OpenFolder.enter

    def fail(self: OpenFolder, called: str) -> OpenFolder:
        if called == name:
            raise error
        return enter(self, called)

    with monkeypatch.context() as patch:
        patch.setattr(OpenFolder, "enter", fail)
        yield


def test_a_folder_comes_before_its_content_and_names_in_the_order_of_code_points(tmp_path: Path) -> None:
    for name in ("b/z", "b/a/deep", "b a", "b.txt", "a", "Z", "é"):
        write(tmp_path / name)
    assert scan(root_at(tmp_path))[0] == ["Z", "a", "b", "b/a", "b/a/deep", "b/z", "b a", "b.txt", "é"]


def test_a_file_is_found_with_size_time_and_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "file", "12345")
    folder, file = items(tmp_path)
    assert isinstance(folder, Found)
    assert isinstance(file, Found)
    assert folder.entry.kind is EntryKind.FOLDER
    assert (file.entry.size, file.entry.mtime_ns, file.entry.digest) == (5, WRITTEN_NS, b"")
    assert (file.fingerprint.size, file.fingerprint.mtime_ns) == (5, WRITTEN_NS)
    assert file.fingerprint.inode != 0
    assert (file.fingerprint.ctime_ns != 0) == POSIX
    assert (file.entry.mode is not None) == POSIX


@only_posix
def test_permission_bits_come_along_but_never_the_right_to_be_another_user(tmp_path: Path) -> None:
    write(tmp_path / "tool").chmod(0o4755)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2775)
    shared, tool = items(tmp_path)
    assert isinstance(shared, Found)
    assert isinstance(tool, Found)
    assert (shared.entry.mode, tool.entry.mode) == (0o2775, 0o755)


def test_excluded_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("keep.txt", "drop.tmp", ".git/config", "sub/.git/config", "sub/x.tmp", "sub/keep.tmp"):
        write(tmp_path / name)
    exclude = ("*.tmp", ".git/", "!sub/keep.tmp")
    assert scan(root_at(tmp_path, *exclude))[0] == ["keep.txt", "sub", "sub/keep.tmp"]
    scanner, root = Scanner(), root_at(tmp_path, *exclude)
    assert scanner.excluded(root, "sub/.git/config", folder=False)
    assert not scanner.excluded(root, "sub/keep.tmp", folder=False)
    assert not scanner.excluded(root, ".git", folder=False)


def test_the_agents_own_folder_in_the_root_is_left_out_and_nowhere_else(tmp_path: Path) -> None:
    write(tmp_path / ".pair-agent" / "staging" / "x")
    write(tmp_path / "sub" / ".pair-agent" / "x")
    found, refused = scan(root_at(tmp_path))
    assert found == ["sub", "sub/.pair-agent", "sub/.pair-agent/x"]
    assert refused == {}


@case_sensitive
def test_what_resembles_the_agents_own_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / ".PAIR-agent" / "x")
    found, refused = scan(root_at(tmp_path))
    assert found == []
    assert list(refused) == [".PAIR-agent"]


@case_sensitive
def test_of_names_that_differ_in_case_only_the_first_stays_with_what_is_in_it(tmp_path: Path) -> None:
    for name in ("Data/one", "data/two", "x", "X"):
        write(tmp_path / name)
    found, refused = scan(root_at(tmp_path))
    assert found == ["Data", "Data/one", "X"]
    assert set(refused) == {"data", "x"}
    assert '"Data"' in refused["data"]


@only_posix
def test_of_two_unicode_forms_of_a_name_one_stays(tmp_path: Path) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "ä.txt"), unicodedata.normalize("NFD", "ä.txt")
    write(tmp_path / composed)
    write(tmp_path / decomposed)
    found, refused = scan(root_at(tmp_path))
    assert found == [composed]
    assert list(refused) == [composed]


@only_posix
def test_a_decomposed_name_keeps_its_name_on_disk(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "größe")
    write(tmp_path / decomposed / "x")
    folder, file = items(tmp_path)
    assert isinstance(folder, Found)
    assert isinstance(file, Found)
    assert (folder.entry.path, folder.name_on_disk) == ("größe", decomposed)
    assert (file.entry.path, file.name_on_disk) == ("größe/x", f"{decomposed}/x")
    assert items(tmp_path, "größe/x") == [file]


@only_posix
def test_names_that_no_other_node_could_hold_are_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    for name in ("con.txt", "a:b", "trailing.", "fine"):
        write(tmp_path / name)
    (tmp_path / os.fsdecode(b"latin-\xe4")).write_bytes(b"")
    write(tmp_path / "NUL" / "below")
    found, refused = scan(root_at(tmp_path))
    assert found == ["fine"]
    assert set(refused) == {"con.txt", "a:b", "trailing.", "latin-\\udce4", "NUL"}
    assert all(each.encode() and each.isprintable() for each in refused)


@only_posix
def test_devices_sockets_and_fifos_are_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path must be short
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        write(tmp_path / "file")
        found, refused = scan(root_at(tmp_path))
    assert found == ["file"]
    assert "FIFO" in refused["fifo"]
    assert "socket" in refused["socket"]


@has_links
def test_links_within_the_tree_are_kept_others_refused_none_followed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    write(outside / "secret")
    write(tree / "sub" / "file")
    (tree / "sub" / "good").symlink_to("../sub/file")
    (tree / "folder").symlink_to("sub")
    (tree / "out").symlink_to("../outside")
    (tree / "absolute").symlink_to(outside)
    (tree / "dangling").symlink_to("nothing")
    found, refused = scan(root_at(tree))
    assert found == ["dangling", "folder", "sub", "sub/file", "sub/good"]
    assert set(refused) == {"out", "absolute"}
    entry = next(each.entry for each in items(tree, "folder") if isinstance(each, Found))
    assert (entry.kind, entry.target) == (EntryKind.LINK, "sub")


@has_links
def test_a_link_put_in_the_place_of_a_folder_leads_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    write(outside / "secret")
    write(tree / "sub" / "file")
    enter = OpenFolder.enter

    def swap_first(self: OpenFolder, name: str) -> OpenFolder:
        (tree / "sub").rename(tmp_path / "moved")
        (tree / "sub").symlink_to(outside)
        return enter(self, name)

    monkeypatch.setattr(OpenFolder, "enter", swap_first)
    found, refused = scan(root_at(tree))
    assert found == ["sub"]
    assert list(refused) == ["sub"]


def test_an_unreadable_folder_is_told_apart_from_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "x")
    write(tmp_path / "b" / "y")
    with unreadable(monkeypatch, "a", PermissionError(13, "Permission denied")):
        found = items(tmp_path)
    assert [each.path for each in found if isinstance(each, Refused) and each.unreadable] == ["a"]
    assert [each.entry.path for each in found if isinstance(each, Found)] == ["a", "b", "b/y"]


@not_root
def test_a_folder_without_permission_is_unreadable(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x")
    (tmp_path / "a").chmod(0)
    found = items(tmp_path)
    (tmp_path / "a").chmod(0o700)
    assert [each.path for each in found if isinstance(each, Refused) and each.unreadable] == ["a"]


def test_a_folder_that_vanishes_during_the_scan_is_not_empty_but_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a" / "x")
    with unreadable(monkeypatch, "a", FileNotFoundError(2, "No such file")):
        found = items(tmp_path)
    assert [each.path for each in found if isinstance(each, Refused) and each.unreadable] == ["a"]


def test_a_file_that_vanishes_during_the_scan_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    status = OpenFolder.entry_status

    def remove_first(self: OpenFolder, entry: os.DirEntry[str]) -> os.stat_result:
        if entry.name == "a":
            (tmp_path / "a").unlink()
        return status(self, entry)

    monkeypatch.setattr(OpenFolder, "entry_status", remove_first)
    assert scan(root_at(tmp_path)) == (["b"], {})


@pytest.mark.parametrize("under", ["", "sub/x"])
def test_a_missing_tree_is_an_error_and_not_empty(tmp_path: Path, under: str) -> None:
    with pytest.raises(TreeError, match="does not exist"):
        items(tmp_path / "none", under)


def test_a_tree_of_another_kind_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "file")
    with pytest.raises(TreeError, match="was a folder"):
        items(tmp_path / "file")
    with pytest.raises(TreeError, match="was a file, and is a folder"):
        list(Scanner().scan(root_at(tmp_path, single_file=True)))
    with pytest.raises(TreeError, match="does not exist"):
        list(Scanner().scan(root_at(tmp_path / "none", single_file=True)))


@pytest.mark.parametrize("replaced", [False, True])
@only_posix
def test_a_tree_that_goes_while_it_is_scanned_is_an_error(tmp_path: Path, replaced: bool) -> None:
    tree = tmp_path / "tree"
    write(tree / "a")
    write(tree / "b")
    scanning = Scanner().scan(root_at(tree))
    next(scanning)
    tree.rename(tmp_path / "elsewhere")
    if replaced:
        tree.mkdir()
    with pytest.raises(TreeError):
        list(scanning)


def test_a_subtree_a_file_and_nothing_can_be_scanned_alone(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/b2", "a/d", "e"):
        write(tmp_path / name)
    root = root_at(tmp_path)
    assert scan(root, "a/b")[0] == ["a/b", "a/b/c"]
    assert scan(root, "a/d")[0] == ["a/d"]
    assert scan(root, "a")[0] == ["a", "a/b", "a/b/c", "a/b2", "a/d"]
    assert scan(root, "none") == scan(root, "a/none/x") == scan(root, "e/below") == ([], {})


@case_sensitive
def test_a_name_scanned_alone_is_judged_as_in_its_folder(tmp_path: Path) -> None:
    for name in ("a/Data", "a/data"):
        write(tmp_path / name)
    root = root_at(tmp_path, "skip/")
    assert scan(root, "a/Data")[0] == ["a/Data"]
    assert scan(root, "a/data") == ([], {"a/data": scan(root)[1]["a/data"]})
    write(tmp_path / "skip" / "x")
    assert scan(root, "skip/x") == ([], {})


def test_below_an_unreadable_folder_nothing_is_called_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "b" / "c")
    with unreadable(monkeypatch, "a", PermissionError(13, "Permission denied")):
        (refused,) = items(tmp_path, "a/b/c")
    assert isinstance(refused, Refused)
    assert (refused.path, refused.unreadable) == ("a", True)


def test_a_single_file_is_a_tree_with_one_entry(tmp_path: Path) -> None:
    path = write(tmp_path / "settings.json", "12")
    root = tree_root(Tree("settings", TreeKind.CONFIG, path))
    assert root.single_file
    (found,) = Scanner().scan(root)
    assert isinstance(found, Found)
    assert (found.entry.path, found.entry.size, found.name_on_disk) == ("", 2, "")


def test_a_root_is_what_stands_there_else_what_is_told(tmp_path: Path) -> None:
    assert not tree_root(Tree("t", TreeKind.DATA, tmp_path), single_file_if_absent=True).single_file
    assert tree_root(Tree("t", TreeKind.DATA, tmp_path / "none"), single_file_if_absent=True).single_file


@only_posix
def test_a_root_that_is_neither_file_nor_folder_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TreeError, match="neither a file nor a folder"):
        tree_root(Tree("t", TreeKind.DATA, tmp_path / "fifo"))


@has_links
def test_a_linked_single_file_stands_for_itself_a_linked_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "real" / "file")
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "current").symlink_to("real")
    assert tree_root(Tree("t", TreeKind.DATA, tmp_path / "link")).path == (tmp_path / "real" / "file").resolve()
    root = tree_root(Tree("t", TreeKind.DATA, tmp_path / "current"))
    assert root.path == tmp_path / "current"
    assert scan(root)[0] == ["file"]


@pytest.mark.parametrize("under", ["", "deep"])
def test_long_paths_are_read(tmp_path: Path, under: str) -> None:
    tree = tmp_path / "tree"
    name = "/".join(["deep", *["folder-" + "x" * 60] * 6, "file"])
    root = root_at(tree)
    os.makedirs(os.path.dirname(root.disk_path(name)))
    with open(root.disk_path(name), "wb") as file:
        file.write(b"123")
    assert len(root.disk_path(name)) > 300
    assert scan(root, under)[0][-1] == name
    shutil.rmtree(root.disk_path())


def test_too_deep_and_too_long_paths_are_refused(tmp_path: Path) -> None:
    root = root_at(tmp_path)
    os.makedirs(root.disk_path("/".join(["d"] * 66)))
    os.makedirs(root.disk_path("/".join(["n" * 200] * 6)))
    _, refused = scan(root)
    assert {path.count("/") + 1 for path in refused} == {65, 6}
    shutil.rmtree(root.disk_path("n" * 200))
    shutil.rmtree(root.disk_path("d"))


def test_a_pattern_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="gitignore"):
        items(tmp_path, "", "a/**b/!\\")
