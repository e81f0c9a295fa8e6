"""`trust` takes the other node's certificate from a file, a pipe or a paste, and asks before it trusts."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from agent.__main__ import run_command


@pytest.fixture
def nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Folders "a" and "b" of two new nodes."""
    for name in ("a", "b"):
        assert run_command(["init", "--mode", "primary", "--name", name, "--directory", str(tmp_path / name)]) == 0
    capsys.readouterr()
    return tmp_path


class Terminal(io.StringIO):
    """Standard input that a person types into."""

    def isatty(self) -> bool:
        return True


def trust(nodes: Path, *arguments: str) -> int:
    return run_command(["trust", "--config", str(nodes / "a" / "agent.toml"), *arguments])


def remote(nodes: Path) -> Path:
    return nodes / "a" / "certs" / "remote.crt"


def certificate(nodes: Path) -> str:
    return (nodes / "b" / "certs" / "own.crt").read_text()


def test_a_paste_ends_at_an_empty_line_and_is_confirmed(
    nodes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"\n{certificate(nodes)}\ny\n"))
    assert trust(nodes) == 0
    assert remote(nodes).read_text() == certificate(nodes)
    output = capsys.readouterr().out
    assert "SHA-256" in output
    assert "Valid" in output


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_trusted(nodes: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{certificate(nodes)}\n{answer}"))
    assert trust(nodes) == 1
    assert not remote(nodes).exists()


def test_a_pipe_cannot_be_asked(
    nodes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(certificate(nodes).encode())))
        assert trust(nodes, *arguments) == 1
        assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(certificate(nodes).encode())))
    assert trust(nodes, "-", "--yes") == 0
    assert remote(nodes).exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_as_shells_write_it(nodes: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    (nodes / "b.crt").write_text(certificate(nodes), encoding=encoding)
    assert trust(nodes, str(nodes / "b.crt"), "--yes") == 0
    assert trust(nodes, str(nodes / "b.crt"), "--yes") == 0
    assert "Already trusted" in capsys.readouterr().out
    assert remote(nodes).read_text() == certificate(nodes)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("b/certs/own.key", "private key"),
        ("a/certs/own.crt", "this node's own certificate"),
        ("a/agent.toml", "no certificate"),
        ("missing.crt", "does not exist"),
        ("binary.crt", "Base-64"),
    ],
)
def test_what_is_not_the_other_nodes_certificate_is_refused_by_name(
    nodes: Path, capsys: pytest.CaptureFixture[str], file: str, part: str
) -> None:
    (nodes / "binary.crt").write_bytes(b"\x30\x82\x01\x00\xfe")
    assert trust(nodes, str(nodes / file), "--yes") == 2
    assert part in capsys.readouterr().err
    assert not remote(nodes).exists()


def test_replacing_says_what_is_no_longer_trusted(nodes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["init", "--mode", "backup", "--name", "c", "--directory", str(nodes / "c")]) == 0
    assert trust(nodes, str(nodes / "b" / "certs" / "own.crt"), "--yes") == 0
    assert trust(nodes, str(nodes / "c" / "certs" / "own.crt"), "--yes", "--replace") == 0
    output = capsys.readouterr().out
    assert "No longer trusted afterwards: b (" in output
    assert "remote.crt.bak" in output
    assert remote(nodes).read_text() == (nodes / "c" / "certs" / "own.crt").read_text()


@pytest.mark.parametrize("extra", [["b.crt"], ["-"], ["--replace"]])
def test_forgetting_the_pair_takes_no_certificate(
    nodes: Path, extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trust(nodes, "--forget-pair", *extra) == 2
    assert "--forget-pair" in capsys.readouterr().err
    assert trust(nodes, "--forget-pair") == 0
