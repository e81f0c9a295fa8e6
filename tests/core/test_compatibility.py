"""Two nodes reach one verdict about each other, and it names both values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.compatibility import CloseCode, common_version, contradiction, pair_id_of
from agent.core.messages import Hello
from agent.core.vocabulary import Mode
from tests.core.samples import BACKUP, PRIMARY

versions = st.tuples(st.integers(0, 6), st.integers(0, 6))


@given(versions, versions)
def test_the_common_version_is_the_highest_in_both_ranges(own: tuple[int, int], peer: tuple[int, int]) -> None:
    both = [version for version in range(7) if own[0] <= version <= own[1] and peer[0] <= version <= peer[1]]
    if own[0] <= own[1] and peer[0] <= peer[1]:
        assert common_version(own, peer) == max(both, default=None)
    assert common_version(own, peer) == common_version(peer, own)


def test_a_primary_and_a_backup_can_be_a_pair() -> None:
    assert contradiction(PRIMARY, BACKUP) is None
    assert contradiction(BACKUP, PRIMARY) is None


hellos = st.builds(
    lambda mode, pair_id, interval, timeout, takeover: replace(
        PRIMARY, mode=mode, pair_id=pair_id, interval_ms=interval, timeout_ms=timeout, takeover_ms=takeover
    ),
    st.sampled_from(Mode),
    st.sampled_from([b"", b"1" * 16, b"2" * 16]),
    *(st.sampled_from([0, 1, 2, 50, 1000]) for _ in range(3)),
)


@given(hellos, hellos)
def test_both_nodes_reach_the_same_verdict(own: Hello, peer: Hello) -> None:
    own, peer = replace(own, name="here"), replace(peer, name="there")
    mine, theirs = contradiction(own, peer), contradiction(peer, own)
    assert (mine and mine[0]) == (theirs and theirs[0])
    if mine and theirs:
        assert all("here" in sentence and "there" in sentence for _, sentence in (mine, theirs))
        if mine[0] is CloseCode.TIMERS:
            assert mine == theirs, "one sentence, so that both operators mend the same thing"


@given(hellos, hellos)
def test_who_is_admitted_waits_longer_than_the_other_beats(own: Hello, peer: Hello) -> None:
    if contradiction(own, peer) is None:
        assert {own.mode, peer.mode} == {Mode.PRIMARY, Mode.BACKUP}
        assert min(own.timeout_ms, own.takeover_ms) > peer.interval_ms
        assert min(peer.timeout_ms, peer.takeover_ms) > own.interval_ms


@pytest.mark.parametrize("mode", [Mode.PRIMARY, Mode.BACKUP])
def test_a_stand_alone_node_is_no_half_of_a_pair(mode: Mode) -> None:
    refused = contradiction(replace(PRIMARY, mode=Mode.STAND_ALONE), replace(BACKUP, mode=mode))
    assert refused is not None
    assert refused[0] is CloseCode.MODE
    assert 'mode = "stand-alone"' in refused[1]


def test_the_advice_about_timers_names_the_node_to_change() -> None:
    for hellos_in_either_order in (
        (PRIMARY, replace(BACKUP, takeover_ms=900)),
        (replace(BACKUP, takeover_ms=900), PRIMARY),
    ):
        refused = contradiction(*hellos_in_either_order)
        assert refused is not None
        assert "raise heartbeat.timeout (on a backup connection_timeout too) on 'line-4-b'" in refused[1]
        assert "or lower heartbeat.interval on 'line-4-a'" in refused[1]


def test_a_pair_keeps_its_identity_and_a_new_one_gets_it_from_both_nonces() -> None:
    digest = bytes(range(32))
    assert pair_id_of(PRIMARY, BACKUP, digest) == digest[:16]
    paired = replace(PRIMARY, pair_id=b"i" * 16)
    assert pair_id_of(paired, BACKUP, digest) == pair_id_of(BACKUP, paired, digest) == b"i" * 16


def test_timers_wrong_both_ways_give_one_sentence_on_both_sides() -> None:
    primary, backup = replace(PRIMARY, interval_ms=6000), replace(BACKUP, interval_ms=7000)
    refused = contradiction(primary, backup)
    assert refused is not None
    assert refused == contradiction(backup, primary)
