"""Judges the certificate that the other end presents, in the middle of the handshake.

Three ways (`certificates.trust`): `pinned` accepts exactly the certificates in `remote_certificate`; `system` accepts
what the operating system's store vouches for, for any name, so that everyone who can get a certificate from there
gets in; `insecure` accepts everyone. Whoever presents this node's own certificate is refused in all three.
Only the leaf counts: a certificate signed by a pinned one is a stranger. Whole DER encodings are compared, never
names, keys or fingerprints. Knows nothing of TLS and reads no clock.
"""

from __future__ import annotations

import datetime
import hmac
from dataclasses import dataclass

from cryptography import x509

from agent.config.model import Trust
from agent.link.certificates import certificate_der, certificate_name, fingerprint_of_der, validity_finding
from agent.link.identity import Identity


@dataclass(frozen=True)
class Verdict:
    """What was decided about one certificate: `refusal` is a sentence, None means accepted.

    `warning` is a sentence about an accepted certificate that deserves attention.
    """

    refusal: str | None
    warning: str | None = None


class Judge:
    """Decides for one identity; comparing costs the same whichever pinned certificate matches, or none."""

    def __init__(self, identity: Identity) -> None:
        self.trust = identity.trust
        self._enforce_validity = identity.enforce_validity
        self._own_der = certificate_der(identity.certificate)
        self._pinned = identity.remote
        self._pinned_der = [certificate_der(certificate) for certificate in identity.remote]

    def judge_untrusted(self, der: bytes, now: datetime.datetime, *, chain_error: str | None) -> Verdict:
        """Returns the verdict on the leaf `der` (bytes nobody has checked) at `now` (aware).

        `chain_error` is what the library found against the chain, None if nothing; only `system` listens to it.
        """
        if hmac.compare_digest(der, self._own_der):
            return Verdict(
                f"refused {_described(der)}: own certificate reflected; this is this node's own certificate. The other "
                "node was copied from this one, or something sends this node's own traffic back to it"
            )
        if self.trust is Trust.INSECURE:
            return Verdict(None, f"accepted {_described(der)} without any check (trust is insecure)")
        if self.trust is Trust.SYSTEM:
            if chain_error is None:
                return Verdict(None)
            return Verdict(f"refused {_described(der)}: the system's certificate store says: {chain_error}")
        return self._judge_pinned(der, now)

    def judge_chain(self, der: bytes, chain_error: str) -> Verdict:
        """Returns the refusal for a fault that the library found in `der`, a certificate above the leaf."""
        return Verdict(
            f"refused the chain at the {_described(der)}: the system's certificate store says: {chain_error}"
        )

    def _judge_pinned(self, der: bytes, now: datetime.datetime) -> Verdict:
        matches = [hmac.compare_digest(der, pinned) for pinned in self._pinned_der]
        if not any(matches):
            return Verdict(
                f"refused {_described(der)}: not among the {len(matches)} pinned in remote_certificate. If this is the "
                "other node, compare the fingerprint with `pair-agent cert show --fingerprint` there and trust it here"
            )
        finding = validity_finding(self._pinned[matches.index(True)], now)
        if finding is None:
            return Verdict(None)
        if self._enforce_validity:
            return Verdict(f"refused {_described(der)}: it {finding} (enforce_validity is on)")
        return Verdict(None, f"accepted {_described(der)}, though it {finding} (enforce_validity is off)")


def _described(der: bytes) -> str:
    try:
        name = certificate_name(x509.load_der_x509_certificate(der))
    except (ValueError, x509.InvalidVersion):
        name = "(unreadable name)"
    return f"certificate of '{name}', SHA-256 {fingerprint_of_der(der)}"
