"""What a node proves itself with, and whom it trusts: own certificate and key, the other node's certificates.

A node makes its own key and self-signed certificate; no authority is involved. Trust comes from comparing whole
certificates, so names, dates and extensions in them carry no authority either.
Knows nothing of files' permissions or of TLS. Invariants: an `Identity` holds a key that belongs to its certificate;
a private key is never in a repr or in a message; the remote certificates never include the node's own.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.config.model import Certificates, Credential, Trust
from agent.core.errors import CredentialError
from agent.link.certificates import (
    certificate_der,
    certificate_name,
    certificate_pem,
    describe_certificate,
    fingerprint,
    printable_name,
    validity_finding,
)
from agent.link.paste import PASTE_CHARACTERS_MAX, read_certificates_untrusted

__all__ = [
    "Identity",
    "PrivateKey",
    "certificate_name",
    "certificate_pem",
    "fingerprint",
    "generate_identity",
    "key_matches",
    "load_identity",
    "load_private_key_untrusted",
    "read_certificates_untrusted",
    "validity_warnings",
]

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
"""The kinds of key that can sign a TLS 1.3 handshake (RFC 8446, 4.2.3)."""

VALIDITY_DAYS = 20 * 365 + 5
CLOCK_SKEW_DAYS = 1  # the other node's clock may be behind when it first sees the certificate
COMMON_NAME_BYTES_MAX = 64  # ub-common-name (RFC 5280, appendix A)
RSA_KEY_BITS_MIN = 2048

_NEW_IDENTITY = "`pair-agent init` makes a new key and certificate"


@dataclass(frozen=True, eq=False)
class Identity:
    """One node's credentials, checked against each other; `remote` is empty only if `trust` is not `pinned`."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    remote: tuple[x509.Certificate, ...]
    trust: Trust = Trust.PINNED
    enforce_validity: bool = False


