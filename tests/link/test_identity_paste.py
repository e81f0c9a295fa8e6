"""Pasted certificates are read through everything that pasting does to them; anything else is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import CredentialError
from agent.link.identity import certificate_pem, generate_identity, read_certificates_untrusted

KEY, PEM = generate_identity("pasted")
OTHER_PEM = generate_identity("other")[1]
CERTIFICATE = x509.load_pem_x509_certificate(PEM.encode())
BODY = "".join(PEM.splitlines()[1:-1])


def lines(change: Callable[[str], str]) -> str:
    return "\n".join(change(line) for line in PEM.splitlines())


DAMAGE_OF_PASTING = {
    "as it is": PEM,
    "no newline at the end": PEM.rstrip("\n"),
    "Windows line ends": PEM.replace("\n", "\r\n"),
    "old Macintosh line ends": PEM.replace("\n", "\r"),
    "doubled line ends": PEM.replace("\n", "\r\n\r\n"),
    "indented": lines(lambda line: "    " + line),
    "indented with tabs and trailing spaces": lines(lambda line: "\t" + line + "  "),
    "quoted mail": lines(lambda line: "> " + line),
    "twice quoted mail": lines(lambda line: ">> > " + line),
    "a bar of quotation": lines(lambda line: "| " + line),
    "spaces that do not break": lines(lambda line: "\u00a0" + line).replace(" ", "\u00a0"),
    "byte order mark": "\ufeff" + PEM,
    "zero-width spaces": PEM.replace("\n", "\u200b\n"),
    "lines joined by spaces": PEM.replace("\n", " "),
    "lines joined by nothing": PEM.replace("\n", ""),
    "escaped newlines": PEM.replace("\n", "\\n"),
    "escaped Windows newlines in quotation marks": '"' + PEM.replace("\n", "\\r\\n") + '"',
    "list of quoted lines": lines(lambda line: f"'{line}',"),
    "wrapped elsewhere": PEM.splitlines()[0] + "\n" + re.sub("(.{17})", "\\1\n", BODY) + "\n" + PEM.splitlines()[-1],
    "text around": "Hello,\nhere is mine -- as promised:\n\n" + PEM + "\nBEGIN and END are included.\nRegards",
    "text around on the same line": "mine: " + PEM.replace("\n", " ") + " thanks",
    "long dashes": PEM.replace("-----", "\u2014\u2014-"),
    "a dash lost at both ends": PEM.strip()[1:-1],
    "all dashes lost at the end": PEM.strip().rstrip("-"),
    "padding lost": PEM.replace("=", ""),
    "typographic line separators": PEM.replace("\n", "\u2028"),
    "old label": PEM.replace("CERTIFICATE", "X509 CERTIFICATE"),
    "twice the same": PEM + PEM,
}


@pytest.mark.parametrize("damaged", DAMAGE_OF_PASTING.values(), ids=DAMAGE_OF_PASTING.keys())
def test_a_certificate_survives_pasting(damaged: str) -> None:
    assert read_certificates_untrusted(damaged) == [CERTIFICATE]


def test_several_certificates_are_read_in_order() -> None:
    for text in (PEM + OTHER_PEM, (PEM + OTHER_PEM).replace("\n", " "), PEM.strip() + OTHER_PEM):
        assert [certificate_pem(each) for each in read_certificates_untrusted(text)] == [PEM, OTHER_PEM]


def request_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def public_key_pem() -> str:
    return (
        CERTIFICATE.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


REFUSED = {
    "empty": ("", "empty"),
    "blank": (" \n\t\ufeff", "empty"),
    "private key": (KEY, "private key: never paste"),
    "private key joined to one line": (KEY.replace("\n", " "), "private key: never paste"),
    "old private key": ("-----BEGIN EC PRIVATE KEY-----\nx", "private key: never paste"),
    "locked private key": ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "private key: never paste"),
    "ssh private key": ("-----BEGIN OPENSSH PRIVATE KEY-----\nx", "private key: never paste"),
    "putty private key": ("PuTTY-User-Key-File-3: ecdsa", "private key: never paste"),
    "certificate and private key": (PEM + KEY, "private key: never paste"),
    "certificate request": (request_pem(), "certificate request"),
    "public key": (public_key_pem(), "public key"),
    "ssh public key": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ user@host", "public key for SSH"),
    "fingerprint": ("SHA256 Fingerprint=" + ":".join(["AB"] * 32), "fingerprint"),
    "pkcs 7": (PEM.replace("CERTIFICATE", "PKCS7"), "PKCS #7"),
    "unknown block": (PEM.replace("CERTIFICATE", "SOMETHING ELSE"), "SOMETHING ELSE"),
    "no end": ("\n".join(PEM.splitlines()[:-1]), "cut off"),
    "no beginning": ("\n".join(PEM.splitlines()[1:]), "cut off"),
    "two beginnings": ("\n".join(PEM.splitlines()[:5]) + "\n" + PEM, "cut off"),
    "no markers": (BODY, "BEGIN CERTIFICATE and END CERTIFICATE are missing"),
    "lines missing in the middle": ("\n".join(PEM.splitlines()[:4] + PEM.splitlines()[-1:]), "cut off"),
    "a character missing": (PEM.replace(BODY[100], "", 1), "damaged|cut off"),
    "a character too many": (PEM.replace("MII", "M*II", 1), "damaged"),
    "an empty block": ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "damaged"),
    "no certificate inside": ("-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----", "damaged"),
    "mixed labels": (PEM.replace("END CERTIFICATE", "END X509 CRL"), "followed by END"),
    "prose": ("Please find attached the certificate.", "no certificate"),
    "too long": (PEM + "x" * 300_000, "characters"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_is_refused_by_its_name(text: str, words: str) -> None:
    with pytest.raises(CredentialError, match=words) as refused:
        read_certificates_untrusted(text)
    secret = KEY.splitlines()[1]
    assert secret not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_number_of_certificates_is_bounded() -> None:
    with pytest.raises(CredentialError, match="more than 16"):
        read_certificates_untrusted("".join(generate_identity("x")[1] for _ in range(17)))


PIECES = ["-----", "-", "BEGIN", "END", " ", "\n", "CERTIFICATE", "X509 CRL", "MII", "=", "\0", "é", "\\n", ">", "AB:"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_garbage_raises_only_the_error_for_credentials(text: str) -> None:
    with pytest.raises(CredentialError):
        read_certificates_untrusted(text)


@given(st.integers(0, len(PEM) - 1), st.characters())
def test_one_changed_character_never_yields_another_certificate(position: int, character: str) -> None:
    try:
        found = read_certificates_untrusted(PEM[:position] + character + PEM[position + 1 :])
    except CredentialError:
        return
    # A flipped bit in the name or the signature is another certificate, which nobody presents: pinning fails closed.
    assert len(found) == 1


@pytest.mark.parametrize("unit", ["-", "- ", "BEGIN ", "-----BEGIN ", "-----BEGIN A", "AB:", "\\r", "> ", "A "])
def test_hostile_text_of_the_greatest_length_is_read_to_its_end(unit: str) -> None:
    # Were the work to grow with the square of the length, this would take hours.
    with pytest.raises(CredentialError):
        read_certificates_untrusted((unit * 260_000)[: 250 * 1024])


def test_a_private_key_that_got_away_is_replaced_in_a_new_folder() -> None:
    """`pair-agent init` overwrites nothing, so in the old folder it would refuse."""
    with pytest.raises(CredentialError, match="--directory"):
        read_certificates_untrusted(KEY)
