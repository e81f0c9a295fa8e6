"""`cert show` prints exactly the certificate, ready to copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.__main__ import run_command


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command(["init", "--mode", "primary", "--name", "a", "--directory", str(tmp_path)]) == 0
    capsys.readouterr()
    return str(tmp_path / "agent.toml")


def test_the_output_is_the_certificate_and_what_is_beside_it_is_not_in_it(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["cert", "show", "--config", config]) == 0
    printed = capsys.readouterr()
    assert printed.out == (Path(config).parent / "certs" / "own.crt").read_text()
    assert "SHA-256" in printed.err


def test_the_fingerprint_alone(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["cert", "show", "--fingerprint", "--config", config]) == 0
    assert len(capsys.readouterr().out.strip().split(":")) == 32


def test_a_certificate_that_is_missing_is_named(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(config).parent / "certs" / "own.crt").unlink()
    assert run_command(["cert", "show", "--config", config]) == 2
    error = capsys.readouterr().err
    assert "own.crt does not exist" in error
    assert "remote" not in error
