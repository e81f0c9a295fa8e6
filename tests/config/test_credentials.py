"""A certificate or key that is missing, misplaced, exposed or the wrong one is found before the agent runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.platform.permissions import restrict_to_owner

from .conftest import COMPLETE, Findings

Identities = dict[str, tuple[str, str]]


def test_a_missing_remote_certificate_is_the_only_finding_and_says_what_to_do(folder: Path, findings: Findings) -> None:
    (folder / "remote.crt").unlink()
    (found,) = findings()
    assert found.startswith("line 7: certificates.remote_certificate: ")
    assert "pair-agent trust" in found


def test_keys_that_are_not_set_are_named(findings: Findings) -> None:
    found = findings(complete='mode = "primary"\n')
    assert [sentence.partition(":")[0] for sentence in found] == [
        "certificates.own_key",
        "certificates.own_certificate",
        "certificates.remote_certificate",
    ]


def test_trust_in_another_way_needs_no_remote_certificate(folder: Path, findings: Findings) -> None:
    (folder / "remote.crt").unlink()
    assert findings('trust = "insecure"\n[security]\npre_shared_key = "long enough to be a key"\n') == []


def test_pasted_pem_counts_as_a_path_does(folder: Path, identities: Identities) -> None:
    key, certificate = identities["alpha"]
    path = folder / "agent.toml"
    path.write_text(
        f"mode = 'primary'\n[certificates]\nown_certificate = '''\n{certificate}'''\nown_key = '''\n{key}'''\n"
        f"remote_certificate = '''\n{identities['beta'][1]}{identities['gamma'][1]}'''\n"
    )
    restrict_to_owner(path)
    config = load_config(path, {})
    assert config.certificates.own_key is not None
    assert config.certificates.own_key.path is None
    assert config.certificates.remote_certificate is not None
    assert config.certificates.remote_certificate.pem.count("BEGIN") == 2


def test_a_key_can_come_from_the_environment(folder: Path, identities: Identities) -> None:
    (folder / "own.key").unlink()
    (folder / "agent.toml").chmod(0o644)
    config = load_config(folder / "agent.toml", {"PAIR_AGENT_CERTIFICATES__OWN_KEY": identities["alpha"][0]})
    assert config.certificates.own_key is not None


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("own.crt", "alpha key", "private key"),
        ("remote.crt", "beta key", "private key"),
        ("own.key", "alpha certificate", "a certificate, not a private key"),
        ("own.key", "beta key", "does not belong to own_certificate"),
        ("remote.crt", "alpha certificate", "is this node's own certificate"),
        ("remote.crt", "nothing of use", "remote.crt"),
        ("own.crt", "", "own.crt"),
        ("own.crt", "both certificates", "exactly one of its own"),
    ],
)
def test_the_wrong_content_is_a_finding_that_shows_nothing_of_it(
    folder: Path, findings: Findings, identities: Identities, file: str, content: str, part: str
) -> None:
    texts = {
        f"{name} {kind}": pem
        for name, pair in identities.items()
        for kind, pem in zip(("key", "certificate"), pair, strict=True)
    }
    texts["both certificates"] = identities["alpha"][1] + identities["beta"][1]
    text = texts.get(content, content)
    (folder / file).write_text(text)
    found = findings()
    assert any(part in sentence for sentence in found), found
    for line in text.splitlines():
        assert "-----" in line or len(line) < 20 or line not in "\n".join(found)


def test_a_key_pasted_where_the_certificate_belongs_is_not_shown(findings: Findings, identities: Identities) -> None:
    key = identities["alpha"][0]
    found = findings(complete=COMPLETE.replace('"own.crt"', f"'''\n{key}'''"))
    assert any("certificates.own_certificate" in sentence and "private key" in sentence for sentence in found)
    assert key.splitlines()[1] not in "\n".join(found)


@pytest.mark.parametrize("data", [b"\x30\x82\x01\x00\xff\xfe", b"\xff" * 10])
def test_a_binary_file_is_explained(folder: Path, findings: Findings, data: bytes) -> None:
    (folder / "remote.crt").write_bytes(data)
    assert "export it as Base-64 (PEM)" in findings()[0]


def test_a_folder_in_the_place_of_a_file_is_explained(folder: Path, findings: Findings) -> None:
    (folder / "own.crt").unlink()
    (folder / "own.crt").mkdir()
    assert "cannot be read" in findings()[0]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes; access lists are tested with agent.platform")
def test_a_private_key_that_others_can_read_is_refused_and_the_mending_named(folder: Path, findings: Findings) -> None:
    (folder / "own.key").chmod(0o640)
    (found,) = findings()
    assert found.startswith("line 6: certificates.own_key: ")
    assert "chmod 600" in found


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes; access lists are tested with agent.platform")
def test_a_private_key_pasted_into_a_file_that_others_can_read_is_refused(
    folder: Path, findings: Findings, identities: Identities
) -> None:
    (folder / "agent.toml").chmod(0o644)
    (found,) = findings(complete=COMPLETE.replace('"own.key"', f"'''\n{identities['alpha'][0]}'''"))
    assert "agent.toml can be read by" in found
