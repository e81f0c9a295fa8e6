"""Certificates as people see them: their PEM text, their fingerprint, their name.

Knows nothing of keys, trust or pasting. A name comes from the certificate, so whoever made the certificate chose it:
it is for reading only, made printable and short, and decides nothing.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

NAME_CHARACTERS_MAX = 64


def certificate_pem(certificate: x509.Certificate) -> str:
    """Returns the PEM text, ready to paste, with a newline at its end."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def certificate_der(certificate: x509.Certificate) -> bytes:
    """Returns the whole certificate as it is compared: its DER bytes."""
    return certificate.public_bytes(Encoding.DER)


def fingerprint(certificate: x509.Certificate) -> str:
    """Returns the SHA-256 of the DER bytes as upper-case pairs: "AB:CD:..." with 32 pairs."""
    return format_fingerprint(certificate.fingerprint(hashes.SHA256()))


def fingerprint_of_der(der: bytes) -> str:
    """Returns what `fingerprint` does, for bytes that need not be a certificate that can be read."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return format_fingerprint(digest.finalize())


def format_fingerprint(digest: bytes) -> str:
    """Returns the pairs of `digest` in upper case, joined by colons."""
    return digest.hex(":").upper()


def certificate_name(certificate: x509.Certificate) -> str:
    """Returns the certificate's common name for people: printable, one line, at most NAME_CHARACTERS_MAX characters.

    Without a common name the whole subject is shown; "(no name)" if there is none, "(unreadable name)" if it is broken.
    """
    try:
        subject = certificate.subject
        names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        name = ", ".join(names) or subject.rfc4514_string()
    except ValueError:
        return "(unreadable name)"
    return printable_name(name) or "(no name)"


def printable_name(name: str) -> str:
    """Returns `name`, cut to the bound, with every character replaced that could forge a line or steer a terminal."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    shown = shown.strip()
    return shown if len(shown) <= NAME_CHARACTERS_MAX else shown[: NAME_CHARACTERS_MAX - 1] + "…"


def describe_certificate(certificate: x509.Certificate) -> str:
    """Returns the name and the fingerprint, as sentences show a certificate."""
    return f"'{certificate_name(certificate)}', SHA-256 {fingerprint(certificate)}"


def validity_finding(certificate: x509.Certificate, now: datetime.datetime) -> str | None:
    """Returns what is wrong with the certificate's dates at `now` (aware), as a sentence's end; None if nothing is."""
    if now > certificate.not_valid_after_utc:
        return f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
    return None
