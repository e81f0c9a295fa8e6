"""One TLS connection between two memory buffers: plain bytes on one side, records on the other, nothing that waits.

This is pyOpenSSL's `Connection` over memory BIOs, with the calls that run for every chunk made straight on the binding
below it, into buffers that are kept: pyOpenSSL's own methods allocate and copy once more for every record. After the
handshake OpenSSL reads what was received where it lies, through a read-only BIO of its own for every chunk.
Library errors become this product's here and nowhere else. Invariants: an error, once met, is raised at every later
call in that direction; bytes that were decrypted before it are returned first; after the handshake records are fed
only when all earlier ones were decrypted.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from agent.core.errors import PeerError
from agent.link.alerts import error_from_alert
from agent.link.identity import Identity
from agent.link.tls_context import ALPN_LINK, BulkOffered, Side, connection_for, handshake_record

CHUNK_BYTES = 512 * 1024  # encrypted at a time
# Received without one byte of data: more is an endless handshake, or a flood of key updates or of empty records.
_BYTES_WITHOUT_DATA_MAX = 256 * 1024
_DECRYPTED_BYTES_MAX = 256 * 1024  # returned by one call
_TAKEN_BYTES_MAX = CHUNK_BYTES + 16 * 1024  # with the overhead of the records
_SPACE_BYTES_MAX = 1024 * 1024
_HANDSHAKE_TAKEN_BYTES = 8 * 1024  # strangers get no more memory than that

_NO_CERTIFICATE = "peer did not return a certificate"
_NOT_TLS = frozenset({"wrong version number", "http request", "https proxy request", "packet length too long"})
_NOT_TLS_1_3 = frozenset(
    {"unsupported protocol", "version too low", "no protocols available", "tlsv1 alert protocol version"}
)


class TlsBuffers:
    """One end of a connection; single-threaded, and the caller moves the bytes."""

    def __init__(
        self, identity: Identity, side: Side, protocol: bytes = ALPN_LINK, *, tells_bulk: bool = False
    ) -> None:
        """`tells_bulk`: see `advance_handshake`. Raises CredentialError if the credentials cannot be used."""
        self._connection = connection_for(identity, side, protocol, tells_bulk=tells_bulk)
        self._hello: bytearray | None = bytearray() if tells_bulk else None
        self._ssl: Any = self._connection._ssl
        self._records_out: Any = self._connection._from_ssl
        self._data_pointer: Any = ffi.new("char **")
        self._plain = bytearray()
        self._plain_pointer: Any = None
        self._taken = bytearray(_HANDSHAKE_TAKEN_BYTES)
        self._fed: Any = None  # what OpenSSL reads in place, unless it is in `_space`
        self._space = bytearray()
        self._space_pointer: Any = None
        self._shaken_hands = False
        self._all_decrypted = False  # everything that was fed since the handshake
        self._bytes_without_data = 0
        self._failure: PeerError | None = None
        self.closed_by_peer = False

    def feed_untrusted(self, records: bytes | bytearray | memoryview) -> None:
        """Takes bytes that came from the other end; they are looked at by the next handshake step or decryption.

        After the handshake they must stay as they are until `decrypt` has returned b"".
        """
        if not records:
            return
        if self._shaken_hands:
            self._fed = ffi.from_buffer(records)
            self._read_in_place(self._fed, len(records))
            return
        self._bytes_without_data += len(records)
        self._connection.bio_write(records)
        if self._hello is not None:
            self._hello += records

    def space(self, bytes_max: int) -> memoryview:
        """Returns memory for the next bytes that come from the other end; only when all earlier ones were decrypted."""
        assert self._all_decrypted, "what was fed is not decrypted yet"
        if min(bytes_max, _SPACE_BYTES_MAX) > len(self._space):
            self._space = bytearray(min(bytes_max, _SPACE_BYTES_MAX))
            self._space_pointer = ffi.from_buffer("char[]", self._space)
        return memoryview(self._space)[:bytes_max]

    def filled_untrusted(self, count: int) -> None:
        """Takes the first `count` bytes of what `space` returned."""
        if count:
            self._read_in_place(self._space_pointer, count)

    def _read_in_place(self, pointer: Any, count: int) -> None:
        assert self._all_decrypted, "records were fed before the earlier ones were decrypted"
        self._all_decrypted = False
        self._bytes_without_data += count
        bio = lib.BIO_new_mem_buf(pointer, count)
        lib.BIO_set_mem_eof_return(bio, -1)  # its end is not the connection's
        lib.SSL_set_bio(self._ssl, bio, self._records_out)  # frees the one before
        self._connection._into_ssl = bio

    @property
    def has_records(self) -> bool:
        """True if take_records would return something."""
        pending: int = lib.BIO_get_mem_data(self._records_out, self._data_pointer)
        return pending > 0

    def take_records(self) -> memoryview | None:
        """Returns bytes to send to the other end, None if there are none; the next call overwrites them."""
        pending: int = lib.BIO_get_mem_data(self._records_out, self._data_pointer)
        if pending <= 0:
            return None
        if pending > len(self._taken) and self._shaken_hands:
            self._taken = bytearray(min(pending, _TAKEN_BYTES_MAX))
        taken: int = lib.BIO_read(self._records_out, ffi.from_buffer(self._taken), len(self._taken))
        return memoryview(self._taken)[:taken]

    def advance_handshake(self) -> bool:
        """Goes on with the handshake; returns whether it is complete, else it needs bytes from the other end.

        A server that `tells_bulk` raises BulkOffered if that is what the client wants. Raises PeerError if the other
        end is not who it should be, refused this node, or broke the protocol; what it is to be told (the alert) can be
        taken afterwards.
        """
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._bound_flood()
            if self.has_records:
                self._hello = None
            return False
        except BulkOffered as offered:
            self._failure = PeerError("the other end asks for a bulk connection in its second attempt")
            if self._hello is not None:
                offered.received = bytes(self._hello)
                raise
        except PeerError as error:
            self._failure = error
        except SSL.Error as error:
            self._failure = self._translated(error)
        else:
            self._failure = self._find_fault()
        if self._failure is not None:
            raise self._failure
        self._shaken_hands, self._hello = True, None
        self._bytes_without_data = 0
        self._plain = bytearray(_DECRYPTED_BYTES_MAX)
        self._plain_pointer = ffi.from_buffer("char[]", self._plain)
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
        read = self._decrypt(self._plain_pointer, min(bytes_max, len(self._plain)))
        return bytes(memoryview(self._plain)[:read])

    def decrypt_into(self, buffer: memoryview) -> int:
        """Like `decrypt`, but puts the data into `buffer` and returns how many bytes they are, 0 for none."""
        return self._decrypt(ffi.from_buffer("char[]", buffer), len(buffer))

    def _decrypt(self, pointer: Any, limit: int) -> int:
        if self._failure is not None:
            raise self._failure
        read, ssl, read_record = 0, self._ssl, lib.SSL_read
        lib.ERR_clear_error()
        while read < limit:
            result = read_record(ssl, pointer + read, limit - read)
            if result <= 0:
                self._note_end_of_reading(result)
                break
            read += result
        if read:
            self._bytes_without_data = 0
            return read
        if self._failure is None and not self.closed_by_peer:
            self._bound_flood()
        if self._failure is not None:
            raise self._failure
        return 0

    def close(self) -> None:
        """Makes the close_notify alert, for take_records to return; nothing can be encrypted afterwards."""
        try:
            self._connection.shutdown()
        except SSL.Error as error:
            raise self._translated(error) from error

    @property
    def needs_records(self) -> bool:
        """True if decrypting is known to return nothing until more is fed."""
        return self._all_decrypted and self._failure is None

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
        """The application protocol."""
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
        if lib.SSL_get_error(self._ssl, result) == lib.SSL_ERROR_WANT_READ:
            self._all_decrypted = True
            return
        try:
            self._connection._raise_ssl_error(self._ssl, result)
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
        if self._connection.get_alpn_proto_negotiated() != record.protocol:
            protocol = record.protocol.decode("ascii")
            return PeerError(f"the other end does not speak this product's protocol: it did not agree on {protocol}")
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
