"""`check` tells about each tree whether it is there, and whether it can be read and written; and writes nothing."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from agent.config.load import examine_config
from agent.config.results import Level, Result
from agent.config.tree_inspection import inspect_trees

from .conftest import COMPLETE

BACKUP = COMPLETE.replace("primary", "backup") + '[connection]\nhost = "127.0.0.1"\n'


def look(folder: Path, text: str = COMPLETE, path: str = "t") -> Result:
    (folder / "agent.toml").write_text(f'{text}[[tree]]\nname = "flows"\nkind = "config"\npath = {path!r}\n')
    (result,) = inspect_trees(examine_config(folder / "agent.toml", {}))
    assert result.sentence.startswith("tree.0.path (flows): ")
    return result


def refuse(*_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("text", [COMPLETE, BACKUP])
def test_a_folder_and_a_file_that_can_be_read_and_written_are_fine(folder: Path, text: str) -> None:
    (folder / "t").mkdir()
    (folder / "t" / "content").write_text("x")
    (folder / "f.json").write_text("{}")
    result = look(folder, text)
    assert (result.level, "is a folder" in result.sentence) == (Level.OK, True)
    result = look(folder, text, "f.json")
    assert (result.level, "is a file" in result.sentence) == (Level.OK, True)
    assert sorted(each.name for each in (folder / "t").iterdir()) == ["content"]


def test_a_tree_that_is_not_there_yet_is_fine_on_a_backup_and_a_warning_elsewhere(folder: Path) -> None:
    result = look(folder, BACKUP, "new/deep/t")
    assert result.level is Level.OK
    assert "the first synchronisation makes it" in result.sentence
    for mode in ("primary", "stand-alone"):
        result = look(folder, COMPLETE.replace("primary", mode), "new/deep/t")
        assert result.level is Level.WARNING
        assert "does not exist" in result.sentence
    assert not (folder / "new").exists()


def test_a_tree_below_a_file_cannot_be_made(folder: Path) -> None:
    result = look(folder, BACKUP, "own.crt/t")
    assert result.level is Level.ERROR
    assert f"because {folder / 'own.crt'} is no folder" in result.sentence


@pytest.mark.parametrize(("path", "call"), [("t", "scandir"), ("f", "open"), ("t", "stat")])
def test_a_tree_that_cannot_be_read_is_an_error_with_the_reason(
    folder: Path, path: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "t").mkdir()
    (folder / "f").touch()
    (folder / "agent.toml").write_text(f'{COMPLETE}[[tree]]\nname = "flows"\nkind = "data"\npath = "{path}"\n')
    examination = examine_config(folder / "agent.toml", {})
    monkeypatch.setattr(os if call == "scandir" else Path, call, refuse)
    (result,) = inspect_trees(examination)
    monkeypatch.undo()
    assert result.level is Level.ERROR
    assert "cannot be looked at" in result.sentence if call == "stat" else "cannot be read" in result.sentence
    assert os.strerror(errno.EACCES) in result.sentence
    assert "let this account read and write there" in result.sentence


@pytest.mark.parametrize(("path", "named"), [("t", "t"), ("f", "."), ("new", ".")])
def test_a_tree_that_cannot_be_written_is_an_error(
    folder: Path, path: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "t").mkdir()
    (folder / "f").touch()
    barred = folder / named
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda place, *modes: Path(place) != barred and allowed(place, *modes))
    result = look(folder, BACKUP, path)
    assert result.level is Level.ERROR
    assert str(barred) in result.sentence


@pytest.mark.skipif(sys.platform == "win32", reason="making a link needs a privilege there")
def test_a_root_that_is_a_link_is_shown_with_where_it_leads(folder: Path) -> None:
    (folder / "t").mkdir()
    (folder / "link").symlink_to("t", target_is_directory=True)
    result = look(folder, path="link")
    assert result.level is Level.OK
    assert f"{folder / 't'}, where {folder / 'link'} leads," in result.sentence


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs in the file system there")
def test_what_is_neither_folder_nor_file_is_an_error(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    result = look(folder, path="pipe")
    assert result.level is Level.ERROR
    assert "neither a folder nor a file" in result.sentence


def test_a_faulty_tree_does_not_hide_the_others(folder: Path) -> None:
    (folder / "t").mkdir()
    (folder / "agent.toml").write_text(
        COMPLETE + '[[tree]]\npath = 5\n[[tree]]\nname = ""\nkind = "data"\npath = "t"\nexclude = ["!"]\n'
    )
    (result,) = inspect_trees(examine_config(folder / "agent.toml", {}))
    assert result.level is Level.OK
    assert result.sentence.startswith("tree.1.path: ")
