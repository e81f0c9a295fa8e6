"""What a node's record becomes by what the other node says of itself. Pure; both sides reach the same agreement."""

from __future__ import annotations

from dataclasses import replace

from agent.core.messages import Hello
from agent.core.record import TERM_SLACK, Record
from agent.core.vocabulary import Mode


def agreed_record(record: Record, peer: Hello, pair_id: bytes, *, own_mode: Mode, trees: bool = False) -> Record:
    """Returns `record` with the peer's terms, name, timers and maintenance taken over.

    `pair_id` is empty while a link goes on; when it begins, and this node has `trees`, an overwrite that either node
    wants is due on both. The lanes of the two nodes' terms are disjoint afterwards: should both claim the same one, the
    backup takes the other, which is safe because both now know every term used so far. A node that lost its record
    regains its place by the terms that the peer knows of.
    """
    report = peer.report
    term = max(record.term, report.term, report.active_term)
    regained = record.damaged and term > 0  # a peer that knows of no term may have lost its record too
    lane = record.term_lane
    if own_mode is Mode.BACKUP and peer.term_lane == lane:
        lane = 1 - lane
    overwrite_due = record.overwrite_due or bool(trees and pair_id and (record.wants_overwrite or report.overwrite))
    agreed = replace(
        record,
        term=term + TERM_SLACK if regained else term,
        peer_active_term=max(record.peer_active_term, report.active_term),
        term_lane=lane,
        pair_id=record.pair_id or pair_id,
        peer_name=peer.name,
        peer_takeover_ms=min(peer.takeover_ms, peer.timeout_ms),
        mode_unproven=False,
        damaged=record.damaged and not regained,
        overwrite_due=overwrite_due,
    )
    newer = report.maintenance_revision > record.maintenance_revision
    tied = report.maintenance_revision == record.maintenance_revision
    if newer or (tied and report.maintenance):
        agreed = replace(agreed, maintenance=report.maintenance, maintenance_revision=report.maintenance_revision)
    return agreed
