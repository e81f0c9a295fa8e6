"""`init` makes a node that loads, overwrites nothing, and says what to do next."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agent.__main__ import run_command
from agent.config.load import examine_config, load_config
from agent.link.identity import fingerprint, read_certificates_untrusted
from agent.platform.permissions import readable_by_others

ARGUMENTS = {
    "primary": ["--mode", "primary"],
    "backup": ["--mode", "backup", "--host", "192.168.10.11"],
    "stand-alone": ["--mode", "stand-alone"],
}


def new_node(directory: Path, mode: str = "primary") -> int:
    return run_command(["init", "--directory", str(directory), "--name", "line-4-a", *ARGUMENTS[mode]])


@pytest.mark.parametrize("mode", ARGUMENTS)
def test_a_new_node_lacks_nothing_but_the_other_nodes_certificate(tmp_path: Path, mode: str) -> None:
    assert new_node(tmp_path / "node", mode) == 0
    examination = examine_config(tmp_path / "node" / "agent.toml", {})
    keys = [finding.key for finding in examination.findings]
    assert keys == ([] if mode == "stand-alone" else ["certificates.remote_certificate"])
    assert examination.state_directory == tmp_path / "node" / "state"
    if mode == "stand-alone":
        assert load_config(tmp_path / "node" / "agent.toml", {}).name == "line-4-a"


def test_the_key_is_private_and_the_fingerprint_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_node(tmp_path / "node") == 0
    certs = tmp_path / "node" / "certs"
    assert readable_by_others(certs / "own.key") is None
    (certificate,) = read_certificates_untrusted((certs / "own.crt").read_text())
    output = capsys.readouterr().out
    assert fingerprint(certificate) in output
    assert "PRIVATE KEY" not in output
    for command in ("cert show", "trust", "check", "run"):
        assert f"pair-agent {command}" in output


@pytest.mark.parametrize("existing", ["agent.toml", "certs/own.key", "certs/own.crt"])
def test_nothing_is_overwritten_and_the_file_in_the_way_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], existing: str
) -> None:
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert new_node(tmp_path) == 1
    assert str(path) in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(values: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("agent.config.creation.render_template", refuse)
    assert new_node(tmp_path) == 1
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_backup_may_learn_the_primarys_address_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["init", "--mode", "backup", "--directory", str(tmp_path)]) == 0
    assert "Set the primary's address" in capsys.readouterr().out
    found = [finding.key for finding in examine_config(tmp_path / "agent.toml", {}).findings]
    assert "connection.host" in found
    text = re.sub(r"^#host = .*$", 'host = "a"', (tmp_path / "agent.toml").read_text(), flags=re.MULTILINE)
    (tmp_path / "agent.toml").write_text(text)
    assert "connection.host" not in [finding.key for finding in examine_config(tmp_path / "agent.toml", {}).findings]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--mode"),
        (["--mode", "both"], "both"),
        (["--mode", "primary", "--host", "a"], "--host is the primary's address"),
        (["--mode", "backup", "--host", "a:3002"], "the port has its own key"),
        (["--mode", "primary", "--name", ""], "--name"),
        (["--mode", "primary", "--name", "a\nb"], "--name"),
    ],
)
def test_wrong_usage_is_explained_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert run_command(["init", "--directory", str(tmp_path), *arguments]) == 2
    assert part in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
