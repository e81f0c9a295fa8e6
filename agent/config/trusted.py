"""The file of trusted certificates, `remote_certificate`: how `pair-agent trust` adds to it or replaces it.

The file is whole at every moment, and what is replaced is kept beside it. Whether a certificate deserves trust is
decided by a person who compares fingerprints; only this node's own is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.credentials import REMOTE_CERTIFICATE, credential_path
from agent.config.load import Examination
from agent.core.errors import ConfigurationError, CredentialError, PairAgentError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True)
class TrustChange:
    """What the file held, what it will hold, and what of that is new; nothing is written yet."""

    path: Path
    before: tuple[Certificate, ...]
    after: tuple[Certificate, ...]
    new: tuple[Certificate, ...]

    @property
    def is_needed(self) -> bool:
        """False if the file already holds exactly what is wanted."""
        return self.before != self.after


def plan_trust(examination: Examination, text: str, *, replace: bool) -> TrustChange:
    """Reads pasted text and says what trusting it would change.

    Raises CredentialError for text that is no certificate, this node's own certificate, or a file that holds something
    else; ConfigurationError if agent.toml names no file for it.
    """
    from agent.link.identity import read_certificates_untrusted

    pasted = read_certificates_untrusted(text)
    _refuse_own(examination, pasted)
    path = _remote_path(examination, pasted)
    before = () if not path.exists() else _read(path, replace=replace)
    new = tuple(certificate for certificate in pasted if certificate not in before)
    after = tuple(pasted) if replace else before + new
    if set(after) == set(before):
        after = before
    return TrustChange(path, before, after, new)


def apply_trust(change: TrustChange) -> Path | None:
    """Writes the file; returns where the former one is kept, if it was replaced. Raises PairAgentError."""
    from agent.link.identity import certificate_pem
    from agent.platform.permissions import replace_file

    removes = change.path.exists() and any(certificate not in change.after for certificate in change.before)
    # A file that could not be read as certificates is replaced too, and kept.
    keeps = removes or (change.path.exists() and not change.before)
    try:
        change.path.parent.mkdir(parents=True, exist_ok=True)
        backup = _free_backup(change.path) if keeps else None
        if backup is not None:
            replace_file(backup, change.path.read_bytes(), private=False)
    except OSError as error:
        raise PairAgentError(f"{error.filename or change.path} cannot be written: {error.strerror}") from None
    text = "".join(certificate_pem(certificate) for certificate in change.after)
    replace_file(change.path, text.encode("ascii"), private=False)
    return backup


def _refuse_own(examination: Examination, pasted: list[Certificate]) -> None:
    from agent.link.identity import fingerprint, key_matches, load_private_key_untrusted, read_certificates_untrusted

    way_out = "run `pair-agent cert show` on the other node and paste that"
    own = examination.certificates.own_certificate
    if own is not None:
        certificate = read_certificates_untrusted(own.pem)[0]
        if certificate in pasted:
            raise CredentialError(f"This is this node's own certificate ({fingerprint(certificate)}); {way_out}")
    own_key = examination.certificates.own_key
    if own_key is not None:
        key = load_private_key_untrusted(own_key.pem)
        if any(key_matches(key, certificate) for certificate in pasted):
            raise CredentialError(f"This certificate is about this node's own key; {way_out}")


def _remote_path(examination: Examination, pasted: list[Certificate]) -> Path:
    from agent.link.identity import certificate_pem

    settings = examination.settings
    if settings.refused(REMOTE_CERTIFICATE):
        raise ConfigurationError([finding.sentence() for finding in examination.findings])
    path = credential_path(settings, REMOTE_CERTIFICATE, examination.source)
    if path is not None:
        return path
    if settings.get(REMOTE_CERTIFICATE, str) is None:
        raise ConfigurationError(
            [
                f"{examination.source}: {REMOTE_CERTIFICATE} is not set, so there is no file to write to; "
                'add remote_certificate = "certs/remote.crt" below [certificates]'
            ]
        )
    variable = settings.overrides.get(REMOTE_CERTIFICATE)
    place = f"environment variable {variable}" if variable else f"{examination.source}"
    line = None if variable else settings.positions.line(REMOTE_CERTIFICATE)
    where = f"{place}, line {line}," if line else place
    text = "".join(certificate_pem(certificate) for certificate in pasted)
    raise ConfigurationError(
        [
            f"{where} holds the certificate itself, and that text is yours to edit. Paste this block there, below the "
            f"one that is there (or in its place), or name a file instead:\n{text}"
        ]
    )


def _read(path: Path, *, replace: bool) -> tuple[Certificate, ...]:
    from agent.link.identity import read_certificates_untrusted

    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        return tuple(read_certificates_untrusted(text)) if text.strip() else ()
    except OSError as error:
        raise PairAgentError(f"{path} cannot be read: {error.strerror}") from None
    except CredentialError as error:
        if replace:
            return ()
        raise CredentialError(f"{path} holds something else; --replace puts it aside. {error}") from None


def _free_backup(path: Path) -> Path:
    backup = path.with_name(f"{path.name}.bak")
    number = 2
    while backup.exists():
        backup = path.with_name(f"{path.name}.bak{number}")
        number += 1
    return backup
