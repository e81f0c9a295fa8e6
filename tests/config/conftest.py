"""A primary's folder that is complete: own key and certificate, and the certificate of another node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config.load import examine_config
from agent.core.errors import ConfigurationError
from agent.link.identity import generate_identity
from agent.platform.permissions import restrict_to_owner

COMPLETE = """\
mode = "primary"
name = "alpha"
state_directory = "state"
[certificates]
own_certificate = "own.crt"
own_key = "own.key"
remote_certificate = "remote.crt"
"""


@pytest.fixture(scope="session")
def identities() -> dict[str, tuple[str, str]]:
    """Key and certificate PEM of "alpha", this node, and "beta", the other."""
    return {name: generate_identity(name) for name in ("alpha", "beta", "gamma")}


@pytest.fixture
def folder(tmp_path: Path, identities: dict[str, tuple[str, str]]) -> Path:
    restrict_to_owner(tmp_path)
    key, certificate = identities["alpha"]
    (tmp_path / "own.key").write_text(key)
    restrict_to_owner(tmp_path / "own.key")
    (tmp_path / "own.crt").write_text(certificate)
    (tmp_path / "remote.crt").write_text(identities["beta"][1])
    (tmp_path / "agent.toml").write_text(COMPLETE)
    return tmp_path


Findings = Callable[..., list[str]]


@pytest.fixture
def findings(folder: Path) -> Findings:
    """Returns the sentences about the complete configuration with some lines before its tables and some after."""

    def look(
        after: str = "", *, before: str = "", complete: str = COMPLETE, environ: dict[str, str] | None = None
    ) -> list[str]:
        path = folder / "agent.toml"
        path.write_text(before + complete + after, encoding="utf-8")
        try:
            return [finding.sentence() for finding in examine_config(path, environ or {}).findings]
        except ConfigurationError as error:
            return error.findings

    return look