def generate_identity(name: str) -> tuple[str, str]:
    """Returns a new private key (PKCS #8) and its self-signed certificate, both PEM, for the node called `name`.

    The name only labels the certificate: characters that cannot be shown are replaced, and it is cut to
    COMMON_NAME_BYTES_MAX bytes of UTF-8. Raises CredentialError if nothing is left.
    """
    common_name = _common_name(name)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=CLOCK_SKEW_DAYS))
        .not_valid_after(now + datetime.timedelta(days=VALIDITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_pem.decode("ascii"), certificate_pem(certificate)


def _common_name(name: str) -> str:
    shown = printable_name(name)
    shown = shown.encode("utf-8")[:COMMON_NAME_BYTES_MAX].decode("utf-8", errors="ignore").strip()
    if not shown:
        raise CredentialError("A certificate needs the node's name: set `name` in agent.toml, or pass one.")
    return shown


def load_private_key_untrusted(pem: str) -> PrivateKey:
    """Returns the private key in `pem`.

    Raises CredentialError, never showing the text, if it is no key, has a password, or cannot sign a TLS 1.3 handshake.
    """
    if len(pem) > PASTE_CHARACTERS_MAX:
        raise CredentialError(f"the private key is longer than {PASTE_CHARACTERS_MAX} characters; {_NEW_IDENTITY}")
    try:
        key = serialization.load_pem_private_key(pem.lstrip("\ufeff").encode("utf-8", errors="replace"), password=None)
    except TypeError:
        raise CredentialError(
            "the private key is protected by a password; an agent starts unattended, so store it without one; "
            f"{_NEW_IDENTITY}"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        found = "a certificate, not a private key" if "BEGIN CERTIFICATE" in pem else "no private key that can be read"
        raise CredentialError(f"this is {found}; {_NEW_IDENTITY}") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_KEY_BITS_MIN:
        raise CredentialError(
            f"the private key is RSA with {key.key_size} bits; at least {RSA_KEY_BITS_MIN} are needed; {_NEW_IDENTITY}"
        )
    if isinstance(key, PrivateKey):
        return key
    raise CredentialError(f"the private key is of a kind that TLS 1.3 cannot use; {_NEW_IDENTITY}")


def key_matches(key: PrivateKey, certificate: x509.Certificate) -> bool:
    """Tells whether `certificate` is about `key`."""
    return _public_der(key.public_key()) == _public_der_of(certificate)


def load_identity(certificates: Certificates) -> Identity:
    """Returns the identity that the configuration's `[certificates]` describes.

    Raises CredentialError, naming the key of agent.toml, if something is missing or cannot be read, if the key does not
    belong to the certificate, if the remote certificate is this node's own or has this node's key, or, with
    `enforce_validity`, if no remote certificate or not the own one is valid now.
    """
    own = _load_own_certificate(_present(certificates.own_certificate, "own_certificate"))
    key = _load_own_key(_present(certificates.own_key, "own_key"))
    if not key_matches(key, own):
        raise CredentialError(
            f"{_place('own_key', certificates.own_key)}: this key does not belong to own_certificate "
            f"{describe_certificate(own)}; use the two files that one `pair-agent init` made"
        )
    remote = _load_remote(certificates, own)
    if certificates.enforce_validity:
        _refuse_invalid(own, remote)
    return Identity(own, key, remote, certificates.trust, certificates.enforce_validity)


def validity_warnings(identity: Identity, now: datetime.datetime) -> list[str]:
    """Returns one sentence for every certificate of `identity` whose dates are not right at `now` (aware)."""
    warnings = []
    named = [("own certificate", identity.certificate)]
    named += [("remote certificate", certificate) for certificate in identity.remote]
    for place, certificate in named:
        finding = validity_finding(certificate, now)
        if finding is not None:
            warnings.append(f"The {place} {describe_certificate(certificate)} {finding}.")
    return warnings


def _load_own_certificate(credential: Credential) -> x509.Certificate:
    place = _place("own_certificate", credential)
    try:
        found = read_certificates_untrusted(credential.pem)
    except CredentialError as error:
        raise CredentialError(f"{place}: {error}") from None
    if len(found) != 1:
        raise CredentialError(f"{place}: there are {len(found)} certificates; a node has exactly one of its own")
    return found[0]


def _load_own_key(credential: Credential) -> PrivateKey:
    try:
        return load_private_key_untrusted(credential.pem)
    except CredentialError as error:
        raise CredentialError(f"{_place('own_key', credential)}: {error}") from None


def _load_remote(certificates: Certificates, own: x509.Certificate) -> tuple[x509.Certificate, ...]:
    credential = certificates.remote_certificate
    if credential is None:
        if certificates.trust is Trust.PINNED:
            _present(None, "remote_certificate")
        return ()
    place = _place("remote_certificate", credential)
    try:
        remote = tuple(read_certificates_untrusted(credential.pem))
    except CredentialError as error:
        raise CredentialError(f"{place}: {error}") from None
    for certificate in remote:
        if certificate_der(certificate) == certificate_der(own):
            raise CredentialError(
                f"{place}: this is this node's own certificate {describe_certificate(own)}; paste the other node's. "
                "If both nodes show the same one, one was copied from the other: run `pair-agent init` again on one"
            )
        if _public_der_of(certificate) == _public_der_of(own):
            raise CredentialError(
                f"{place}: {describe_certificate(certificate)} has the same key as this node's own certificate; "
                "every node needs a key of its own: run `pair-agent init` again on one of them"
            )
    return remote


def _refuse_invalid(own: x509.Certificate, remote: tuple[x509.Certificate, ...]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    finding = validity_finding(own, now)
    if finding is not None:
        raise CredentialError(
            f"certificates.own_certificate: {describe_certificate(own)} {finding} (enforce_validity is on); "
            f"{_NEW_IDENTITY}"
        )
    findings = [(certificate, validity_finding(certificate, now)) for certificate in remote]
    if findings and all(finding for _, finding in findings):
        listed = "; ".join(f"{describe_certificate(certificate)} {finding}" for certificate, finding in findings)
        raise CredentialError(
            f"certificates.remote_certificate: {listed} (enforce_validity is on); paste a new one from the other node"
        )


def _present(credential: Credential | None, key: str) -> Credential:
    if credential is None:
        raise CredentialError(
            f"certificates.{key} is missing; `pair-agent init` makes this node's own key and certificate, "
            "`pair-agent trust` stores the other node's certificate"
        )
    return credential


def _place(key: str, credential: Credential | None) -> str:
    path = credential.path if credential is not None else None
    return f"certificates.{key}" if path is None else f"certificates.{key} ({path})"


def _public_der(key: object) -> bytes:
    assert isinstance(
        key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
    )
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
