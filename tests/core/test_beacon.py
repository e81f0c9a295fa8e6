"""Beacons: nothing is believed that the peer did not make, for this connection, and newer than all before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.beacon import BEACON_BYTES, Beacon, BeaconCodec, BeaconKeys

ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
beacons = st.builds(Beacon, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**63 - 1))
SAID = Beacon(active=True, linked=False, hears=True, term=7)


def two_ends() -> tuple[BeaconCodec, BeaconCodec]:
    return BeaconCodec(BeaconKeys(ONE, OTHER)), BeaconCodec(BeaconKeys(OTHER, ONE))


@given(beacons)
def test_beacon_arrives_as_it_was_said(beacon: Beacon) -> None:
    here, there = two_ends()
    datagram = here.encode(beacon)
    assert len(datagram) == BEACON_BYTES
    assert there.decode_untrusted(datagram) == beacon


def test_replayed_or_overtaken_beacon_is_not_believed() -> None:
    here, there = two_ends()
    first, second = here.encode(SAID), here.encode(SAID)
    assert there.decode_untrusted(second) == SAID
    assert there.decode_untrusted(second) is None
    assert there.decode_untrusted(first) is None


def test_own_beacon_coming_back_is_not_believed() -> None:
    here, _ = two_ends()
    assert here.decode_untrusted(here.encode(SAID)) is None


def test_beacon_of_another_connection_is_not_believed() -> None:
    here, _ = two_ends()
    stranger = BeaconCodec(BeaconKeys(OTHER, b"x" * 32))
    assert stranger.decode_untrusted(here.encode(SAID)) is None


@given(st.integers(0, BEACON_BYTES * 8 - 1))
def test_beacon_with_any_bit_flipped_is_not_believed_and_the_true_one_still_is(bit: int) -> None:
    here, there = two_ends()
    datagram = bytearray(here.encode(SAID))
    datagram[bit // 8] ^= 1 << bit % 8
    assert there.decode_untrusted(bytes(datagram)) is None
    datagram[bit // 8] ^= 1 << bit % 8
    assert there.decode_untrusted(bytes(datagram)) == SAID


@given(st.binary(max_size=100))
def test_garbage_is_not_believed(garbage: bytes) -> None:
    assert two_ends()[0].decode_untrusted(garbage) is None
