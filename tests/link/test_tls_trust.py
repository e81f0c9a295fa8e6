"""One test for every rule about whom the link talks to (FAULTS.md, S1 and S2)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from agent.config.model import Trust
from agent.core.errors import PeerError
from agent.link.identity import Identity, certificate_pem, fingerprint
from agent.link.tls import TlsStream
from tests.link.tls_material import (
    Signed,
    client_against,
    good_pair,
    handshakes,
    identity_of,
    in_trio,
    make_certificate,
    nodes,
    outcome,
    outcomes,
    raw_context,
    server_against,
    streams,
)

BOTH_SIDES = pytest.mark.parametrize("wrong_side", ["client", "server"])


def pair_with(wrong_side: str, wrong: Signed) -> tuple[Identity, Identity]:
    """Returns a client and a server of which one presents `wrong`; all else is right."""
    client, server = nodes()
    if wrong_side == "client":
        return identity_of(wrong, server), identity_of(server, client)
    return identity_of(client, server), identity_of(wrong, client)


async def assert_refused(wrong_side: str, client: TlsStream, server: TlsStream, *words: str) -> None:
    """Asserts that the wrong side is refused with a sentence that has the words, and is told so."""
    client_error, server_error = await outcomes(client, server)
    refusal, told = (server_error, client_error) if wrong_side == "client" else (client_error, server_error)
    assert isinstance(refusal, PeerError)
    assert refusal.code == "certificate"
    for word in words:
        assert word in str(refusal)
    assert isinstance(told, PeerError)
    assert told.code == "certificate"
    assert "the other node refused this node's certificate (alert " in str(told)


@BOTH_SIDES
@in_trio
async def test_a_foreign_certificate_is_refused(wrong_side: str) -> None:
    foreign = make_certificate("stranger")
    await assert_refused(
        wrong_side,
        *streams(*pair_with(wrong_side, foreign)),
        "refused certificate of 'stranger'",
        f"SHA-256 {fingerprint(foreign.certificate)}",
        "not among the 1 pinned",
    )


@BOTH_SIDES
@in_trio
async def test_a_self_made_certificate_with_the_same_subject_is_refused(wrong_side: str) -> None:
    name = "backup" if wrong_side == "client" else "primary"
    await assert_refused(wrong_side, *streams(*pair_with(wrong_side, make_certificate(name))), "not among the 1 pinned")


@BOTH_SIDES
@in_trio
async def test_another_certificate_for_the_pinned_key_is_refused(wrong_side: str) -> None:
    right = nodes()[0 if wrong_side == "client" else 1]
    await assert_refused(
        wrong_side,
        *streams(*pair_with(wrong_side, make_certificate("renewed", key=right.key))),
        "not among the 1 pinned",
    )


@BOTH_SIDES
@in_trio
async def test_a_chain_signed_certificate_that_is_not_pinned_is_refused(wrong_side: str) -> None:
    authority = make_certificate("authority", authority=True)
    signed = make_certificate("signed", signer=authority)
    client, server = nodes()
    # The authority itself is pinned: what it signed is a stranger all the same.
    if wrong_side == "client":
        pair = identity_of(signed, server), identity_of(server, client, authority)
    else:
        pair = identity_of(client, server, authority), identity_of(signed, client)
    await assert_refused(wrong_side, *streams(*pair), "certificate of 'signed'", "not among the 2 pinned")


@in_trio
async def test_a_pinned_certificate_behind_a_foreign_leaf_is_refused() -> None:
    context = raw_context(make_certificate("stranger"))
    context.add_extra_chain_cert(nodes()[0].certificate)
    error = await server_against(context)
    assert isinstance(error, PeerError)
    assert "certificate of 'stranger'" in str(error)


@pytest.mark.parametrize("trust", list(Trust))
@BOTH_SIDES
@in_trio
async def test_an_own_certificate_reflected_is_refused_whatever_is_trusted(wrong_side: str, trust: Trust) -> None:
    # The end that has a copy is a plain one: this product's own would refuse as well, and first.
    own, other = nodes()
    judging = identity_of(own, other, own, trust=trust)  # even pinned by mistake
    against = server_against if wrong_side == "client" else client_against
    error = await against(raw_context(own), identity=judging)
    assert isinstance(error, PeerError)
    assert error.code == "certificate"
    assert "own certificate reflected" in str(error)


@in_trio
async def test_a_node_connected_to_itself_refuses_on_both_sides() -> None:
    client_error, server_error = await outcomes(*streams(good_pair()[0], good_pair()[0]))
    assert "own certificate reflected" in str(client_error)
    assert isinstance(server_error, PeerError)


@in_trio
async def test_no_certificate_is_refused() -> None:
    error = await server_against(raw_context())
    assert isinstance(error, PeerError)
    assert error.code == "certificate"
    assert "presented no certificate" in str(error)


@pytest.mark.parametrize(("first_day", "last_day", "words"), [(-30, -1, "expired at"), (2, 30, "valid only from")])
@BOTH_SIDES
@in_trio
async def test_an_expired_pinned_certificate_is_refused_if_validity_is_enforced(
    wrong_side: str, first_day: int, last_day: int, words: str
) -> None:
    good, expired = make_certificate("good"), make_certificate("late", first_day=first_day, last_day=last_day)
    judging, presenting = identity_of(good, expired, enforce_validity=True), identity_of(expired, good)
    pair = (presenting, judging) if wrong_side == "client" else (judging, presenting)
    await assert_refused(wrong_side, *streams(*pair), words, "enforce_validity is on")


@BOTH_SIDES
@in_trio
async def test_an_expired_pinned_certificate_is_accepted_with_a_warning_otherwise(wrong_side: str) -> None:
    good, expired = make_certificate("good"), make_certificate("late", first_day=-30, last_day=-1)
    judging, presenting = identity_of(good, expired), identity_of(expired, good)
    client, server = streams(*((presenting, judging) if wrong_side == "client" else (judging, presenting)))
    await handshakes(client, server)
    judge = server if wrong_side == "client" else client
    assert judge.peer_verified is Trust.PINNED
    assert "expired at" in (judge.peer_warning or "")


@in_trio
async def test_several_pinned_certificates_at_once_are_each_accepted() -> None:
    old, new = make_certificate("backup"), make_certificate("backup")
    server = nodes()[1]
    for presented in (old, new):
        client_end, server_end = streams(identity_of(presented, server), identity_of(server, old, new))
        await handshakes(client_end, server_end)
        assert server_end.peer_certificate == presented.certificate


@in_trio
async def test_insecure_trust_accepts_everyone_and_says_so() -> None:
    stranger, server = make_certificate("stranger"), nodes()[1]
    client_end, server_end = streams(identity_of(stranger, server), identity_of(server, trust=Trust.INSECURE))
    await handshakes(client_end, server_end)
    assert server_end.peer_verified is Trust.INSECURE
    assert "without any check" in (server_end.peer_warning or "")


@pytest.mark.skipif("sys.platform == 'win32'", reason="Windows has no environment variable for its certificate store")
@BOTH_SIDES
@in_trio
async def test_system_trust_accepts_what_the_store_vouches_for_and_nothing_else(
    wrong_side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_certificate("authority", authority=True)
    store = tmp_path / "store.pem"
    store.write_text(certificate_pem(authority.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    judge = make_certificate("judge")
    signed, foreign = make_certificate("signed", signer=authority), make_certificate("stranger")
    late = make_certificate("late", signer=authority, first_day=-30, last_day=-1)
    for presented, accepted in ((signed, True), (foreign, False), (late, False)):
        judging, presenting = identity_of(judge, trust=Trust.SYSTEM), identity_of(presented, judge)
        client, server = streams(*((presenting, judging) if wrong_side == "client" else (judging, presenting)))
        if accepted:
            await handshakes(client, server)
            assert (server if wrong_side == "client" else client).peer_verified is Trust.SYSTEM
        else:
            await assert_refused(wrong_side, client, server, "the system's certificate store says")


@in_trio
async def test_a_tls_1_2_client_is_refused() -> None:
    error = await server_against(raw_context(nodes()[0], version=SSL.TLS1_2_VERSION))
    assert isinstance(error, PeerError)
    assert "TLS 1.3" in str(error)


@in_trio
async def test_a_tls_1_2_server_is_refused() -> None:
    error = await client_against(raw_context(nodes()[1], version=SSL.TLS1_2_VERSION))
    assert isinstance(error, PeerError)
    assert "TLS 1.3" in str(error)


@pytest.mark.parametrize("offered", [None, b"h2"])
@in_trio
async def test_a_client_without_the_products_protocol_is_refused(offered: bytes | None) -> None:
    error = await server_against(raw_context(nodes()[0], alpn=offered))
    assert isinstance(error, PeerError)
    assert "pair-agent/1" in str(error)


@in_trio
async def test_a_server_without_the_products_protocol_is_refused() -> None:
    error = await client_against(raw_context(nodes()[1], alpn=None))
    assert isinstance(error, PeerError)
    assert "pair-agent/1" in str(error)


@in_trio
async def test_a_client_learns_at_its_first_read_that_it_was_refused() -> None:
    client, server = streams(*pair_with("client", make_certificate("stranger")))
    errors: list[Exception | None] = []

    async def serve() -> None:
        errors.append(await outcome(server))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.do_handshake()  # in TLS 1.3 the client's half ends before the server has judged it
        with pytest.raises(PeerError, match="the other node refused this node's certificate") as refused:
            await client.receive_some()
        assert refused.value.code == "certificate"
        await client.aclose()
    assert isinstance(errors[0], PeerError)


@in_trio
async def test_names_chosen_by_a_stranger_cannot_forge_a_line() -> None:
    forged = make_certificate("x\n2026-01-01 all is well\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}")
    _, server_error = await outcomes(*streams(*pair_with("client", forged)))
    assert str(server_error).isprintable()
