"""Trusting adds to the file or replaces it, whole at every moment, and never trusts this node itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import Examination, examine_config
from agent.config.trusted import apply_trust, plan_trust
from agent.core.errors import ConfigurationError, CredentialError

from .conftest import COMPLETE

Identities = dict[str, tuple[str, str]]


def examination(folder: Path) -> Examination:
    return examine_config(folder / "agent.toml", {})


def test_a_second_certificate_stands_beside_the_first(folder: Path, identities: Identities) -> None:
    change = plan_trust(examination(folder), identities["gamma"][1], replace=False)
    assert apply_trust(change) is None
    assert (folder / "remote.crt").read_text() == identities["beta"][1] + identities["gamma"][1]


def test_replacing_keeps_the_former_file_every_time(folder: Path, identities: Identities) -> None:
    first = apply_trust(plan_trust(examination(folder), identities["gamma"][1], replace=True))
    second = apply_trust(plan_trust(examination(folder), identities["beta"][1], replace=True))
    assert first == folder / "remote.crt.bak"
    assert first.read_text() == identities["beta"][1]
    assert second is not None
    assert second.read_text() == identities["gamma"][1]
    assert (folder / "remote.crt").read_text() == identities["beta"][1]


def test_what_is_trusted_already_changes_nothing(folder: Path, identities: Identities) -> None:
    for replace in (False, True):
        assert not plan_trust(examination(folder), identities["beta"][1], replace=replace).is_needed


def test_the_file_and_its_folder_are_made(folder: Path, identities: Identities) -> None:
    (folder / "agent.toml").write_text(COMPLETE.replace("remote.crt", "new/remote.crt"))
    assert apply_trust(plan_trust(examination(folder), identities["beta"][1], replace=False)) is None
    assert (folder / "new" / "remote.crt").read_text() == identities["beta"][1]


def test_this_nodes_own_certificate_is_refused_even_among_others(folder: Path, identities: Identities) -> None:
    with pytest.raises(CredentialError, match="this node's own certificate"):
        plan_trust(examination(folder), identities["gamma"][1] + identities["alpha"][1], replace=False)


def test_a_private_key_is_refused_by_name(folder: Path, identities: Identities) -> None:
    with pytest.raises(CredentialError, match="private key"):
        plan_trust(examination(folder), identities["beta"][0], replace=False)


def test_a_file_that_holds_something_else_is_only_put_aside_on_request(folder: Path, identities: Identities) -> None:
    (folder / "remote.crt").write_text("a note")
    with pytest.raises(CredentialError, match="--replace"):
        plan_trust(examination(folder), identities["beta"][1], replace=False)
    backup = apply_trust(plan_trust(examination(folder), identities["beta"][1], replace=True))
    assert backup is not None
    assert backup.read_text() == "a note"


def test_pem_in_the_toml_is_left_to_its_author(folder: Path, identities: Identities) -> None:
    path = folder / "agent.toml"
    path.write_text(COMPLETE.replace('"remote.crt"', f"'''\n{identities['beta'][1]}'''"))
    before = path.read_text()
    with pytest.raises(ConfigurationError) as caught:
        plan_trust(examination(folder), identities["gamma"][1], replace=False)
    assert "line 7" in str(caught.value)
    assert identities["gamma"][1] in str(caught.value)
    assert path.read_text() == before


def test_without_a_place_to_write_the_line_to_add_is_named(folder: Path, identities: Identities) -> None:
    path = folder / "agent.toml"
    path.write_text(COMPLETE.replace('remote_certificate = "remote.crt"\n', ""))
    with pytest.raises(ConfigurationError, match=r'add remote_certificate = "certs/remote\.crt"'):
        plan_trust(examination(folder), identities["beta"][1], replace=False)
