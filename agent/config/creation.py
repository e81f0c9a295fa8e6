"""What `pair-agent init` makes: a key, a certificate and a commented agent.toml, in a folder that has none yet.

Nothing is ever overwritten, and a failure on the way leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from agent.config.document import CONFIG_NAME
from agent.config.schema import KEYS
from agent.config.template import render_template
from agent.config.values import NotAllowedError
from agent.core.errors import ConfigurationError, PairAgentError
from agent.core.vocabulary import Mode

CERTIFICATES_FOLDER = "certs"


@dataclass(frozen=True)
class NewNode:
    """The files that were made, and the certificate's fingerprint."""

    config_path: Path
    certificate_path: Path
    key_path: Path
    fingerprint: str


def create_node(directory: Path, mode: Mode, name: str, host: str | None) -> NewNode:
    """Makes the files of a new node in `directory`, which is made if it is missing.

    `host` is the primary's address, for a backup; without it the file has the key commented out. Raises PairAgentError
    if one of the files exists already or cannot be written, ConfigurationError if a name or host is not allowed.
    """
    from agent.link.identity import fingerprint, generate_identity, read_certificates_untrusted
    from agent.platform.permissions import write_private

    values = _values(mode, name, host)
    node_key, certificate = generate_identity(name)
    config_path = directory.absolute() / CONFIG_NAME
    certificates = directory.absolute() / CERTIFICATES_FOLDER
    key_path, certificate_path = certificates / "own.key", certificates / "own.crt"
    for path in (config_path, key_path, certificate_path):
        if path.exists() or path.is_symlink():
            raise PairAgentError(f"{path} exists already, and nothing is overwritten; choose another --directory")
    made: list[Path] = []
    try:
        certificates.mkdir(parents=True, exist_ok=True)
        write_private(key_path, node_key.encode("ascii"))
        made.append(key_path)
        for path, text in ((certificate_path, certificate), (config_path, render_template(values))):
            with path.open("x", encoding="utf-8", newline="\n") as file:
                made.append(path)
                file.write(text)
    except BaseException as error:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            raise PairAgentError(f"{error.filename or directory} cannot be written: {error.strerror}") from None
        raise
    shown = fingerprint(read_certificates_untrusted(certificate)[0])
    return NewNode(config_path, certificate_path, key_path, shown)


def _values(mode: Mode, name: str, host: str | None) -> dict[str, object]:
    values: dict[str, object] = {
        "mode": mode,
        "name": name,
        "state_directory": "state",
        "certificates.own_certificate": f"{CERTIFICATES_FOLDER}/own.crt",
        "certificates.own_key": f"{CERTIFICATES_FOLDER}/own.key",
        "certificates.remote_certificate": f"{CERTIFICATES_FOLDER}/remote.crt",
    }
    if mode is Mode.PRIMARY:
        values |= {"server.port": KEYS["server.port"].default, "server.interface": KEYS["server.interface"].default}
    if mode is Mode.BACKUP:
        if host is not None:
            values["connection.host"] = host
        values["connection.port"] = KEYS["connection.port"].default
    findings = []
    for path, option in (("name", "--name"), ("connection.host", "--host")):
        try:
            if path in values:
                KEYS[path].kind.accept(values[path])
        except NotAllowedError as refusal:
            reason = f" ({refusal})" if str(refusal) else ""
            findings.append(f"{option}: found {values[path]!r}{reason}; allowed: {KEYS[path].kind.allowed}")
    if findings:
        raise ConfigurationError(findings)
    return values
