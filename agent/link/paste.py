"""Reads certificates out of text that a person pasted, and says what it is when it is something else.

A paste passes through mail, chat, terminals and word processors, so what they do is undone: line ends, indentation,
quotation marks of mail, spaces that are not spaces, a byte order mark, dashes made long, lines joined into one, text
around. What remains must be whole: the base64 must decode and the DER must be one certificate, to the last byte.
Knows nothing of whether a certificate is trusted, and never repeats the text it read: it may hold a private key.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from agent.core.errors import CredentialError
from agent.link.certificates import certificate_der

PASTE_CHARACTERS_MAX = 256 * 1024
CERTIFICATES_MAX = 16

_WAY_OUT = "Run `pair-agent cert show` on the other node and copy everything from BEGIN CERTIFICATE to END CERTIFICATE."

# Invisible in an editor, fatal in base64: byte order mark, zero-width characters, soft hyphen.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\ufffe\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"))
# Word processors turn two hyphens into one long dash.
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2212"), "-") | dict.fromkeys(map(ord, "\u2012\u2013\u2014\u2015"), "--")

# The dashes behind a label are only looked at: joined lines share them with the next block's.
_MARKER = re.compile(r"-----\s?(BEGIN|END)\s([A-Z0-9][A-Z0-9 ]{0,40}[A-Z0-9])(?=\s|-----|$)")
_PRIVATE_KEY = re.compile(r"(?:BEGIN|END) (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY|PuTTY-User-Key-File")
# In the body: line ends, the marks of quoted mail and of lists, and the dashes of the marker before it.
_NOT_BASE64 = re.compile(r"[\s>|\"',-]+")
_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}[:\s]){15,}[0-9A-Fa-f]{2}")

_CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_OTHER_LABELS = {
    "CERTIFICATE REQUEST": "a certificate request, not a certificate",
    "NEW CERTIFICATE REQUEST": "a certificate request, not a certificate",
    "PUBLIC KEY": "a public key, not a certificate",
    "RSA PUBLIC KEY": "a public key, not a certificate",
    "SSH2 PUBLIC KEY": "a public key, not a certificate",
    "TRUSTED CERTIFICATE": "a certificate in OpenSSL's own TRUSTED form, not a plain one",
    "PKCS7": "a PKCS #7 bundle, not a certificate",
    "CMS": "a CMS bundle, not a certificate",
    "X509 CRL": "a revocation list, not a certificate",
}


@dataclass(frozen=True)
class _Marker:
    begins: bool
    label: str
    start: int
    end: int


def read_certificates_untrusted(text: str) -> list[x509.Certificate]:
    """Returns the certificates in `text`, in order, each once; at most CERTIFICATES_MAX of them.

    Raises CredentialError if the text holds none, is longer than PASTE_CHARACTERS_MAX, holds a block that is cut off or
    damaged, or holds something else: a private key, a certificate request, a public key. The error says which.
    """
    if len(text) > PASTE_CHARACTERS_MAX:
        raise CredentialError(
            f"The pasted text has {len(text)} characters; at most {PASTE_CHARACTERS_MAX} are read. {_WAY_OUT}"
        )
    text = _normalized(text)
    if not text:
        raise CredentialError(f"There is no certificate: the text is empty. {_WAY_OUT}")
    _refuse_private_key(text)
    certificates: dict[bytes, x509.Certificate] = {}
    for label, body in _blocks(text):
        if label not in _CERTIFICATE_LABELS:
            found = _OTHER_LABELS.get(label, f"a block named {label}, not a certificate")
            raise CredentialError(f"This is {found}. {_WAY_OUT}")
        certificate = _decode_block(body, number=len(certificates) + 1)
        certificates.setdefault(certificate_der(certificate), certificate)
        if len(certificates) > CERTIFICATES_MAX:
            raise CredentialError(f"There are more than {CERTIFICATES_MAX} certificates; paste only the other node's.")
    return list(certificates.values())


def _normalized(text: str) -> str:
    text = text.translate(_INVISIBLE).translate(_DASHES)
    text = text.replace("\\r", "\n").replace("\\n", "\n")
    # Every run is shortened first: the patterns below then look at each character a bounded number of times.
    text = re.sub(r"-{2,}", "-----", text)
    return re.sub(r"\s+", " ", text).strip()


def _refuse_private_key(text: str) -> None:
    if _PRIVATE_KEY.search(text):
        raise CredentialError(
            "This is a private key: never paste it or send it anywhere. If it has left its node, make a new one and "
            "its certificate there: `pair-agent init --directory NEW-FOLDER`, and put both in place of the old ones. "
            f"What is needed here is the certificate. {_WAY_OUT}"
        )


def _blocks(text: str) -> list[tuple[str, str]]:
    """Returns label and body of every block between a BEGIN and its END."""
    markers = [_Marker(match[1] == "BEGIN", match[2], match.start(), match.end()) for match in _MARKER.finditer(text)]
    if not markers:
        raise CredentialError(_no_block(text))
    blocks = []
    opened: _Marker | None = None
    for marker in markers:
        if marker.begins:
            if opened is not None:
                break
            opened = marker
        else:
            if opened is None:
                raise CredentialError(f"The text is cut off: END {marker.label} stands without its BEGIN. {_WAY_OUT}")
            if opened.label != marker.label:
                raise CredentialError(f"BEGIN {opened.label} is followed by END {marker.label}. {_WAY_OUT}")
            blocks.append((opened.label, text[opened.end : marker.start]))
            opened = None
    if opened is not None:
        raise CredentialError(f"The text is cut off: BEGIN {opened.label} stands without its END. {_WAY_OUT}")
    return blocks


def _no_block(text: str) -> str:
    if re.search(r"(?:^|\s)(?:ssh-[a-z0-9]+|ecdsa-sha2-\S+) ", text):
        return f"This is a public key for SSH, not a certificate. {_WAY_OUT}"
    if _FINGERPRINT.search(text):
        return f"This is a fingerprint; it serves for comparing only. {_WAY_OUT}"
    if "BEGIN" in text or "END CERTIFICATE" in text:
        return f"The text is cut off: the line BEGIN CERTIFICATE or its dashes are incomplete. {_WAY_OUT}"
    if re.match(r"MI[A-Z][A-Za-z0-9+/]", text):
        return f"The lines BEGIN CERTIFICATE and END CERTIFICATE are missing around the text. {_WAY_OUT}"
    return f"There is no certificate in this text. {_WAY_OUT}"


def _decode_block(body: str, *, number: int) -> x509.Certificate:
    base64_text = _NOT_BASE64.sub("", body).rstrip("=")
    try:
        der = base64.b64decode(base64_text + "=" * (-len(base64_text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise CredentialError(
            f"Certificate {number} is damaged: characters are missing, or do not belong there. {_WAY_OUT}"
        ) from None
    length = _der_length(der)
    if length is not None and length > len(der):
        raise CredentialError(f"Certificate {number} is cut off: {len(der)} of its {length} bytes are here. {_WAY_OUT}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
    except UnsupportedAlgorithm:
        raise CredentialError(f"Certificate {number} has a kind of key that cannot be used. {_WAY_OUT}") from None
    except (ValueError, TypeError, x509.InvalidVersion):
        raise CredentialError(f"Certificate {number} is damaged: it is no certificate inside. {_WAY_OUT}") from None
    return certificate


def _der_length(der: bytes) -> int | None:
    """Returns how long the DER value says that it is, header included (X.690, 8.1.3); None if it is no sequence."""
    if len(der) < 2 or der[0] != 0x30:
        return None
    if der[1] < 0x80:
        return 2 + der[1]
    length_bytes = der[1] & 0x7F
    if not 1 <= length_bytes <= 4 or len(der) < 2 + length_bytes:
        return None
    return 2 + length_bytes + int.from_bytes(der[2 : 2 + length_bytes], "big")
