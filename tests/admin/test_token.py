"""The token: made once, for its owner alone, and never shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agent.admin.token import TOKEN_FILE_NAME, load_or_create_token, read_token
from agent.core.errors import StateError


def test_the_first_start_makes_a_token_and_later_ones_keep_it(tmp_path: Path) -> None:
    token = load_or_create_token(tmp_path)
    assert len(token) == 43
    assert load_or_create_token(tmp_path) == token == read_token(tmp_path)
    (tmp_path / "other").mkdir()
    assert load_or_create_token(tmp_path / "other") != token


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists; tests/platform/test_permissions.py")
def test_a_new_token_is_for_its_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        load_or_create_token(tmp_path)
    finally:
        os.umask(previous)
    assert (tmp_path / TOKEN_FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists; tests/platform/test_permissions.py")
@pytest.mark.parametrize("read", [load_or_create_token, read_token])
def test_a_token_that_others_may_read_is_refused_with_the_way_out(tmp_path: Path, read: object) -> None:
    token = load_or_create_token(tmp_path)
    (tmp_path / TOKEN_FILE_NAME).chmod(0o644)
    with pytest.raises(StateError, match=r"delete .*admin.token and start the agent again") as refused:
        read(tmp_path)  # type: ignore[operator]  # one of the two functions above
    assert token not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"short\n", b"t" * 44, b"\xff" * 43, b"t" * 42 + b"!"])
def test_a_damaged_token_is_refused_by_readers_and_made_anew_at_the_next_start(tmp_path: Path, content: bytes) -> None:
    load_or_create_token(tmp_path)
    (tmp_path / TOKEN_FILE_NAME).write_bytes(content)
    with pytest.raises(StateError, match="is damaged"):
        read_token(tmp_path)
    assert load_or_create_token(tmp_path) == read_token(tmp_path)


def test_a_missing_token_names_the_likely_cause(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"There is no admin token .*--config"):
        read_token(tmp_path)


def test_a_state_directory_that_is_not_there_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="missing"):
        load_or_create_token(tmp_path / "missing")
