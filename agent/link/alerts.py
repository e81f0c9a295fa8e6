"""TLS alerts, as sentences: what the other end meant when it ended the handshake (RFC 8446, section 6.2).

Until the handshake has keys an alert is not authenticated: a sentence says what was received, it proves nothing.
"""

from __future__ import annotations

import enum

from agent.core.errors import PeerError


class Alert(enum.IntEnum):
    """The alerts of RFC 8446 that one of these nodes can meet."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


_CERTIFICATE_REFUSED = frozenset(
    {
        Alert.BAD_CERTIFICATE,
        Alert.UNSUPPORTED_CERTIFICATE,
        Alert.CERTIFICATE_REVOKED,
        Alert.CERTIFICATE_EXPIRED,
        Alert.CERTIFICATE_UNKNOWN,
        Alert.UNKNOWN_CA,
        Alert.ACCESS_DENIED,
    }
)


def error_from_alert(number: int) -> PeerError:
    """Returns the error for an alert with this number that the other end sent."""
    shown = _shown(number)
    if number in _CERTIFICATE_REFUSED:
        return PeerError(
            f"the other node refused this node's certificate ({shown}): paste `pair-agent cert show` of this node into "
            "remote_certificate of the other one",
            code="certificate",
        )
    if number == Alert.CERTIFICATE_REQUIRED:
        return PeerError(f"the other node wants a certificate and received none ({shown})", code="certificate")
    if number == Alert.PROTOCOL_VERSION:
        return PeerError(f"the other end does not accept TLS 1.3, the only version allowed ({shown})")
    if number == Alert.NO_APPLICATION_PROTOCOL:
        return PeerError(f"the other end does not speak this product's protocol pair-agent/1 ({shown})")
    return PeerError(f"the other end broke off TLS ({shown})")


def _shown(number: int) -> str:
    try:
        return f"alert {Alert(number).name.lower()}"
    except ValueError:
        return f"alert number {number}"
