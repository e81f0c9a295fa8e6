"""The certificates and the key that agent.toml names: read from their files, or taken from the TOML text itself.

Finds what is missing, in the wrong place, unreadable or readable by too many. Parsing is the work of
`agent.link.identity`; what a certificate is worth in a handshake is not judged here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.model import Certificates, Credential, Trust
from agent.config.settings import Settings
from agent.core.errors import CredentialError, StateError
from agent.core.vocabulary import Mode

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

OWN_CERTIFICATE = "certificates.own_certificate"
OWN_KEY = "certificates.own_key"
REMOTE_CERTIFICATE = "certificates.remote_certificate"
PEM_BYTES_MAX = 262_144
_PASTE_THE_OTHER = "paste the other node's with `pair-agent trust`"


def read_certificates(settings: Settings, source: Path) -> Certificates:
    """Reads what the certificate keys name; every fault is reported to `settings`, and the credential is None then."""
    paired = settings.get("mode", Mode) in (Mode.PRIMARY, Mode.BACKUP)
    trust = settings.get("certificates.trust", Trust) or Trust.PINNED
    own_key = _read_own_key(settings, source, paired)
    own = _read_certificate(settings, source, OWN_CERTIFICATE, required=paired)
    remote = _read_certificate(settings, source, REMOTE_CERTIFICATE, required=paired and trust is Trust.PINNED)
    own_certificates = _parsed(settings, OWN_CERTIFICATE, own)
    remote_certificates = _parsed(settings, REMOTE_CERTIFICATE, remote)
    if own_key is not None and not _check_key(settings, own_key, own_certificates, remote_certificates):
        own_key = None
    if any(certificate in remote_certificates for certificate in own_certificates):
        settings.report(REMOTE_CERTIFICATE, f"is this node's own certificate; {_PASTE_THE_OTHER}")
    return Certificates(
        own_certificate=own if own_certificates else None,
        own_key=own_key,
        remote_certificate=remote if remote_certificates else None,
        trust=trust,
        enforce_validity=settings.get("certificates.enforce_validity", bool) or False,
    )


def is_pem(text: str) -> bool:
    """Tells a pasted PEM text, even a damaged one, from a path."""
    return "-----" in text or "\n" in text.strip() or (len(text) > 200 and text.startswith("MI"))


def credential_path(settings: Settings, key: str, source: Path) -> Path | None:
    """The absolute path that a certificate key names; None if it is not set, or holds the PEM text itself."""
    value = settings.get(key, str)
    return None if value is None or is_pem(value) else source.parent / value


def _read_certificate(settings: Settings, source: Path, key: str, *, required: bool) -> Credential | None:
    remote = key == REMOTE_CERTIFICATE
    way_out = _PASTE_THE_OTHER if remote else "`pair-agent init` makes one"
    return _read(settings, source, key, way_out, required=required, may_be_absent=remote and not required)


def _read_own_key(settings: Settings, source: Path, required: bool) -> Credential | None:
    credential = _read(settings, source, OWN_KEY, "`pair-agent init` makes one", required=required, may_be_absent=False)
    if credential is None:
        return None
    # A key that came through the environment lies in no file of ours.
    file = credential.path or (None if OWN_KEY in settings.overrides else source)
    if file is not None and (problem := _exposure(file)):
        settings.report(OWN_KEY, problem)
    return credential


def _exposure(file: Path) -> str:
    from agent.platform.permissions import readable_by_others

    try:
        return readable_by_others(file) or ""
    except StateError as error:
        return str(error)


def _read(
    settings: Settings, source: Path, key: str, way_out: str, *, required: bool, may_be_absent: bool
) -> Credential | None:
    if key not in settings.values:
        return None
    value = settings.get(key, str)
    if value is None:
        if required:
            settings.report(key, f"missing; {way_out}", "a path, or the PEM text itself as a multi-line string")
        return None
    path = credential_path(settings, key, source)
    if path is None:
        return Credential(value, None)
    try:
        with path.open("rb") as file:
            data = file.read(PEM_BYTES_MAX + 1)
    except FileNotFoundError:
        if not may_be_absent:
            settings.report(key, f"{path} does not exist; {way_out}")
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is not allowed here"
        settings.report(key, f"{path} cannot be read: {reason}")
        return None
    if len(data) > PEM_BYTES_MAX:
        settings.report(key, f"{path} is larger than {PEM_BYTES_MAX} bytes; that is no certificate or key")
        return None
    try:
        return Credential(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        settings.report(key, f"{path} is not PEM text; export it as Base-64 (PEM), not as DER or PFX")
        return None


def _parsed(settings: Settings, key: str, credential: Credential | None) -> list[Certificate]:
    if credential is None:
        return []
    from agent.link.identity import read_certificates_untrusted

    try:
        certificates = read_certificates_untrusted(credential.pem)
    except CredentialError as error:
        settings.report(key, _placed(credential, str(error)))
        return []
    if key == OWN_CERTIFICATE and len(certificates) > 1:
        problem = f"there are {len(certificates)} certificates; a node has exactly one of its own"
        settings.report(key, _placed(credential, problem))
        return []
    return certificates


def _check_key(settings: Settings, credential: Credential, own: list[Certificate], remote: list[Certificate]) -> bool:
    """Tells whether the key can be used; what is wrong between it and the certificates is reported as well."""
    from agent.link.identity import key_matches, load_private_key_untrusted

    try:
        key = load_private_key_untrusted(credential.pem)
    except CredentialError as error:
        settings.report(OWN_KEY, _placed(credential, str(error)))
        return False
    if own and not key_matches(key, own[0]):
        settings.report(
            OWN_KEY,
            _placed(credential, "does not belong to own_certificate; use the two files of one `pair-agent init`"),
        )
    if any(key_matches(key, certificate) for certificate in remote if certificate not in own):
        settings.report(REMOTE_CERTIFICATE, f"is about this node's own key; {_PASTE_THE_OTHER}")
    return True


def _placed(credential: Credential, problem: str) -> str:
    return f"{credential.path or 'the PEM text'}: {problem}"
