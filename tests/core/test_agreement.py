"""Two nodes that met know the same terms, use different ones, and agree on maintenance."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.core.agreement import agreed_record
from agent.core.messages import Hello
from agent.core.record import TERM_SLACK, Record, next_term
from agent.core.vocabulary import Mode
from tests.core.samples import BACKUP, PRIMARY

PAIR = b"i" * 16


def hello_of(record: Record, template: Hello) -> Hello:
    """Returns what a node with that record says of itself."""
    return replace(
        template,
        term_lane=record.term_lane,
        pair_id=record.pair_id,
        report=replace(
            template.report,
            term=record.term,
            active_term=record.active_term,
            maintenance=record.maintenance,
            maintenance_revision=record.maintenance_revision,
            overwrite=record.wants_overwrite,
        ),
    )


def met(primary: Record, backup: Record) -> tuple[Record, Record]:
    """Returns both records after the two nodes, which have trees, told each other once."""
    return (
        agreed_record(primary, hello_of(backup, BACKUP), PAIR, own_mode=Mode.PRIMARY, trees=True),
        agreed_record(backup, hello_of(primary, PRIMARY), PAIR, own_mode=Mode.BACKUP, trees=True),
    )


records = st.builds(
    lambda term, active, peer_active, lane, maintenance, revision, damaged, paired, unproven, due: Record(
        term=max(term, active, peer_active),
        active_term=active,
        peer_active_term=peer_active,
        term_lane=lane,
        maintenance=maintenance,
        maintenance_revision=revision,
        damaged=damaged,
        pair_id=PAIR if paired else b"",
        mode_unproven=unproven,
        overwrite_due=due,
    ),
    *(st.integers(0, 1000) for _ in range(3)),
    st.integers(0, 1),
    st.booleans(),
    st.integers(0, 3),
    *(st.booleans() for _ in range(4)),
)


@given(records, records)
def test_both_know_every_term_used_so_far(primary: Record, backup: Record) -> None:
    highest = max(primary.term, backup.term)
    for record in met(primary, backup):
        assert record.term >= highest
        assert next_term(record) > highest
        assert not record.damaged


@given(records, records)
def test_the_lanes_are_disjoint_afterwards_and_the_primary_keeps_its_own(primary: Record, backup: Record) -> None:
    after_primary, after_backup = met(primary, backup)
    assert after_primary.term_lane == primary.term_lane != after_backup.term_lane
    assert next_term(after_primary) != next_term(after_backup)


@given(records, records)
def test_both_agree_on_maintenance_and_the_newer_order_holds(primary: Record, backup: Record) -> None:
    after = met(primary, backup)
    assert len({(each.maintenance, each.maintenance_revision) for each in after}) == 1
    newer = max(primary, backup, key=lambda each: (each.maintenance_revision, each.maintenance))
    assert after[0].maintenance is newer.maintenance


@given(records, records)
def test_meeting_again_changes_nothing(primary: Record, backup: Record) -> None:
    primary, backup = replace(primary, damaged=False), replace(backup, damaged=False)
    once = met(primary, backup)
    assert met(*met(*once)) == met(*once)


@given(records, records)
def test_the_last_activation_of_the_other_node_is_remembered(primary: Record, backup: Record) -> None:
    after, _ = met(primary, backup)
    assert after.peer_active_term == max(primary.peer_active_term, backup.active_term)
    assert after.active_term == primary.active_term


def test_a_node_that_lost_its_record_regains_its_place_by_the_terms_of_the_other_d8() -> None:
    lost = Record(mode="primary", term_lane=1, damaged=True)
    after, _ = met(lost, Record(term=41, active_term=40, term_lane=0))
    assert (after.damaged, after.term, after.pair_id) == (False, 41 + TERM_SLACK, PAIR)
    assert next_term(after) % 2 == 1


def test_a_pair_keeps_its_identity_and_learns_name_and_patience_of_the_other() -> None:
    own = Record(pair_id=b"o" * 16)
    after = agreed_record(own, BACKUP, PAIR, own_mode=Mode.PRIMARY)
    assert (after.pair_id, after.peer_name, after.peer_takeover_ms) == (b"o" * 16, "line-4-b", 5000)
    assert agreed_record(Record(), BACKUP, b"", own_mode=Mode.PRIMARY).pair_id == b""


# -- an overwrite


@given(records, records)
def test_an_overwrite_that_either_node_wants_is_due_on_both(primary: Record, backup: Record) -> None:
    wanted = primary.wants_overwrite or backup.wants_overwrite
    assert [record.overwrite_due for record in met(primary, backup)] == [wanted, wanted]


@given(records, records)
def test_an_overwrite_that_only_one_node_learned_of_is_due_on_both_when_they_meet_again(
    primary: Record, backup: Record
) -> None:
    """The link broke when one node had stored the agreement and the other had not."""
    after, _ = met(primary, backup)
    _, after_backup = met(primary, backup)
    wanted = primary.wants_overwrite or backup.wants_overwrite
    for pair in (met(after, backup), met(primary, after_backup)):
        assert [record.overwrite_due for record in pair] == [wanted, wanted]


@given(records, records)
def test_an_overwrite_is_agreed_upon_when_the_link_opens_and_not_while_it_goes_on(
    primary: Record, backup: Record
) -> None:
    peer = hello_of(replace(backup, overwrite_due=True), BACKUP)
    after = agreed_record(primary, peer, b"", own_mode=Mode.PRIMARY, trees=True)
    assert after.overwrite_due is primary.overwrite_due


@given(records, records)
def test_a_node_without_trees_has_nothing_to_overwrite(primary: Record, backup: Record) -> None:
    after = agreed_record(primary, hello_of(backup, BACKUP), PAIR, own_mode=Mode.PRIMARY)
    assert after.overwrite_due is primary.overwrite_due


@given(records, records)
def test_the_version_of_the_trees_is_each_nodes_own(primary: Record, backup: Record) -> None:
    primary = replace(primary, data_term=3, data_alone=True, base_term=2, incomplete="a copy")
    after, _ = met(primary, backup)
    assert (after.version, after.incomplete) == (primary.version, "a copy")
