"""Private files are private from their first byte, and a replaced file is whole or untouched (S9, D10, D11, D12)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.core.errors import StateError
from agent.platform import durability, permissions
from agent.platform.permissions import readable_by_others, replace_file, restrict_to_owner, write_private

posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="mode bits, links and replacing under a reader are POSIX'"
)
windows_only = pytest.mark.skipif(sys.platform != "win32", reason="access lists and sharing violations are Windows'")


@pytest.fixture(autouse=True)
def ordinary_umask() -> object:
    previous = os.umask(0o022)
    yield
    os.umask(previous)


@posix_only
@pytest.mark.parametrize(("mode", "named"), [(0o640, "its group"), (0o604, "everyone"), (0o644, "its group and every")])
def test_a_key_readable_by_others_is_named_with_the_way_to_mend_it(tmp_path: Path, mode: int, named: str) -> None:
    key = tmp_path / "own.key"
    key.write_bytes(b"secret")
    key.chmod(mode)
    sentence = readable_by_others(key)
    assert sentence is not None
    assert named in sentence
    assert f"{mode:04o}" in sentence
    command = sentence[sentence.index("chmod") :]
    subprocess.run(command, shell=True, check=True)
    assert readable_by_others(key) is None


@windows_only
def test_a_key_that_the_access_list_opens_to_everyone_is_named(tmp_path: Path) -> None:
    from agent.platform import security_windows

    key = tmp_path / "own.key"
    key.write_bytes(b"secret")
    own = security_windows.own_sid()
    security_windows.write_descriptor(key, f"O:{own}D:P(A;;FA;;;{own})(A;;FR;;;WD)")
    sentence = readable_by_others(key)
    assert sentence is not None
    assert security_windows.account_name("S-1-1-0") in sentence
    assert "icacls" in sentence
    restrict_to_owner(key)
    assert readable_by_others(key) is None


@posix_only
def test_a_key_in_a_folder_that_others_may_write_is_named(tmp_path: Path) -> None:
    key = tmp_path / "own.key"
    write_private(key, b"secret")
    tmp_path.chmod(0o777)
    sentence = readable_by_others(key)
    assert sentence is not None
    assert f"chmod go-w '{tmp_path}'" in sentence
    tmp_path.chmod(0o1777)
    assert readable_by_others(key) is None


def test_a_file_restricted_to_its_owner_is_readable_by_nobody_else(tmp_path: Path) -> None:
    key = tmp_path / "own.key"
    key.write_bytes(b"secret")
    restrict_to_owner(key)
    assert readable_by_others(key) is None
    assert key.read_bytes() == b"secret"


def test_a_directory_can_be_restricted_and_still_be_used(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    restrict_to_owner(directory)
    (directory / "file").write_bytes(b"content")
    assert (directory / "file").read_bytes() == b"content"


@pytest.mark.parametrize("examine", [restrict_to_owner, readable_by_others])
def test_a_missing_file_is_a_sentence(tmp_path: Path, examine: object) -> None:
    assert callable(examine)
    with pytest.raises(StateError, match=r"missing\.key"):
        examine(tmp_path / "missing.key")


def test_a_private_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    key = tmp_path / "own.key"
    write_private(key, b"secret")
    assert key.read_bytes() == b"secret"
    assert readable_by_others(key) is None


@posix_only
def test_a_private_file_is_private_before_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []

    def record_mode(descriptor: int, data: bytes) -> None:
        status = os.fstat(descriptor)
        assert status.st_size == 0
        modes.append(status.st_mode & 0o777)

    monkeypatch.setattr(permissions, "write_all", record_mode)
    os.umask(0)
    write_private(tmp_path / "own.key", b"secret")
    replace_file(tmp_path / "token", b"secret", private=True)
    assert modes == [0o600, 0o600]


def test_an_existing_file_is_not_overwritten_by_a_private_one(tmp_path: Path) -> None:
    key = tmp_path / "own.key"
    write_private(key, b"first")
    with pytest.raises(StateError, match="exists already"):
        write_private(key, b"second")
    assert key.read_bytes() == b"first"


@posix_only
def test_a_private_file_is_not_written_through_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "own.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        write_private(tmp_path / "own.key", b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_a_private_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "flush_data", refuse)
    with pytest.raises(StateError, match="No space"):
        write_private(tmp_path / "own.key", b"secret")
    assert list(tmp_path.iterdir()) == []


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("private", [True, False])
def test_a_replaced_file_has_the_new_content_and_leaves_no_other(tmp_path: Path, private: bool) -> None:
    target = tmp_path / "remote.crt"
    for content in (b"first", b"", b"second" * 100_000):
        replace_file(target, content, private=private)
        assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("step", ["write_all", "flush_data", "replace"])
def test_a_failed_replacement_leaves_the_old_file_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "remote.crt"
    replace_file(target, b"old", private=False)
    monkeypatch.setattr(permissions, step, refuse)
    with pytest.raises(StateError, match=r"remote\.crt.*No space"):
        replace_file(target, b"new", private=False)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("write_all", "flush_data", "replace", "sync_directory"):
        real = getattr(permissions, name)

        def recorded(*arguments: object, name: str = name, real: object = real) -> None:
            steps.append(name)
            assert callable(real)
            real(*arguments)

        monkeypatch.setattr(permissions, name, recorded)
    replace_file(tmp_path / "remote.crt", b"new", private=False)
    assert steps == ["write_all", "flush_data", "replace", "sync_directory"]


@posix_only
def test_a_replaced_file_keeps_its_mode_and_a_private_one_is_private(tmp_path: Path) -> None:
    target = tmp_path / "agent.toml"
    target.write_bytes(b"old")
    target.chmod(0o640)
    replace_file(target, b"new", private=False)
    assert target.stat().st_mode & 0o777 == 0o640
    replace_file(target, b"new", private=True)
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    for write in (lambda path: write_private(path, b""), lambda path: replace_file(path, b"", private=False)):
        with pytest.raises(StateError, match=r"own\.key"):
            write(tmp_path / "missing" / "own.key")


@windows_only
def test_a_file_held_open_for_a_moment_is_replaced_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scanner holds the file; it lets go after the first refused attempt."""
    target = tmp_path / "remote.crt"
    target.write_bytes(b"old")
    held = target.open("rb")
    pauses: list[float] = []

    def let_go(seconds: float) -> None:
        pauses.append(seconds)
        held.close()

    monkeypatch.setattr(durability.time, "sleep", let_go)
    replace_file(target, b"new", private=False)
    assert target.read_bytes() == b"new"
    assert len(pauses) == 1


@windows_only
def test_a_file_that_stays_locked_is_reported_by_name_after_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "remote.crt"
    target.write_bytes(b"old")
    pauses: list[float] = []
    monkeypatch.setattr(durability.time, "sleep", pauses.append)
    with target.open("rb"), pytest.raises(StateError, match=r"remote\.crt"):
        replace_file(target, b"new", private=False)
    assert target.read_bytes() == b"old"
    assert len(pauses) == durability.REPLACE_ATTEMPTS - 1
    assert list(tmp_path.iterdir()) == [target]


@posix_only
def test_readers_see_the_old_or_the_new_file_and_nothing_between(tmp_path: Path) -> None:
    target = tmp_path / "remote.crt"
    contents = [bytes([number]) * 50_000 for number in range(40)]
    replace_file(target, contents[0], private=False)
    done = threading.Event()
    torn: list[bytes] = []

    def read_on() -> None:
        while not done.is_set():
            seen = target.read_bytes()
            if len(set(seen)) != 1 or len(seen) != 50_000:
                torn.append(seen)

    reader = threading.Thread(target=read_on)
    reader.start()
    try:
        for content in contents:
            replace_file(target, content, private=False)
    finally:
        done.set()
        reader.join()
    assert torn == []
