"""How this product sets up OpenSSL: the one place that chooses versions, groups, suites and options.

TLS 1.3 and nothing else, both sides with a certificate, one ALPN protocol, no resumption, no early data. The other
end's certificate is judged by `agent.link.trust` in the verify callback, so a stranger is refused before the
handshake ends. Knows nothing of streams and waiting.

Session tickets: pyOpenSSL offers no way to switch off the two NewSessionTicket messages of a server. They are made
worthless instead: without a session cache and with OP_NO_TICKET they hold an identifier that nobody remembers, so
that every connection is a full handshake, and its certificate is judged again.
"""

from __future__ import annotations

import datetime
import enum
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from agent.config.model import Trust
from agent.core.errors import CredentialError, PeerError
from agent.link.alerts import Alert
from agent.link.identity import Identity
from agent.link.trust import Judge, Verdict

ALPN_LINK = b"pair-agent/1"
ALPN_BULK = b"pair-agent-bulk/1"

# AES-128 first: it is the fastest with AES instructions, and no weaker against anything known.
_CIPHER_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# The hybrid keeps recorded traffic secret from a later quantum computer (RFC 8446, 4.2.7; draft-ietf-tls-ecdhe-mlkem).
_GROUPS_BY_PREFERENCE = (b"X25519MLKEM768:X25519:P-256", b"X25519:P-256")
_CHAIN_DEPTH_MAX = 4
_CONTEXTS_MAX = 8  # both sides and both protocols, of the identity in use and of the one that it replaced


class Side(enum.Enum):
    """Which end of the handshake this node is."""

    CLIENT = "client"
    SERVER = "server"


class BulkOffered(Exception):  # noqa: N818  it is no error: it says where the connection goes
    """A client asks for a bulk connection, of a server that has others serve these. Nothing was sent to it yet.

    `received` is everything that it sent: whoever goes on with it must begin with that.
    """

    def __init__(self) -> None:
        super().__init__("a bulk connection is asked for")
        self.received = b""


@dataclass
class HandshakeRecord:
    """What the callbacks of one connection saw; hangs on the connection as its application data."""

    protocol: bytes = ALPN_LINK  # the one that this side speaks
    tells_bulk: bool = False  # a server of the link: a client that offers bulk is not refused but told of
    verdict: Verdict | None = None
    judged_der: bytes = field(default=b"", repr=False)
    alert_received: int | None = None


def connection_for(
    identity: Identity, side: Side, protocol: bytes = ALPN_LINK, *, tells_bulk: bool = False
) -> SSL.Connection:
    """Returns a fresh connection over memory buffers; its `HandshakeRecord` is its application data.

    Raises CredentialError if the credentials or the system's store of certificates cannot be loaded.
    """
    connection = SSL.Connection(_context(identity, side, protocol), None)
    connection.set_app_data(HandshakeRecord(protocol, tells_bulk))
    if side is Side.CLIENT:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    return connection


def handshake_record(connection: SSL.Connection) -> HandshakeRecord:
    """Returns what the callbacks noted about a connection made by `connection_for`."""
    record = connection.get_app_data()
    assert isinstance(record, HandshakeRecord)
    return record


@functools.lru_cache(maxsize=_CONTEXTS_MAX)
def _context(identity: Identity, side: Side, protocol: bytes) -> SSL.Context:
    try:
        return _make_context(identity, side, protocol)
    except (OSError, SSL.Error, crypto.Error) as error:
        raise CredentialError(f"TLS cannot be set up with these certificates: {error}") from error


def _make_context(identity: Identity, side: Side, protocol: bytes) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_CIPHER_SUITES)
    context.set_options(
        SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # One call then encrypts a whole chunk instead of one record of 16 KiB.
    context.clear_mode(lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
    _prefer_hybrid_group(context)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.key)
    if identity.trust is Trust.SYSTEM:
        _load_system_store(context)
    context.set_verify_depth(_CHAIN_DEPTH_MAX)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify_callback(Judge(identity)))
    context.set_info_callback(_note_alert)
    if side is Side.CLIENT:
        context.set_alpn_protos([protocol])
    else:
        context.set_alpn_select_callback(_select_protocol)
    return context


def _prefer_hybrid_group(context: SSL.Context) -> None:
    """Sets the key exchange groups, where this OpenSSL and the binding under pyOpenSSL offer that."""
    set_groups = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if set_groups is None:
        return
    for groups in _GROUPS_BY_PREFERENCE:
        if set_groups(context._context, groups) == 1:
            return
        lib.ERR_clear_error()


def _load_system_store(context: SSL.Context) -> None:
    if sys.platform == "win32":
        import ssl

        store = context.get_cert_store()
        assert store is not None
        for name in ("ROOT", "CA"):
            for der, encoding, purposes in ssl.enum_certificates(name):
                if encoding != "x509_asn":
                    continue
                if not isinstance(purposes, bool) and ssl.Purpose.SERVER_AUTH.oid not in purposes:
                    continue
                try:
                    store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(der)))
                except (ValueError, x509.InvalidVersion, crypto.Error):
                    continue  # one odd certificate of the store must not take the others away
    else:
        context.set_default_verify_paths()


def _verify_callback(judge: Judge) -> Callable[[SSL.Connection, crypto.X509, int, int, int], bool]:
    """Returns OpenSSL's verify callback: asked at least once for every certificate of the chain; depth 0 is the leaf.

    OpenSSL asks about the leaf last, so a fault that it found anywhere in the chain is known by then.
    """

    def verify(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, accepted: int) -> bool:
        record = handshake_record(connection)
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        chain_error = None if accepted else _verify_error_sentence(error)
        if depth > 0 and chain_error is not None and judge.trust is Trust.SYSTEM:
            record.verdict = judge.judge_chain(der, chain_error)
        elif depth == 0:
            now = datetime.datetime.now(datetime.UTC)
            record.verdict = judge.judge_untrusted(der, now, chain_error=chain_error)
            record.judged_der = der
        else:
            return True
        return record.verdict.refusal is None

    return verify


def _verify_error_sentence(error: int) -> str:
    sentence: bytes = ffi.string(lib.X509_verify_cert_error_string(error))
    return sentence.decode("ascii", errors="replace")


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """OpenSSL's ALPN callback on a server, called before anything is sent; an exception ends the handshake (with the
    alert no_application_protocol) and is raised by the call that drives it.
    """
    record = handshake_record(connection)
    if record.protocol in offered:
        return record.protocol
    if record.tells_bulk and ALPN_BULK in offered:
        raise BulkOffered
    raise PeerError(
        f"the other end does not speak this product's protocol: it did not offer ALPN {record.protocol.decode('ascii')}"
    )


def _note_alert(connection: SSL.Connection, where: int, value: int) -> None:
    """OpenSSL's information callback: keeps the first alert received; the low byte is its description."""
    if where & SSL.SSL_CB_ALERT and where & SSL.SSL_CB_READ:
        record = handshake_record(connection)
        if record.alert_received is None and value & 0xFF != Alert.CLOSE_NOTIFY:
            record.alert_received = value & 0xFF
