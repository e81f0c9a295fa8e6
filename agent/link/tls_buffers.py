"""One TLS connection between two memory buffers: plain bytes on one side, records on the other, nothing that waits.

This is pyOpenSSL's `Connection` over memory BIOs, with the four calls that run for every chunk made straight on the
binding below it, into buffers that are kept: pyOpenSSL's own methods allocate and copy once more for every record.
Library errors become this product's here and nowhere else. Invariant: an error, once met, is raised at every later
call in that direction; bytes that were decrypted before it are returned first.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from agent.core.errors import PeerError
from agent.link.alerts import error_from_alert
from agent.link.identity import Identity
from agent.link.tls_context import ALPN_PROTOCOL, Side, connection_for, handshake_record

CHUNK_BYTES = 64 * 1024  # encrypted at a time: four full records, which stay in the processor's cache
# Received without one byte of data: more is an endless handshake, or a flood of key updates or of empty records.
_BYTES_WITHOUT_DATA_MAX = 256 * 1024
_DECRYPTED_BYTES_MAX = 256 * 1024  # returned by one call
_TAKEN_BYTES_MAX = 264 * 1024  # a batch of 256 KiB with the overhead of its records
_HANDSHAKE_TAKEN_BYTES = 8 * 1024  # strangers get no more memory than that

_NO_CERTIFICATE = "peer did not return a certificate"
_NOT_TLS = frozenset({"wrong version number", "http request", "https proxy request", "packet length too long"})
_NOT_TLS_1_3 = frozenset(
    {"unsupported protocol", "version too low", "no protocols available", "tlsv1 alert protocol version"}
)


class TlsBuffers:
    """One end of a connection; single-threaded, and the caller moves the bytes."""

    def __init__(self, identity: Identity, side: Side) -> None:
        """Raises CredentialError if the identity's credentials cannot be used."""
        self._connection = connection_for(identity, side)
        self._ssl: Any = self._connection._ssl
        self._records_out: Any = self._connection._from_ssl
        self._data_pointer: Any = ffi.new("char **")
        self._plain = bytearray()
        self._plain_pointer: Any = None
        self._taken = bytearray(_HANDSHAKE_TAKEN_BYTES)
        self._bytes_without_data = 0
        self._failure: PeerError | None = None
        self.closed_by_peer = False

    def feed_untrusted(self, records: bytes | bytearray | memoryview) -> None:
        """Takes bytes that came from the other end; they are looked at by the next handshake step or decryption."""
        if records:
            self._connection.bio_write(records)
            self._bytes_without_data += len(records)

    @property
    def has_records(self) -> bool:
        """True if take_records would return something."""
        pending: int = lib.BIO_get_mem_data(self._records_out, self._data_pointer)
        return pending > 0

    def take_records(self) -> memoryview | None:
        """Returns bytes to send to the other end, None if there are none; the next call overwrites them."""
        taken: int = lib.BIO_read(self._records_out, ffi.from_buffer(self._taken), len(self._taken))
        return memoryview(self._taken)[:taken] if taken > 0 else None

    def advance_handshake(self) -> bool:
        """Goes on with the handshake; returns whether it is complete, else it needs bytes from the other end.

        Raises PeerError if the other end is not who it should be, refused this node, or broke the protocol; what it is
        to be told (the alert) can be taken afterwards.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._bound_flood()
            return False
        except PeerError as error:
            self._failure = error
        except SSL.Error as error:
            self._failure = self._translated(error)
        else:
            self._failure = self._find_fault()
        if self._failure is not None:
            raise self._failure
        self._bytes_without_data = 0
        self._plain = bytearray(_DECRYPTED_BYTES_MAX)
        self._plain_pointer = ffi.from_buffer("char[]", self._plain)
        self._taken = bytearray(_TAKEN_BYTES_MAX)
        return True

    def encrypt(self, data: memoryview) -> None:
        """Makes records of `data` (1 to CHUNK_BYTES bytes); take_records then returns them. Raises PeerError."""
        if self._failure is not None:
            raise self._failure
        while data:
            try:
                written = self._connection.send(data)
            except SSL.WantReadError:
                self._failure = PeerError("the other end sent half a handshake message in the middle of the connection")
                raise self._failure from None
            except SSL.Error as error:
                self._failure = self._translated(error)
                raise self._failure from error
            data = data[written:]

    def decrypt(self, bytes_max: int) -> bytes:
        """Returns up to `bytes_max` bytes of data, b"" if more records are needed or `closed_by_peer` became true.

        Raises PeerError if the other end sent something wrong, an alert, or nothing but records without data.
        """
        if self._failure is not None:
            raise self._failure
        read, pointer = 0, self._plain_pointer
        limit = min(bytes_max, len(self._plain))
        lib.ERR_clear_error()
        while read < limit:
            result = lib.SSL_read(self._ssl, pointer + read, limit - read)
            if result <= 0:
                self._note_end_of_reading(result)
                break
            read += result
        if read:
            self._bytes_without_data = 0
            return bytes(memoryview(self._plain)[:read])
        if self._failure is None and not self.closed_by_peer:
            self._bound_flood()
        if self._failure is not None:
            raise self._failure
        return b""

    def close(self) -> None:
        """Makes the close_notify alert, for take_records to return; nothing can be encrypted afterwards."""
        try:
            self._connection.shutdown()
        except SSL.Error as error:
            raise self._translated(error) from error

    @property
    def peer_certificate(self) -> x509.Certificate:
        """The certificate that was judged."""
        return x509.load_der_x509_certificate(handshake_record(self._connection).judged_der)

    @property
    def warning(self) -> str | None:
        """A sentence about the accepted certificate, if it deserves attention."""
        verdict = handshake_record(self._connection).verdict
        return verdict.warning if verdict is not None else None

    @property
    def alpn(self) -> str:
        """The application protocol, `pair-agent/1`."""
        return self._connection.get_alpn_proto_negotiated().decode("ascii", errors="replace")

    @property
    def cipher(self) -> str:
        """The cipher suite, as OpenSSL names it."""
        return self._connection.get_cipher_name() or ""

    @property
    def group(self) -> str | None:
        """The key exchange group, as OpenSSL names it; None if this pyOpenSSL cannot tell."""
        get_group_name = getattr(self._connection, "get_group_name", None)
        return None if get_group_name is None else get_group_name()

    def export_keying_material(self, label: bytes, length: int) -> bytes:
        """Returns `length` bytes that only the two ends of this connection can compute (RFC 8446, 7.5)."""
        return self._connection.export_keying_material(label, length, b"")

    def _note_end_of_reading(self, result: int) -> None:
        try:
            self._connection._raise_ssl_error(self._ssl, result)
        except SSL.WantReadError:
            return
        except SSL.ZeroReturnError:
            self.closed_by_peer = True
        except SSL.Error as error:
            self._failure = self._translated(error)

    def _bound_flood(self) -> None:
        if self._bytes_without_data > _BYTES_WITHOUT_DATA_MAX:
            self._failure = PeerError(
                f"the other end sent {self._bytes_without_data} bytes of TLS without any data in them; "
                f"at most {_BYTES_WITHOUT_DATA_MAX} are allowed"
            )
            raise self._failure

    def _find_fault(self) -> PeerError | None:
        """Returns what is wrong with a handshake that OpenSSL is content with: nothing may rest on a callback alone."""
        record = handshake_record(self._connection)
        if record.verdict is None:
            return PeerError("the other end's certificate was never judged", code="certificate")
        if record.verdict.refusal is not None:
            return PeerError(record.verdict.refusal, code="certificate")
        certificate = self._connection.get_peer_certificate()
        if certificate is None or crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) != record.judged_der:
            return PeerError("the other end's certificate is not the one that was judged", code="certificate")
        try:
            x509.load_der_x509_certificate(record.judged_der)
        except (ValueError, x509.InvalidVersion):
            return PeerError("the other end's certificate cannot be read", code="certificate")
        if self._connection.get_alpn_proto_negotiated() != ALPN_PROTOCOL:
            return PeerError("the other end does not speak this product's protocol: it did not agree on pair-agent/1")
        return None

    def _translated(self, error: SSL.Error) -> PeerError:
        record = handshake_record(self._connection)
        if record.verdict is not None and record.verdict.refusal is not None:
            return PeerError(record.verdict.refusal, code="certificate")
        if record.alert_received is not None:
            return error_from_alert(record.alert_received)
        reason = _reason(error)
        if reason == _NO_CERTIFICATE:
            return PeerError("refused the other end: it presented no certificate", code="certificate")
        if reason in _NOT_TLS_1_3:
            return PeerError(f"the other end does not offer TLS 1.3, the only version allowed ({reason})")
        if reason in _NOT_TLS:
            return PeerError(f"the other end does not speak TLS ({reason})")
        return PeerError(f"the other end broke the TLS protocol: {reason}")


def _reason(error: SSL.Error) -> str:
    """Returns the last reason in OpenSSL's queue of errors, as pyOpenSSL passes it on."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue and isinstance(queue[-1], tuple):
        return str(queue[-1][-1])
    return "unexpected end" if isinstance(error, SSL.SysCallError) else "no reason given"
