"""A node's identity: what is generated, and what is refused when it is loaded."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.config.model import Certificates, Credential, Trust
from agent.core.errors import CredentialError
from agent.link.identity import (
    certificate_name,
    certificate_pem,
    fingerprint,
    generate_identity,
    key_matches,
    load_identity,
    load_private_key_untrusted,
    read_certificates_untrusted,
    validity_warnings,
)
from tests.link.tls_material import NOW, Signed, make_certificate


def key_pem(signed: Signed) -> str:
    return pem_of(signed.key)


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def configured(
    own: Signed,
    *remote: Signed,
    key: Signed | None = None,
    trust: Trust = Trust.PINNED,
    enforce_validity: bool = False,
) -> Certificates:
    pasted = "".join(certificate_pem(each.certificate) for each in remote)
    return Certificates(
        own_certificate=Credential(certificate_pem(own.certificate), Path("certs/own.crt")),
        own_key=Credential(key_pem(key or own), Path("certs/own.key")),
        remote_certificate=Credential(pasted, None) if remote else None,
        trust=trust,
        enforce_validity=enforce_validity,
    )


@pytest.fixture(scope="module")
def own() -> Signed:
    return make_certificate("own")


@pytest.fixture(scope="module")
def remote() -> Signed:
    return make_certificate("remote")


def test_a_generated_certificate_has_the_promised_shape() -> None:
    pem, certificate_text = generate_identity("line-4-a")
    [certificate] = read_certificates_untrusted(certificate_text)
    key = load_private_key_untrusted(pem)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key_matches(key, certificate)
    assert certificate.version is x509.Version.v3
    assert certificate.subject == certificate.issuer
    assert certificate_name(certificate) == "line-4-a"
    now = datetime.datetime.now(datetime.UTC)
    assert now - datetime.timedelta(days=2) < certificate.not_valid_before_utc < now - datetime.timedelta(hours=23)
    assert datetime.timedelta(days=20 * 365) < certificate.not_valid_after_utc - now < datetime.timedelta(days=20 * 366)
    extensions = certificate.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    usages = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    certificate.verify_directly_issued_by(certificate)


def test_two_identities_of_one_name_share_nothing() -> None:
    (key, first), (other_key, second) = generate_identity("a"), generate_identity("a")
    assert key != other_key
    [one], [other] = read_certificates_untrusted(first), read_certificates_untrusted(second)
    assert one.serial_number != other.serial_number
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Linie 4 – Süd", "Linie 4 – Süd"),
        ("生产线", "生产线"),
        ("  spaces  ", "spaces"),
        ("a\nb\x1b[2Jc\0", "a\ufffdb\ufffd[2Jc\ufffd"),
        ("\ud800", "\ufffd"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 63),
        ("ü" * 40, "ü" * 32),
        ("😀" * 300, "😀" * 16),
    ],
)
def test_any_name_makes_a_certificate_and_is_bounded(name: str, shown: str) -> None:
    [certificate] = read_certificates_untrusted(generate_identity(name)[1])
    assert certificate_name(certificate) == shown


@pytest.mark.parametrize("name", ["", "   "])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(CredentialError, match="name"):
        generate_identity(name)


def test_a_fingerprint_is_the_sha_256_in_pairs(own: Signed) -> None:
    digest = own.certificate.fingerprint(hashes.SHA256())
    assert fingerprint(own.certificate) == ":".join(f"{byte:02X}" for byte in digest)


def test_an_identity_is_loaded_and_never_shows_its_key(own: Signed, remote: Signed) -> None:
    second = make_certificate("remote, rotated")
    identity = load_identity(configured(own, remote, second, enforce_validity=True))
    assert identity.certificate == own.certificate
    assert identity.remote == (remote.certificate, second.certificate)
    assert identity.trust is Trust.PINNED
    assert identity.enforce_validity
    assert repr(identity.key) not in repr(identity)
    assert "key=" not in repr(identity)


def test_a_key_of_another_certificate_is_refused(own: Signed, remote: Signed) -> None:
    with pytest.raises(CredentialError, match=r"own_key \(certs.own\.key\): this key does not belong"):
        load_identity(configured(own, remote, key=remote))


def test_the_own_certificate_as_remote_is_refused(own: Signed, remote: Signed) -> None:
    for pasted in ([own], [remote, own]):
        with pytest.raises(CredentialError, match="this node's own certificate 'own'"):
            load_identity(configured(own, *pasted))


def test_a_remote_certificate_with_the_own_key_is_refused(own: Signed) -> None:
    with pytest.raises(CredentialError, match="same key as this node's own"):
        load_identity(configured(own, make_certificate("clone", key=own.key)))


def test_expired_certificates_are_refused_only_if_validity_is_enforced(own: Signed, remote: Signed) -> None:
    late = make_certificate("late", first_day=-30, last_day=-1)
    with pytest.raises(CredentialError, match=r"remote_certificate: 'late'.* expired at .*enforce_validity"):
        load_identity(configured(own, late, enforce_validity=True))
    with pytest.raises(CredentialError, match=r"own_certificate: 'late'.* expired at"):
        load_identity(configured(late, remote, enforce_validity=True))
    # One that is valid is enough: the handshake refuses the other one alone.
    load_identity(configured(own, late, remote, enforce_validity=True))
    identity = load_identity(configured(late, remote))
    [warning] = validity_warnings(identity, NOW)
    assert warning.startswith("The own certificate 'late'")


def test_what_is_missing_is_named(own: Signed, remote: Signed) -> None:
    full = configured(own, remote)
    for lacking in ("own_certificate", "own_key", "remote_certificate"):
        parts = {name: getattr(full, name) for name in ("own_certificate", "own_key", "remote_certificate")}
        parts[lacking] = None
        with pytest.raises(CredentialError, match=f"certificates.{lacking} is missing"):
            load_identity(Certificates(**parts))


@pytest.mark.parametrize("trust", [Trust.SYSTEM, Trust.INSECURE])
def test_without_pinning_no_remote_certificate_is_needed(own: Signed, trust: Trust) -> None:
    assert load_identity(configured(own, trust=trust)).remote == ()


def test_two_own_certificates_are_refused(own: Signed, remote: Signed) -> None:
    both = certificate_pem(own.certificate) + certificate_pem(remote.certificate)
    with pytest.raises(CredentialError, match="there are 2 certificates; a node has exactly one"):
        load_identity(Certificates(Credential(both, None), Credential(key_pem(own), None), None))


def test_errors_name_the_setting_the_bad_text_came_from(own: Signed, remote: Signed) -> None:
    good = configured(own, remote)
    with pytest.raises(CredentialError, match=r"^certificates.remote_certificate: "):
        load_identity(Certificates(good.own_certificate, good.own_key, Credential("rubbish", None)))
    with pytest.raises(CredentialError, match=r"^certificates.own_certificate \(x.crt\): "):
        load_identity(Certificates(Credential("rubbish", Path("x.crt")), good.own_key, good.remote_certificate))
    with pytest.raises(CredentialError, match=r"^certificates.own_key \(x.key\): "):
        load_identity(Certificates(good.own_certificate, Credential("rubbish", Path("x.key")), good.remote_certificate))


def test_every_kind_of_key_that_tls_1_3_can_use_is_read() -> None:
    for key in (
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ):
        assert load_private_key_untrusted("\ufeff" + pem_of(key).replace("\n", "\r\n"))


def test_keys_that_cannot_be_used_are_refused_without_showing_them(own: Signed) -> None:
    locked = own.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    ).decode("ascii")
    for text, words in (
        ("", "no private key"),
        ("rubbish \ud800", "no private key"),
        (certificate_pem(own.certificate), "a certificate, not a private key"),
        (locked, "password"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "RSA with 1024 bits"),
        (pem_of(dsa.generate_private_key(2048)), "cannot use"),
        (key_pem(own)[:-60], "no private key"),
        ("x" * 300_000, "longer than"),
    ):
        with pytest.raises(CredentialError, match=words) as refused:
            load_private_key_untrusted(text)
        assert key_pem(own).splitlines()[1] not in str(refused.value)
        assert refused.value.__context__ is None or refused.value.__suppress_context__
