"""`check` prints every result on a line of its own, and its exit code tells errors from warnings."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from agent.__main__ import run_command


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    assert run_command(["init", "--mode", "stand-alone", "--directory", str(tmp_path)]) == 0
    capsys.readouterr()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("PAIR_AGENT_ADMIN__PORT", str(listener.getsockname()[1]))
    return str(tmp_path / "agent.toml")


def test_warnings_are_no_failure(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", "--config", config]) == 0
    output = capsys.readouterr().out
    assert "\nwarning  " in output
    assert output.startswith("ok       ")
    assert "0 errors" in output
    assert "\x1b" not in output


def test_errors_are_exit_code_two(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(config).write_text('mode = "primary"\nmood = 1\n[server]\nport = 0\n')
    assert run_command(["check", "--config", config]) == 2
    output = capsys.readouterr().out
    assert "line 2: mood: no key has this name (found 1); the nearest valid name is mode" in output
    assert "line 4: server.port: found 0" in output


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes; access lists are tested with agent.platform")
def test_a_key_that_others_can_read_is_an_error_with_the_command_that_mends_it(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = Path(config).parent / "certs" / "own.key"
    key.chmod(0o644)
    assert run_command(["check", "--config", config]) == 2
    assert f"chmod 600 '{key}'" in capsys.readouterr().out
