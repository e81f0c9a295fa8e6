"""A file that cannot be read as TOML is explained in one sentence."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config.document import FILE_BYTES_MAX, read_document
from agent.core.errors import ConfigurationError


def sentence(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_document(path)
    (found,) = caught.value.findings
    assert str(path) in found
    return found


def test_a_missing_file_names_the_ways_out(tmp_path: Path) -> None:
    found = sentence(tmp_path / "agent.toml")
    assert "does not exist" in found
    assert "pair-agent init" in found


def test_a_folder_is_told_from_a_file(tmp_path: Path) -> None:
    assert "is a folder" in sentence(tmp_path)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"\xef\xbb\xbfmode = 'primary'\n", "byte order mark"),
        ("mode = 'primary'\n".encode("utf-16"), "UTF-16"),
        (b"mode = 'primary'\nname = 'L\xfcbeck'\n", "line 2: not UTF-8"),
        (b"mode = primary\n", "line 1, column 8: not valid TOML"),
        (b'a = 1\npath = "C:\\data"\n', "single quotes"),
        (b'path = "C:\\Users\\x"\n', "single quotes"),
        (b'path = "C:\\uD800"\n', "single quotes"),
        (b'name = "x\n', "closing quote"),
        (b'name = "x', "closing quote"),
        (b"name = 'x\n", "closing quote"),
        (b"a = 1\na = 2\n", "twice"),
        (b"[a]\n[a]\n", "twice"),
        (b"a = " + b"[" * 20000, "nested too deeply"),
        (b"#" * (FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_text_that_is_no_toml_is_explained(tmp_path: Path, data: bytes, part: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    assert part in sentence(path)


@pytest.mark.parametrize("data", [b'name = "x\n', b'name = "x', b"name = 'x\n"])
def test_a_text_that_does_not_end_is_not_taken_for_a_windows_path(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    assert "Windows" not in sentence(path)


def test_a_syntax_error_does_not_show_the_secret_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[security]\npre_shared_key = "hunter2\n')
    assert "hunter2" not in sentence(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_garbage_raises_only_a_finding(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigurationError):
        read_document(path)
