"""Freezes, partitions and the passing of time in the modelled pair."""

from __future__ import annotations

from agent.core import inputs as told
from tests.simulation.pair_model import Pair
from tests.simulation.pair_values import FENCE_S, GREETING_S, SECOND, TAKEOVER_S


def freeze(pair: Pair, at: int) -> None:
    """Stops an agent without killing it; its guardian goes on."""
    node = pair.nodes[at]
    node.frozen_since = pair.now
    if node.running is not None:
        node.fence_at = pair.now + FENCE_S
    for connection in pair.connections.values():
        connection.ends[at].heard_at = pair.now
    _set_silences(pair)


def wake(pair: Pair, at: int) -> None:
    """Lets a frozen agent run again; what it missed waits for it."""
    node = pair.nodes[at]
    assert node.frozen_since is not None
    frozen = node.frozen_untold or pair.now - node.frozen_since > FENCE_S
    node.frozen_untold = False
    node.frozen_since, node.fence_at, node.woke_at = None, None, pair.now
    for connection in pair.connections.values():
        end = connection.ends[at]
        if end.silent_at is not None and end.silent_at <= pair.now:
            end.silent_at = pair.now + TAKEOVER_S // 4
    _set_silences(pair)
    if frozen:
        pair.tell(at, told.Frozen("this agent was frozen"))  # before all that came meanwhile


def partition(pair: Pair, unheard: frozenset[int]) -> None:
    """Lets the frames of these nodes vanish, or of none: the network is whole again."""
    if pair.blocked:
        pair.partitioned_at = pair.now
    pair.blocked = unheard
    _set_silences(pair)


def _set_silences(pair: Pair) -> None:
    for connection in pair.connections.values():
        for at, end in enumerate(connection.ends):
            if end.over:
                continue
            dark = (1 - at) in pair.blocked or not pair.nodes[1 - at].awake
            if dark and end.silent_at is None:
                end.silent_at = pair.now + (TAKEOVER_S if end.opened else GREETING_S)
            elif not dark and not connection.ends[1 - at].over and end.silent_at is not None:
                end.silent_at = end.heard_at = None


def deadlines(pair: Pair) -> list[int]:
    """Returns every instant at which something is due by itself."""
    due = []
    for node in pair.nodes:
        if node.frozen_since is None and node.roles is not None:
            deadline_ns = node.roles.next_deadline()
            if deadline_ns is not None:
                due.append(-(-deadline_ns // SECOND))
            if node.stop_by is not None:
                due.append(node.stop_by)
        if node.fence_at is not None and node.running is not None:
            due.append(node.fence_at)
    for connection in pair.connections.values():
        for at, end in enumerate(connection.ends):
            if end.silent_at is not None and pair.nodes[at].awake:
                due.append(end.silent_at)
    return due


def next_instant(pair: Pair) -> int | None:
    """Returns when something happens next by itself, or None; while only one can be heard its beacons come."""
    later = [each for each in deadlines(pair) if each > pair.now]
    primary, backup = pair.nodes
    if len(pair.blocked) == 1 and primary.awake and backup.awake and primary.keys == backup.keys is not None:
        later.append(pair.now + 1)
    return min(later, default=None)


def pass_time(pair: Pair) -> None:
    """Goes to the next instant."""
    later = next_instant(pair)
    assert later is not None
    for connection in pair.connections.values():
        for at, end in enumerate(connection.ends):
            # A frozen node finds heartbeats in its socket if the other one went on sending.
            speaks = pair.nodes[1 - at].awake and (1 - at) not in pair.blocked and not connection.ends[1 - at].over
            if speaks and not pair.nodes[at].awake:
                end.heard_at = None
    if pair.blocked:
        pair.partitioned_at = later
    pair.now = later
    for at in range(2):
        pair.send_beacon(at)
